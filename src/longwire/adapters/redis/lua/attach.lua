-- Routes devices of one segment to a node.
-- KEYS[1]: what the segment's keys begin with. ARGV: node, when its caller gives up (ms, 0: unknown), count of kinds
-- of hints, the kinds, devices (low halves).
-- Gives the time in ms, then for each device its epoch, 1 where anything may wait for it, and the route it took over
-- ("" for none). Too late, it gives the time alone: a route that nobody waits for would stand above a later one.
local base, node, kinds = KEYS[1], ARGV[1], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local gives_up = tonumber(ARGV[2])
if gives_up > 0 and now > gives_up then return {now} end
local lowest = math.max(now, tonumber(redis.call('GET', base .. ':f') or 0) + 1)
local here = base .. ':on:' .. node
local is_whole = true
for kind = 4, 3 + kinds do
  if redis.call('EXISTS', base .. ':' .. ARGV[kind] .. 'v') == 0 then is_whole = false end
end
redis.call('SADD', base .. ':nodes', node)
local out = {now}
for i = 4 + kinds, #ARGV do
  local low = tonumber(ARGV[i])
  local place = low - low % 8 + 7 - low % 8
  local hash, field = base .. ':r:' .. math.floor(low / 256), low % 256
  local old = redis.call('HGET', hash, field)
  local epoch = lowest
  if old then
    local old_node, old_epoch = string.match(old, '^(.*)|(%d+)$')
    epoch = math.max(epoch, tonumber(old_epoch) + 1)
    if old_node ~= node then redis.call('SETBIT', base .. ':on:' .. old_node, place, 0) end
  end
  redis.call('HSET', hash, field, node .. '|' .. string.format('%.0f', epoch))
  redis.call('SETBIT', here, place, 1)
  local waits = is_whole and 0 or 1
  for kind = 4, 3 + kinds do
    if waits == 0 then waits = redis.call('GETBIT', base .. ':' .. ARGV[kind], place) end
  end
  out[#out + 1] = epoch
  out[#out + 1] = waits
  out[#out + 1] = old or ''
end
return out
