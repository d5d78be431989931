-- Removes some of a dead node's routes of one segment; gives how many, and 1 where none is left.
-- KEYS[1]: what the segment's keys begin with. ARGV: node, at most how many.
local base, node = KEYS[1], ARGV[1]
local here = base .. ':on:' .. node
local floor = tonumber(redis.call('GET', base .. ':f') or 0)
local highest, removed, is_done = floor, 0, 0
for _ = 1, tonumber(ARGV[2]) do
  local place = redis.call('BITPOS', here, 1)
  if place < 0 then
    redis.call('DEL', here)
    redis.call('SREM', base .. ':nodes', node)
    is_done = 1
    break
  end
  local low = place - place % 8 + 7 - place % 8
  local hash, field = base .. ':r:' .. math.floor(low / 256), low % 256
  local old_node, old_epoch = string.match(redis.call('HGET', hash, field) or '', '^(.*)|(%d+)$')
  if old_node == node then
    redis.call('HDEL', hash, field)
    highest = math.max(highest, tonumber(old_epoch))
    removed = removed + 1
  end
  redis.call('SETBIT', here, place, 0)
end
if highest > floor then redis.call('SET', base .. ':f', string.format('%.0f', highest)) end
return {removed, is_done}
