-- room_state: everything that is known of a waiting room, as it is written down, at one moment. For comparisons, not for rooms of millions.
--
-- reply head, identities (hashes, flat)

return { redis.call("HGETALL", KEYS[1]), redis.call("HGETALL", KEYS[2]) }
