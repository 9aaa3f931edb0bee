-- reconcile: repairs an office's ledger after another server has taken over, and opens it again. The client decides what to
-- repair (domain/reconcile.py): it reads everything, and writes while the fence stops all other clients.
--
-- KEYS  see ledger.lua
-- ARGV  1 see shared/call.lua; 2 the step; 3 the client's token; 4 ... its arguments:
--         begin seen force lease_ms   force "1": even if the office is open. Reply "EMPTY": there is no ledger.
--                                     Reply "DONE", the fence's line: it is open. Reply "BUSY": another client
--                                     reconciles it.
--                                     Reply "GO", epoch, the lease, the server, and the first part of a snapshot.
--                                     The fence stops all other clients from now on.
--         read lease server part cursor
--                                     Reply "OK" and the next part of the snapshot; see snapshot.lua
--         write number ...            four words for each write: HSET key field text, HDEL key field "", ZADD key score
--                                     member, ZREM key member "", XADD key number event; key is its number. Reply "OK"
--         open number seen            open the office at the next epoch. Reply "OK", the fence's line
--         leave                       let another client reconcile the office. Reply "OK"
--
--       The words seen are the fence as the client saw it last: see shared/fence.lua.
--
-- error BEHIND to begin without force: nothing was done.
--
-- The reply to write and open is "TAKEN" if another token has the office, or number is not that of its last event.
-- Nothing was done then. The reply to read is "TAKEN" if anything has changed since begin, and if it is another server.

local HEAD = KEYS[1]
local call = redis.call

local now_ms = call_time()
check_leap(now_ms, 0)
local fences = load_fence()
local token = ARGV[3]

-- Return the token of the client that reconciles the office, and since when.
local function mender()
  return string.match(call("HGET", HEAD, "mender") or "", "^(%S+) (%d+)$")
end

local function is_mine(number)
  local name = mender()
  return name == token and call("HGET", HEAD, "number") == number
end

local function now_text()
  return string.format("%.0f", now_ms)
end

-- Return what stays the same while the client reads: its token, since when it has the office, and its last event.
local function lease()
  return string.format("%s %s", call("HGET", HEAD, "mender") or "", call("HGET", HEAD, "number") or "")
end

local STEPS = {}

function STEPS.begin(seen, force, lease_ms)
  local fence = fences.check(seen, now_ms)
  -- The call has reached an old primary, perhaps: the new one is the server to be reconciled.
  if fence.is_behind and force ~= "1" then return redis.error_reply(fence.problem) end
  if not fence.is_known then
    if fence.is_behind then fences.mark_lost(fence) end
    return { "EMPTY", fences.line(fence) }
  end
  if not fence.problem and force ~= "1" then return { "DONE", fences.line(fence) } end
  local name, since_ms = mender()
  -- The client reads everything before it writes again, which takes longer for a larger office.
  local patience_ms = tonumber(lease_ms) + math.floor(call("HLEN", KEYS[3]) / 4)
  if name and name ~= token and now_ms - tonumber(since_ms) < patience_ms then return { "BUSY" } end
  call("HSET", HEAD, "mender", token .. " " .. now_text())
  return read_snapshot({ "GO", int(fence.epoch), lease(), fence.here }, 1, "0")
end

function STEPS.read(known, server, part, cursor)
  if lease() ~= known or fences.check("", now_ms).here ~= server then return { "TAKEN" } end
  return read_snapshot({ "OK" }, tonumber(part), cursor)
end

function STEPS.write(number)
  if not is_mine(number) then return { "TAKEN" } end
  call("HSET", HEAD, "mender", token .. " " .. now_text())
  call("HDEL", HEAD, "write_id") -- the office is not what a server knows of it: see ledger.lua
  for index = 5, #ARGV, 4 do
    local name, key, one, other = ARGV[index], KEYS[tonumber(ARGV[index + 1])], ARGV[index + 2], ARGV[index + 3]
    if name == "HDEL" or name == "ZREM" then
      call(name, key, one)
    elseif name == "XADD" then
      call("XADD", key, one .. "-0", "e", other)
    else
      call(name, key, one, other)
    end
  end
  return { "OK" }
end

function STEPS.open(number, seen)
  if not is_mine(number) then return { "TAKEN" } end
  local fence = fences.check(seen, now_ms)
  fences.take_over(fence)
  call("HDEL", HEAD, "mender", "write_id") -- an operator may have changed keys by hand, in which nothing had to be repaired
  return { "OK", fences.line(fence) }
end

function STEPS.leave()
  if mender() == token then call("HDEL", HEAD, "mender") end
  return { "OK" }
end

return STEPS[ARGV[2]](ARGV[4], ARGV[5], ARGV[6], ARGV[7])
