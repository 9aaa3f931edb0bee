-- reconcile: looks through an office's ledger after another server has taken over, puts right what is wrong, and opens it again. The
-- decisions are made by the client (domain/reconcile.py), who reads everything, and writes while nobody else does.
--
-- KEYS  those of commands
-- ARGV  1 now_ms, or "" for the server's own time; 2 what to do; 3 the client's token; 4 ... its arguments:
--         begin seen force lease_ms   force "1": even if the office is open. Reply "EMPTY", there is no ledger; "DONE", epoch, server:
--                                it is open; "BUSY", another client is at it; or "GO", epoch, and then what 7_state.lua replies and
--                                the members of due, and of waiting with their scores: from now on it is closed to all who mind
--                                the fence
--         write number ...       four words each: HSET key field text, HDEL key field "", ZADD key score member, ZREM key member "",
--                                XADD key number event; key is its number. Reply "OK"
--         open number epoch      open the office to all who know it at this epoch or a lower one. Reply "OK", the new epoch, server
--         leave                  leave the office as it is, and to others. Reply "OK"
--       write and open reply "TAKEN" and do nothing if the token is no longer the office's, or number not that of its last event.

local HEAD = KEYS[1]
local call = redis.call

local now_ms = tonumber(string.match(ARGV[1], "^%d+"))
if not now_ms then
  local time = call("TIME")
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
end
local token = ARGV[3]

local function all(key)
  return call("HGETALL", key)
end

local function members(key)
  return call("ZRANGE", key, 0, -1)
end

-- Who is at it, and since when.
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

local DO = {}

function DO.begin(seen, force, lease_ms)
  local problem, epoch, server = fence(HEAD, seen)
  if not call("HGET", HEAD, "number") then return { "EMPTY" } end
  if not problem and force ~= "1" then return { "DONE", epoch, server } end
  local name, since_ms = mender()
  -- It reads everything before it gives the next sign, and needs the longer the more there is.
  local patience_ms = tonumber(lease_ms) + math.floor(call("HLEN", KEYS[3]) / 4)
  if name and name ~= token and now_ms - tonumber(since_ms) < patience_ms then return { "BUSY" } end
  call("HSET", HEAD, "mender", token .. " " .. now_text())
  return {
    "GO", epoch, all(KEYS[1]), all(KEYS[2]), all(KEYS[3]), all(KEYS[4]), all(KEYS[5]), members(KEYS[7]), members(KEYS[8]),
    members(KEYS[11]), all(KEYS[10]), call("XRANGE", KEYS[9], "-", "+"), members(KEYS[6]),
    call("ZRANGE", KEYS[8], 0, -1, "WITHSCORES"),
  }
end

function DO.write(number)
  if not is_mine(number) then return { "TAKEN" } end
  call("HSET", HEAD, "mender", token .. " " .. now_text())
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

function DO.open(number, epoch)
  if not is_mine(number) then return { "TAKEN" } end
  local before, server = tonumber(call("HGET", HEAD, "epoch") or "0"), this_server()
  local after = math.max(before, tonumber(epoch)) + 1
  call("HSET", HEAD, "server", server, "epoch", string.format("%.0f", after))
  call("HDEL", HEAD, "mender")
  return { "OK", after, server }
end

function DO.leave()
  if mender() == token then call("HDEL", HEAD, "mender") end
  return { "OK" }
end

return DO[ARGV[2]](ARGV[4], ARGV[5], ARGV[6])
