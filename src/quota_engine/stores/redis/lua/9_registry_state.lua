-- registry state: everything that one shard knows, as it is written down.
--
-- reply head, claims, moves (hashes, flat)

return { redis.call("HGETALL", KEYS[1]), redis.call("HGETALL", KEYS[2]), redis.call("HGETALL", KEYS[4]) }
