-- The store had nothing for the first of these devices of one segment: their hints go where the ticket still stands.
-- KEYS[1]: what the segment's keys begin with. ARGV: kind of hint, ticket, count of those, devices (low halves).
local bits = KEYS[1] .. ':' .. ARGV[1]
local empty = tonumber(ARGV[3])
for i = 4, #ARGV do
  if redis.call('HGET', bits .. 'c', ARGV[i]) == ARGV[2] then
    redis.call('HDEL', bits .. 'c', ARGV[i])
    local low = tonumber(ARGV[i])
    if i < 4 + empty then redis.call('SETBIT', bits, low - low % 8 + 7 - low % 8, 0) end
  end
end
