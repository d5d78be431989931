-- The store is about to be asked what waits for these devices of one segment.
-- KEYS[1]: what the segment's keys begin with. ARGV: kind of hint, ticket, seconds it holds, devices (low halves).
local asked = KEYS[1] .. ':' .. ARGV[1] .. 'c'
for i = 4, #ARGV do redis.call('HSET', asked, ARGV[i], ARGV[2]) end
redis.call('EXPIRE', asked, ARGV[3])
