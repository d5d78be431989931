-- Each node of a segment, with the bitmap of who is there.
-- KEYS[1]: what the segment's keys begin with.
local out = {}
for _, node in ipairs(redis.call('SMEMBERS', KEYS[1] .. ':nodes')) do
  out[#out + 1] = node
  out[#out + 1] = redis.call('GET', KEYS[1] .. ':on:' .. node) or ''
end
return out
