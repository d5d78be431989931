-- A segment's hints become what the store said and what was added meanwhile. 0: Redis lost the ticket, and so perhaps
-- something that was added. Without bits the rebuilding is given up.
-- KEYS[1]: what the segment's keys begin with. ARGV: kind of hint, ticket, bits.
local bits = KEYS[1] .. ':' .. ARGV[1]
if redis.call('GET', bits .. 'r') ~= ARGV[2] then return 0 end
if ARGV[3] ~= '' then
  redis.call('SET', bits, ARGV[3])
  redis.call('BITOP', 'OR', bits, bits, bits .. 'a')
  redis.call('SET', bits .. 'v', 1)
end
redis.call('DEL', bits .. 'a', bits .. 'r')
return 1
