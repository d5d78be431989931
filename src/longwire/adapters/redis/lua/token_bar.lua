-- Drops copies of tokens, and takes none for ARGV[1] seconds.
for _, key in ipairs(KEYS) do redis.call('SET', key, 'X', 'EX', ARGV[1]) end
