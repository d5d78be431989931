-- Something waits for these devices of one segment.
-- KEYS[1]: what the segment's keys begin with. ARGV: kind of hint, devices (low halves).
local bits = KEYS[1] .. ':' .. ARGV[1]
local is_rebuilt, is_asked = redis.call('EXISTS', bits .. 'r') == 1, redis.call('EXISTS', bits .. 'c') == 1
for i = 2, #ARGV do
  local low = tonumber(ARGV[i])
  local place = low - low % 8 + 7 - low % 8
  redis.call('SETBIT', bits, place, 1)
  if is_rebuilt then redis.call('SETBIT', bits .. 'a', place, 1) end
  if is_asked then redis.call('HDEL', bits .. 'c', low) end
end
