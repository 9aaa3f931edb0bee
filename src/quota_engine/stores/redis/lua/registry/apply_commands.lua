-- apply_commands: applies commands to one shard of the registry, one after the other, at one time.
--
-- KEYS  see ledger.lua
-- ARGV  see shared/call.lua. Each line is a command: its name and its fields, separated by tabs.
--
-- reply a line for each: status, reference, number, lease_until_ms, now_ms, "1" if the move is done, "1" if it is a renewal,
--       secondary_reference.
--       If the fence is checked, one more line: see line() of shared/fence.lua
-- error ILLFORMED, FENCED, BEHIND: no command was applied
--
-- The loader defines SWEEP_MAX and RETENTION_MARGIN_MS.

local function next_number(now_ms)
  registry.now_ms = now_ms
  registry.number = registry.number + 1
  return registry.number
end

local function remember_until(forget_at_ms)
  if forget_at_ms > registry.last_ms then
    registry.last_ms = forget_at_ms
    registry.lasts_longer = true
  end
end

local function sweep(due, now_ms, drop)
  local keys = call("ZRANGEBYSCORE", due, "(0", int(now_ms), "LIMIT", 0, SWEEP_MAX)
  for _, key in ipairs(keys) do
    drop(key)
    registry.now_ms = now_ms
  end
end

local function drop_claim(applicant)
  call("HDEL", CLAIMS, applicant)
  call("ZREM", CLAIMS_DUE, applicant)
end

local function drop_move(source)
  call("HDEL", MOVES, source)
  call("ZREM", MOVES_DUE, source)
  call("ZREM", MOVES_OPEN, source)
end

-- fields: name, applicant, reference, lease_ms, forget_at_ms, replaces_number, secondary_reference
local function claim(fields, now_ms)
  local applicant, reference, lease_ms, replaces_number = fields[2], fields[3], tonumber(fields[4]), tonumber(fields[6])
  local known = live_claim(applicant, now_ms)
  local lease_until_ms = now_ms + lease_ms
  local forget_at_ms = math.max(tonumber(fields[5]), lease_until_ms)
  local renewed, secondary_reference = known and known.reference == reference, fields[7]
  if known then
    local is_lost = not renewed or (known.secondary_reference ~= "" and secondary_reference ~= "" and secondary_reference ~= known.secondary_reference)
    if is_lost and known.number ~= replaces_number then return result("TAKEN", known, now_ms) end
    if renewed then
      if secondary_reference == "" then secondary_reference = known.secondary_reference end
      lease_until_ms = math.max(lease_until_ms, known.lease_until_ms)
      forget_at_ms = math.max(forget_at_ms, known.forget_at_ms)
    end
  end

  if secondary_reference == reference then secondary_reference = "" end

  -- From here on it must succeed.
  local entry = { reference = reference, number = next_number(now_ms), lease_until_ms = lease_until_ms, secondary_reference = secondary_reference }
  local text = concat({ reference, int(entry.number), int(lease_until_ms), int(forget_at_ms), secondary_reference }, TAB)
  call("HSET", CLAIMS, applicant, text)
  if not known or known.forget_at_ms ~= forget_at_ms then call("ZADD", CLAIMS_DUE, int(forget_at_ms), applicant) end
  remember_until(forget_at_ms)
  return result("DONE", entry, now_ms, renewed)
end

-- fields: name, applicant, number, reference
local function drop(fields, now_ms)
  local known, reference = live_claim(fields[2], now_ms), fields[4]
  if not known then return result("DONE", nil, now_ms) end
  local is_unused = known.reference == reference and known.secondary_reference == "" and known.lease_until_ms <= now_ms
  local may_drop = known.number == tonumber(fields[3])
  if reference ~= "" then may_drop = is_unused end
  if not may_drop then return result("TAKEN", known, now_ms) end

  -- From here on it must succeed.
  next_number(now_ms)
  drop_claim(fields[2])
  return result("DONE", nil, now_ms)
end

-- fields: name, source, target, version, lease_ms, forget_at_ms
local function open_move(fields, now_ms)
  local source, target, version, lease_ms = fields[2], fields[3], tonumber(fields[4]), tonumber(fields[5])
  local known = live_move(source, now_ms)
  local lease_until_ms = now_ms + lease_ms
  local forget_at_ms = math.max(tonumber(fields[6]), lease_until_ms)
  if known then
    -- A completed move conflicts, too: the new caller prepared its move from an older state of the source.
    if known.reference ~= target then return result("TAKEN", known, now_ms) end
    if known.done then return result("DONE", known, now_ms, true) end
    lease_until_ms = math.max(lease_until_ms, known.lease_until_ms)
    forget_at_ms = math.max(forget_at_ms, known.forget_at_ms)
  end

  -- From here on it must succeed.
  local entry = {
    source = source, reference = target, version = version, number = next_number(now_ms), lease_until_ms = lease_until_ms,
    forget_at_ms = forget_at_ms, done = false,
  }
  call("HSET", MOVES, source, text_of_move(entry))
  call("ZADD", MOVES_DUE, int(forget_at_ms), source)
  call("ZADD", MOVES_OPEN, int(lease_until_ms), source)
  remember_until(forget_at_ms)
  return result("DONE", entry, now_ms, known ~= nil)
