-- state: all that is stored of one shard of the registry, at one moment.
--
-- KEYS  see ledger.lua
-- reply head, claims, moves (hashes, fields and values alternating)

return { redis.call("HGETALL", KEYS[1]), redis.call("HGETALL", KEYS[2]), redis.call("HGETALL", KEYS[4]) }
