-- state: all that is stored of token buckets, at one moment.
--
-- KEYS  see token_bucket.lua
-- reply gate (members and scores alternating), ticks (a hash, fields and values alternating)

return { redis.call("ZRANGE", KEYS[#KEYS - 1], 0, -1, "WITHSCORES"), redis.call("HGETALL", KEYS[#KEYS]) }
