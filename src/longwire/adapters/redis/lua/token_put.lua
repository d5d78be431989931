-- Keeps copies of tokens, but of barred ones. ARGV: for how many ms; of each, 1 where it is fresh, and what to keep.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) ~= 'X' then
    local since = ARGV[2 * i] == '1' and now or 0
    redis.call('SET', key, string.format('%013.0f', since) .. ARGV[2 * i + 1], 'PX', ARGV[1])
  end
end
