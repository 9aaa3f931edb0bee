-- hash_state: all that is stored of a ledger whose keys are hashes, at one moment. Serves waiting rooms and draws.
--
-- KEYS  those of the ledger
-- reply each hash in the order of the keys, fields and values alternating

local replies = {}
for index, key in ipairs(KEYS) do replies[index] = redis.call("HGETALL", key) end
return replies
