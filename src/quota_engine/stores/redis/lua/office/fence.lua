-- fence: keeps an office closed after a failover until a client has reconciled its ledger.
--
-- It uses three fields of the head:
--
--   server  the server on which the office was written last
--   epoch   grows with each takeover
--   mender  the client that reconciles the office at this moment, and since when
--
-- The id of a server's replication history identifies the server. Each promotion and each restart changes the id, even of
-- a server that was the primary before.

local function this_server()
  return string.match(redis.call("INFO", "replication"), "master_replid:(%x+)")
end

-- Check an office's fence.
--
-- head  the key of its head
-- seen  "epoch:server" as the caller saw them last, or ""
--
-- Returns the error text that forbids writes here, or nil; then the epoch (0 before the first event) and the server.
local function fence(head, seen)
  local known = redis.call("HMGET", head, "number", "epoch", "server", "mender")
  local epoch, server = tonumber(known[2] or "0"), this_server()
  local seen_epoch, seen_server = string.match(seen, "^(%d+):(%x*)$")
  seen_epoch = tonumber(seen_epoch or "0")
  if epoch < seen_epoch then
    return "BEHIND the office is at epoch " .. epoch .. " on this server and at " .. seen_epoch .. " elsewhere: an old primary",
      epoch, server
  end
  if not known[1] then return nil, 0, server end
  if known[3] ~= server or known[4] or (epoch == seen_epoch and seen_server ~= server) then
    return "FENCED another server wrote the office last (epoch " .. epoch .. ")", epoch, server
  end
  return nil, epoch, server
end
