-- A segment's hints are about to be rebuilt: what is added from now on is kept aside as well. 0: another is at it.
-- KEYS[1]: what the segment's keys begin with. ARGV: kind of hint, ticket, seconds it holds.
local bits = KEYS[1] .. ':' .. ARGV[1]
if not redis.call('SET', bits .. 'r', ARGV[2], 'NX', 'EX', ARGV[3]) then return 0 end
redis.call('DEL', bits .. 'a')
return 1
