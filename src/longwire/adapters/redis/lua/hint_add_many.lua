-- As hint_add, for many: ARGV: kind of hint, 65,536 bits. No question under way for the segment clears anything then.
-- KEYS[1]: what the segment's keys begin with.
local bits = KEYS[1] .. ':' .. ARGV[1]
redis.call('SET', bits .. 't', ARGV[2])
redis.call('BITOP', 'OR', bits, bits, bits .. 't')
if redis.call('EXISTS', bits .. 'r') == 1 then
  redis.call('BITOP', 'OR', bits .. 'a', bits .. 'a', bits .. 't')
end
redis.call('DEL', bits .. 't', bits .. 'c')
