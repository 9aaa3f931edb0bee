-- bucket state: all that is written down about buckets, at one moment.
--
-- reply gate (members and scores in turn), ticks (hash, flat)

return { redis.call("ZRANGE", KEYS[#KEYS - 1], 0, -1, "WITHSCORES"), redis.call("HGETALL", KEYS[#KEYS]) }
