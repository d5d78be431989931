-- The copies of tokens: for each its age in ms and what is kept; -1: none; -2: barred.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local out = {}
for i, key in ipairs(KEYS) do
  local kept = redis.call('GET', key)
  if not kept then
    out[2 * i - 1], out[2 * i] = -1, ''
  elseif kept == 'X' then
    out[2 * i - 1], out[2 * i] = -2, ''
  else
    out[2 * i - 1], out[2 * i] = math.max(0, now - tonumber(string.sub(kept, 1, 13))), string.sub(kept, 14)
  end
end
return out
