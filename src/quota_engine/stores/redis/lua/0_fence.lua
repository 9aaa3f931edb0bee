-- fence: after a failover an office stays closed until its ledger has been looked through. Its head says on which server it was written
-- last (server), carries the fencing epoch, which grows with each time that it was taken over, and names who is at it (mender).
--
-- A server is known by the id of its history: each promotion and each restart gives it a new one, even if it was the primary before.

local function this_server()
  return string.match(redis.call("INFO", "replication"), "master_replid:(%x+)")
end

-- seen is what the caller has seen of this office last, "epoch:server", or "". Returns why nothing may be changed here, or nil; and the
-- epoch (0 before the first event) and the server.
local function fence(head, seen)
  local known = redis.call("HMGET", head, "number", "epoch", "server", "mender")
  local epoch, server = tonumber(known[2] or "0"), this_server()
  local seen_epoch, seen_server = string.match(seen, "^(%d+):(%x*)$")
  seen_epoch = tonumber(seen_epoch or "0")
  if epoch < seen_epoch then
    return "BEHIND the office is at epoch " .. epoch .. " here, and at " .. seen_epoch .. " elsewhere: an old primary", epoch, server
  end
  if not known[1] then return nil, 0, server end
  if known[3] ~= server or known[4] or (epoch == seen_epoch and seen_server ~= server) then
    return "FENCED the office was written by another server last (epoch " .. epoch .. ")", epoch, server
  end
  return nil, epoch, server
end
