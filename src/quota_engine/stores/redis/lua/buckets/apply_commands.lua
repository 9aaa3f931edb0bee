-- apply_commands: takes tokens and resets buckets, in a ledger that has only buckets. The same file also serves the script
-- without writes, which gets only "peek".
--
-- KEYS  see token_bucket.lua
-- ARGV  see shared/call.lua. Each line is a command: its name, a tab, and its charges or bucket names.
-- reply a line for each. Of take: the index of the first charge that was refused or -1, and the time to retry at.
--       Of takelevels: the same, a tab, and the reply of peek after the step.
--       Of reset: how many buckets were not full. Of peek: for each bucket its whole tokens and when it is full (0: now).
--       If the fence is checked, one more line: see line() of shared/fence.lua
-- error ILLFORMED, FENCED, BEHIND: no command was applied
--
-- The loader defines RETENTION_MARGIN_MS, and the constants of token_bucket.lua.

-- Fill these buckets. Returns how many were not full.
local function reset(bucket_names, now_ms)
  local count = 0
  for _, name in ipairs(bucket_names) do
    local was_full = true
    for number = -1, WINDOW_UNITS_MAX - 1 do -- the bucket itself, and the places of a sliding window
      local part = number < 0 and name or name .. "." .. int(number)
      if tonumber(redis.call("ZSCORE", GATE, part) or "0") > now_ms then
        redis.call("ZREM", GATE, part)
        redis.call("HDEL", TICKS, part)
        was_full = false
      end
    end
    if not was_full then count = count + 1 end
  end
  return count
end

local function level_of(charge, now_ms)
  if charge.is_window then
    find_places(charge, now_ms)
    return int(#charge.free_places) .. ":" .. int(charge.free_at_ms or 0)
  end
  charge.full_at_ms, charge.early = bucket_of(charge, now_ms)
  if not charge.full_at_ms then return int(charge.burst) .. ":0" end
  local capacity = charge.burst * charge.per_ms
  -- Another limit may have computed a time that is later than an empty bucket of this limit would need.
  local ahead_ms = math.min(charge.full_at_ms - now_ms, math.floor((capacity + charge.amount - 1) / charge.amount))
  local lacking = ahead_ms * charge.amount - charge.early
  return int(math.floor(math.max(0, capacity - lacking) / charge.per_ms)) .. ":" .. int(charge.full_at_ms)
end

local function levels_of(charges, now_ms)
  local levels = {}
  for index, charge in ipairs(charges) do levels[index] = level_of(charge, now_ms) end
  return concat(levels, COMMA)
end

local function line_of_take(charges, now_ms)
  local refused_by, retry_at_ms = take(charges, now_ms)
  return (refused_by < 0 and "-1" or int(refused_by)) .. TAB .. int(retry_at_ms)
end

local HANDLERS = {
  take = line_of_take,
  takelevels = function(charges, now_ms)
    local line = line_of_take(charges, now_ms)
    return line .. TAB .. levels_of(charges, now_ms)
  end,
  peek = levels_of,
  reset = function(bucket_names, now_ms)
    return int(reset(bucket_names, now_ms))
  end,
}

local function parse(line)
  local name, text = string.match(line, "^(%l+)\t([%w_%-][%w_%-:,]*)$")
  if not name or not HANDLERS[name] then return nil end
  local target = name == "reset" and names(text) or charges_of_text(text)
  return target and { name = name, target = target }
end

begin_gate()
local now_ms, touches, checks_fence, seen = call_time()
local fences, fence
if checks_fence == "@" then
  fences = load_fence()
  fence = fences.check(seen, now_ms)
  if fence.problem then return redis.error_reply(fence.problem) end
end
check_leap(now_ms, gate_time(0))
local commands, error_reply = parse_commands(parse)
if not commands then return error_reply end
local lines = {}
for index, command in ipairs(commands) do
  lines[index] = HANDLERS[command.name](command.target, gate_time(now_ms))
end
gate_write_back()
if gate.last_ms then
  -- The keys expire some time after the last bucket is full. The TTL is renewed rarely instead of with every call.
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
if fence then lines[#lines + 1] = gate.changed and fences.write(fence) or fences.line(fence) end
return lines
