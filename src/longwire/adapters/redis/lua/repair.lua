-- Routes sessions of one segment to their node again, with their own epochs, unless a route as high stands.
-- KEYS[1]: what the segment's keys begin with. ARGV: node, then device (low half) and epoch of each session.
-- Gives the devices that lost, each with the route that stands.
local base, node = KEYS[1], ARGV[1]
local here = base .. ':on:' .. node
local lost = {}
redis.call('SADD', base .. ':nodes', node)
for i = 2, #ARGV, 2 do
  local low, epoch = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local place = low - low % 8 + 7 - low % 8
  local hash, field = base .. ':r:' .. math.floor(low / 256), low % 256
  local mine = node .. '|' .. ARGV[i + 1]
  local old = redis.call('HGET', hash, field)
  local old_node, old_epoch
  if old then old_node, old_epoch = string.match(old, '^(.*)|(%d+)$') end
  if not old or tonumber(old_epoch) < epoch then
    if old and old_node ~= node then redis.call('SETBIT', base .. ':on:' .. old_node, place, 0) end
    redis.call('HSET', hash, field, mine)
    redis.call('SETBIT', here, place, 1)
  elseif old == mine then
    redis.call('SETBIT', here, place, 1)
  else
    lost[#lost + 1] = low
    lost[#lost + 1] = old
    if old_node ~= node then redis.call('SETBIT', here, place, 0) end
  end
end
if redis.call('BITCOUNT', here) == 0 then
  redis.call('DEL', here)
  redis.call('SREM', base .. ':nodes', node)
end
return lost
