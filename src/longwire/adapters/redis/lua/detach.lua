-- Removes routes of one segment that are exactly the given ones, and keeps their epochs from being given again.
-- KEYS[1]: what the segment's keys begin with. ARGV: node, then device (low half) and epoch of each session.
local base, node = KEYS[1], ARGV[1]
local here = base .. ':on:' .. node
local floor = tonumber(redis.call('GET', base .. ':f') or 0)
local highest = floor
for i = 2, #ARGV, 2 do
  local low = tonumber(ARGV[i])
  local hash, field = base .. ':r:' .. math.floor(low / 256), low % 256
  if redis.call('HGET', hash, field) == node .. '|' .. ARGV[i + 1] then
    redis.call('HDEL', hash, field)
    redis.call('SETBIT', here, low - low % 8 + 7 - low % 8, 0)
    highest = math.max(highest, tonumber(ARGV[i + 1]))
  end
end
if highest > floor then redis.call('SET', base .. ':f', string.format('%.0f', highest)) end
if redis.call('BITCOUNT', here) == 0 then
  redis.call('DEL', here)
  redis.call('SREM', base .. ':nodes', node)
end
