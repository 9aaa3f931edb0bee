-- parts: reads an office in parts, for audits and descriptions. Unlike reconcile.lua, it stops no other client. Instead, each
-- part shows the office's revision, and a part of another revision is not read.
--
-- KEYS  see ledger.lua
-- ARGV  1 "". 2 the revision of the first part, "" to read that one. 3 and 4 the part and the cursor, see snapshot.lua.
-- reply the revision, and unless it differs, the next part of the snapshot

-- Each event changes the number. Without an event, clients forget old records with their choices, and reconcile.
local head = redis.call("HMGET", KEYS[1], "number", "epoch", "mender")
for index = 1, 3 do head[index] = head[index] or "" end
local sizes = string.format("%.0f %.0f", redis.call("HLEN", KEYS[3]), redis.call("HLEN", KEYS[10]))
local revision = table.concat(head, " ") .. " " .. sizes
if ARGV[2] ~= "" and ARGV[2] ~= revision then return { revision } end
return read_snapshot({ revision }, tonumber(ARGV[3]), ARGV[4])
