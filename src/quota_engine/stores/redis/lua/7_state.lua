-- state: everything that is known of an office, as it is written down, at one moment. A script and no transaction, because a
-- transaction is refused when memory is out, which is when somebody may want to look.
--
-- reply head, days, records, claims, standings (hashes, flat), cooling, waiting, updated (members), choices (flat), events

local function all(key)
  return redis.call("HGETALL", key)
end

local function members(key)
  return redis.call("ZRANGE", key, 0, -1)
end

return {
  all(KEYS[1]), all(KEYS[2]), all(KEYS[3]), all(KEYS[4]), all(KEYS[5]), members(KEYS[7]), members(KEYS[8]), members(KEYS[11]),
  all(KEYS[10]), redis.call("XRANGE", KEYS[9], "-", "+"),
}
