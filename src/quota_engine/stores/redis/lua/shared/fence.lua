-- fence: refuses a ledger on a server that did not write it last, until a client has taken it over. Serves all kinds.
--
-- It uses four fields of the ledger's head:
--
--   server      the server on which the ledger was written last
--   epoch       1 when the ledger is created; grows with each takeover
--   ends_at_ms  when the ledger ends by itself, 0 or missing if that is not known
--   mender      the client that reconciles the office at this moment, and since when; only offices have it
--
-- The id of a server's replication history identifies the server. Each promotion and each restart changes the id, even of
-- a server that was the primary before.
--
-- The loader defines FENCE for the kind of ledger: the number of the head's key, and a field that every such ledger has. It
-- also has the names of the fields above, and the traits of the kind. LOSS_KEPT_MS is how long a loss is remembered.

-- The loader makes this file the body of load_fence(), so that a call without a fence pays nothing for it.

local FENCE_HEAD = KEYS[tonumber(FENCE.head)]

local function this_server()
  return string.match(redis.call("INFO", "replication"), "master_replid:(%x+)")
end

-- Check the ledger's fence.
--
-- seen  "epoch:server:ends_at_ms" as the caller saw them last, or ""
--
-- Returns the fence as it is stored, and `problem`, the error that forbids the call here, or nil:
--   FENCED epoch since_ms "1"    another server wrote the ledger last; since_ms: a client reconciles it since then, or 0. "0"
--                                instead of "1": clients without a fence wrote it
--   BEHIND epoch seen_epoch "1"  the caller has seen a later epoch; "0" instead of "1": there is no ledger
local function check(seen, now_ms)
  local known = redis.call("HMGET", FENCE_HEAD, FENCE.known, FENCE.epoch, FENCE.server, FENCE.ends_at_ms, FENCE.mender)
  local seen_epoch, seen_server, seen_ends_at_ms = string.match(seen, "^(%d+):(%x*):(%d+)$")
  local fence = {
    is_known = known[1] ~= false, epoch = tonumber(known[2] or "0"), server = known[3], ends_at_ms = known[4] or "0",
    mender = known[5], here = this_server(), seen_epoch = tonumber(seen_epoch or "0"),
  }
  seen_ends_at_ms = tonumber(seen_ends_at_ms or "0")
  -- The ledger that the caller saw has ended by itself; a new one begins at the first epoch.
  if seen_ends_at_ms > 0 and now_ms >= seen_ends_at_ms then fence.seen_epoch = 0 end
  local may_be_lost = not fence.is_known and FENCE.may_be_lost == "1"
  if fence.epoch < fence.seen_epoch and not may_be_lost then
    fence.is_behind = true
    fence.problem = string.format("BEHIND %.0f %.0f %d", fence.epoch, fence.seen_epoch, fence.is_known and 1 or 0)
  elseif fence.is_known then
    -- A ledger without a server was written by clients without a fence. Nothing shows that a server was lost since.
    local is_elsewhere = fence.server ~= fence.here and (fence.server or FENCE.needs_repair == "1")
    if is_elsewhere or fence.mender or (fence.epoch == fence.seen_epoch and seen_server ~= fence.here) then
      local since_ms = fence.mender and string.match(fence.mender, " (%d+)$") or "0"
      fence.problem = string.format("FENCED %.0f %s %d", fence.epoch, since_ms, fence.server and 1 or 0)
    end
  end
  return fence
end

-- Return the last line of a reply: what the caller has seen now.
local function line(fence)
  return string.format("%.0f:%s:%s", fence.epoch, fence.here, fence.ends_at_ms)
end

-- Return the same line after commands that may have created the ledger. A new ledger gets its server and epoch.
local function write(fence)
  local known = redis.call("HMGET", FENCE_HEAD, FENCE.known, FENCE.epoch, FENCE.server, FENCE.ends_at_ms)
  if not known[1] then
    fence.epoch = tonumber(known[2] or "0") -- there was none, or it has ended
  elseif not known[3] then
    -- A later epoch is one that an operator set for a store that had lost the ledger.
    fence.epoch = math.max(1, tonumber(known[2] or "0"), fence.is_known and 0 or fence.epoch)
    if FENCE.may_be_lost == "1" then fence.epoch = math.max(fence.epoch, fence.seen_epoch + 1) end
    redis.call("HSET", FENCE_HEAD, FENCE.server, fence.here, FENCE.epoch, string.format("%.0f", fence.epoch))
  end
  fence.ends_at_ms = known[4] or "0"
  return line(fence)
end

-- Note that the store has lost the ledger. The next one with this address begins at a later epoch, so that clients that have
-- seen the lost one accept it.
local function mark_lost(fence)
  fence.epoch = fence.seen_epoch + 1
  redis.call("HSET", FENCE_HEAD, FENCE.epoch, string.format("%.0f", fence.epoch))
  redis.call("PEXPIRE", FENCE_HEAD, LOSS_KEPT_MS)
end

-- Take the ledger over: this server is from now on the one that wrote it last, at a later epoch.
local function take_over(fence)
  fence.epoch = math.max(fence.epoch, fence.seen_epoch) + 1
  redis.call("HSET", FENCE_HEAD, FENCE.server, fence.here, FENCE.epoch, string.format("%.0f", fence.epoch))
end

-- Bring the ledger's time back if it is later than the clock's by more than clocks differ. Returns by how much, or 0.
local function correct_time(now_ms, differ_ms)
  local times = redis.call("HMGET", FENCE_HEAD, FENCE.time, FENCE.steps)
  local ahead_ms = (tonumber(times[1] or "") or 0) - now_ms
  if ahead_ms <= differ_ms then return 0 end
  local text = string.format("%.0f", now_ms)
  redis.call("HSET", FENCE_HEAD, FENCE.time, text)
  if FENCE.steps ~= "" and (tonumber(times[2] or "") or 0) > now_ms then redis.call("HSET", FENCE_HEAD, FENCE.steps, text) end
  return ahead_ms
end

return { correct_time = correct_time, check = check, line = line, write = write, mark_lost = mark_lost, take_over = take_over }
