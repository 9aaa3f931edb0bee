-- take: the way in to a place that has buckets and nothing else. One file, two scripts: one takes and resets, the other only looks.
--
-- ARGV  1 now_ms, or "" for the server's own time, and "+" behind it to leave a small write in any case; 2 ... a command each: its
--       name, and the charges or names it is about, set apart by a tab
-- reply a line for each: of take, the index of the first charge that was too much or -1, and when to come again; of reset, how many
--       were not full; of peek, the whole tokens in each bucket and when it is full (0: it is)

local RETENTION_MARGIN_MS = 86400000

-- Make these buckets full; how many were not.
local function reset(wanted, now_ms)
  local count = 0
  for _, name in ipairs(wanted) do
    if tonumber(redis.call("ZSCORE", GATE, name) or "0") > now_ms then
      redis.call("ZREM", GATE, name)
      redis.call("HDEL", TICKS, name)
      count = count + 1
    end
  end
  return count
end

local function level_of(charge, now_ms)
  charge.full_at_ms, charge.early = bucket_of(charge, now_ms)
  if not charge.full_at_ms then return int(charge.burst) .. ":0" end
  local capacity = charge.burst * charge.per_ms
  -- A moment worked out by another limit may be later than an empty bucket of this one is full.
  local ahead_ms = math.min(charge.full_at_ms - now_ms, math.floor((capacity + charge.amount - 1) / charge.amount))
  local lacking = ahead_ms * charge.amount - charge.early
  return int(math.floor(math.max(0, capacity - lacking) / charge.per_ms)) .. ":" .. int(charge.full_at_ms)
end

local COMMANDS = {
  take = function(charges, now_ms)
    local refused_by, retry_at_ms = take(charges, now_ms)
    return (refused_by < 0 and "-1" or int(refused_by)) .. TAB .. int(retry_at_ms)
  end,
  peek = function(charges, now_ms)
    local levels = {}
    for index, charge in ipairs(charges) do levels[index] = level_of(charge, now_ms) end
    return concat(levels, COMMA)
  end,
  reset = function(wanted, now_ms)
    return int(reset(wanted, now_ms))
  end,
}

local function parse(line)
  local name, text = string.match(line, "^(%l+)\t([%w_%-][%w_%-:,]*)$")
  if not name or not COMMANDS[name] then return nil end
  local about = name == "reset" and names(text) or charges_of_text(text)
  return about and { name = name, about = about }
end

local given_ms, touches = string.match(ARGV[1], "^(%d*)(%+?)$")
local now_ms = tonumber(given_ms)
if not now_ms then
  local time = redis.call("TIME")
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
end
local commands = {}
for index = 2, #ARGV do
  commands[index - 1] = parse(ARGV[index])
  if not commands[index - 1] then return redis.error_reply("ILLFORMED command " .. (index - 1) .. " of the call: none was carried out") end
end
local lines = {}
for index, command in ipairs(commands) do
  lines[index] = COMMANDS[command.name](command.about, gate_time(now_ms))
end
gate_write_back()
if gate.last_ms then
  -- The keys end some time after the last bucket is full; this is put off seldom, not with every call.
  local ends_at_ms = tonumber(redis.call("HGET", TICKS, "~ends") or "0")
  if gate.last_ms + RETENTION_MARGIN_MS / 2 > ends_at_ms then
    ends_at_ms = gate.last_ms + RETENTION_MARGIN_MS
    redis.call("HSET", TICKS, "~ends", int(ends_at_ms))
    for _, key in ipairs(KEYS) do redis.call("PEXPIRE", key, int(ends_at_ms - gate.now_ms)) end
  end
end
if touches == "+" and not gate.changed and redis.call("HEXISTS", TICKS, "~") == 1 then
  redis.call("HSET", TICKS, "~touched", "")
end
return lines
