-- state: reads a whole office at one moment, if it changes too often to be read in parts (parts.lua). A script instead of a
-- transaction, because a server without free memory refuses transactions, and that is when an operator needs to read.
--
-- KEYS  see ledger.lua
-- reply head, days, records, claims, penalties (hashes, fields and values alternating), cooling, waiting, updated
--       (members), choices (a hash), the texts of the events.

local function all(index) return redis.call("HGETALL", KEYS[index]) end
local function members(index) return redis.call("ZRANGE", KEYS[index], 0, -1) end

local events = {}
for index, entry in ipairs(redis.call("XRANGE", KEYS[9], "-", "+")) do events[index] = entry[2][2] end
return { all(1), all(2), all(3), all(4), all(5), members(7), members(8), members(11), all(10), events }
