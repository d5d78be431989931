-- The hints of one segment: 1 where they are whole, and the bits.
-- KEYS[1]: what the segment's keys begin with. ARGV: kind of hint.
local bits = KEYS[1] .. ':' .. ARGV[1]
return {redis.call('EXISTS', bits .. 'v'), redis.call('GET', bits) or ''}