end

-- fields: name, source, target, "1" if it is done, number
local function close_move(fields, now_ms)
  local source, target, done, number = fields[2], fields[3], fields[4] == "1", tonumber(fields[5])
  local known = live_move(source, now_ms)
  if not known then return result("DONE", nil, now_ms) end
  if known.reference ~= target or (number > 0 and number ~= known.number) then return result("TAKEN", known, now_ms) end
  -- A completed move stays completed: a late cancellation belongs to an earlier attempt.
  if known.done then return result(done and "DONE" or "TAKEN", known, now_ms) end

  -- From here on it must succeed.
  local new_number = next_number(now_ms)
  if not done then
    drop_move(source)
    return result("DONE", nil, now_ms)
  end
  known.number, known.done = new_number, true
  call("HSET", MOVES, source, text_of_move(known))
  call("ZREM", MOVES_OPEN, source)
  return result("DONE", known, now_ms)
end

local HANDLERS = { claim = claim, drop = drop, open_move = open_move, close_move = close_move }

-- The form of each command. All lines are checked before the first command is applied.
local NAME, NUMBER = "[%w_%-]+", "%d%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?"
local REFERENCE, MAYBE_REFERENCE = NAME .. "~" .. NAME, "[%w_%-]*~?[%w_%-]*"
local FORMS = {
  claim = concat({ NAME, REFERENCE, NUMBER, NUMBER, NUMBER, MAYBE_REFERENCE }, TAB),
  drop = concat({ NAME, NUMBER, MAYBE_REFERENCE }, TAB),
  open_move = concat({ REFERENCE, REFERENCE, NUMBER, NUMBER, NUMBER }, TAB),
  close_move = concat({ REFERENCE, REFERENCE, "[01]", NUMBER }, TAB),
}

local function parse(line)
  local form = FORMS[string.match(line, "^[%l_]+") or ""]
  if not form or not string.match(line, "^[%l_]+\t" .. form .. "$") then return nil end
  return split(line, TAB)
end

-- Write the head back. The keys expire some time after the last entry.
local function write_back(number_before, now_before_ms)
  if registry.number == number_before and registry.now_ms == now_before_ms then return end
  call("HSET", HEAD, "now_ms", int(registry.now_ms), "number", int(registry.number), "last_ms", int(registry.last_ms))
  if registry.is_new then
    call("HSET", CLAIMS, "~", "")
    call("HSET", MOVES, "~", "")
    for _, key in ipairs({ CLAIMS_DUE, MOVES_DUE, MOVES_OPEN }) do call("ZADD", key, 0, "~") end
  end
  if registry.lasts_longer then
    local ttl_ms = registry.last_ms - registry.now_ms + RETENTION_MARGIN_MS
    call("HSET", HEAD, "ends_at_ms", int(registry.now_ms + ttl_ms))
    for _, key in ipairs(KEYS) do call("PEXPIRE", key, int(ttl_ms)) end
  end
end

load_head()
local now_ms, touches, checks_fence, seen = call_time()
local fences, fence
if checks_fence == "@" then
  fences = load_fence()
  fence = fences.check(seen, now_ms)
  if fence.problem then return redis.error_reply(fence.problem) end
end
check_leap(now_ms, registry.now_ms)
local commands, error_reply = parse_commands(parse)
if not commands then return error_reply end
local number_before, now_before_ms = registry.number, registry.now_ms
now_ms = math.max(now_ms, registry.now_ms)
local lines = {}
for index, fields in ipairs(commands) do
  sweep(CLAIMS_DUE, now_ms, drop_claim)
  sweep(MOVES_DUE, now_ms, drop_move)
  lines[index] = HANDLERS[fields[1]](fields, now_ms)
end
write_back(number_before, now_before_ms)
if touches == "+" and not registry.is_new then call("HSET", HEAD, "~", "") end
if fence then
  local may_be_new = registry.is_new or not fence.server
  lines[#lines + 1] = may_be_new and fences.write(fence) or fences.line(fence)
end
return lines
