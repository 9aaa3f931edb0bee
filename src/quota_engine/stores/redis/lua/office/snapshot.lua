-- snapshot: all that is stored of an office, at one moment. A script instead of a transaction, because a server without
-- free memory refuses transactions, and that is when an operator needs to read.

-- Return head, days, records, claims, penalties (hashes, fields and values alternating), cooling, waiting, updated
-- (members), choices (a hash), events.
local function snapshot()
  local function all(index) return redis.call("HGETALL", KEYS[index]) end
  local function members(index) return redis.call("ZRANGE", KEYS[index], 0, -1) end
  return {
    all(1), all(2), all(3), all(4), all(5), members(7), members(8), members(11), all(10),
    redis.call("XRANGE", KEYS[9], "-", "+"),
  }
end
