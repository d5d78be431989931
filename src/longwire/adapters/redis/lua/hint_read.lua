-- The hints of devices of one segment: first 1 where they are whole, then the bit of each.
-- KEYS[1]: what the segment's keys begin with. ARGV: kind of hint, devices (low halves).
local bits = KEYS[1] .. ':' .. ARGV[1]
local out = {redis.call('EXISTS', bits .. 'v')}
for i = 2, #ARGV do
  local low = tonumber(ARGV[i])
  out[i] = redis.call('GETBIT', bits, low - low % 8 + 7 - low % 8)
end
return out
