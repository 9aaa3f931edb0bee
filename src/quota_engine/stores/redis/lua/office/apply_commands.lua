-- apply_commands: applies commands to one office's ledger, one after the other, at one time. run_commands.lua, which follows, runs a call.
--
-- KEYS  see ledger.lua
-- ARGV  see shared/call.lua. Each line is a command: its name and its fields, separated by tabs.
-- reply a line for each command: status, flags, retry_at_ms, units, overbooked, separated by tabs. Two numbers may follow
--       on the flags, behind a comma each: abandoned_holds_left and blocked_until_ms. Or one number: the revision of the day.
--       Behind the flag of a hold, "e" and how often it may still be extended, if the office extends holds.
--       Then the reservation if there is one: its id, its choice, its fields. Of a new hold only "NEW", created_at_ms, deadline_at_ms and the option's
--       index from 0; then how often it may be extended, and those two numbers, if there are any. If the fence is checked, one more line: see line_of_fence()
--       of shared/fence.lua
-- error ILLFORMED, FENCED, BEHIND: no command was applied
--
-- The loader defines PURGE_MAX and RETENTION_MARGIN_MS.

local parse_call, hold_first -- of new_holds.lua, which the loader makes load_new_holds()

local function known_days()
  local rows, days = call("HGETALL", DAYS), {}
  for index = 1, #rows, 2 do
    local number = tonumber(rows[index])
    if number then days[#days + 1] = day_of(number) end
  end
  return days
end

-- Forget the days whose retention is over by the clock, and start a purge of their records. The time of the last event
-- does not count: it may be wrong.
local function forget(clock_ms, now_ms)
  local forgotten = {}
  for _, day in ipairs(known_days()) do
    if day.forget_at_ms <= clock_ms then forgotten[#forgotten + 1] = day.number end
  end
  sort(forgotten, function(one, other) return one < other end)
  for _, number in ipairs(forgotten) do
    append(now_ms, concat({ "day_forgotten", int(now_ms), int(number) }, TAB))
    call("HDEL", DAYS, int(number), "t" .. int(number))
    ledger.days[number] = false
    ledger.forgotten_day_max = math.max(forgotten_day_max(), number)
    -- Its cooling units never become free. ("0" is the character after "/".)
    local cooling = call("ZRANGEBYLEX", COOLING, "[" .. int(number) .. SLASH, "(" .. int(number) .. "0")
    for _, member in ipairs(cooling) do call("ZREM", COOLING, member) end
    ledger.cursor = "0"
  end
  ledger.renewed = true
end

-- Delete some more records of forgotten days. No answer depends on it. After a restart the cursor means nothing to the
-- server; records that the purge missed stay until the next day is forgotten, or the keys expire.
local function purge()
  flush()
  local scanned = call("HSCAN", RECORDS, ledger.cursor, "COUNT", PURGE_MAX)
  for index = 1, #scanned[2], 2 do
    local id, text = scanned[2][index], scanned[2][index + 1]
    if id ~= "~" then
      local record = record_of_text(id, text)
      if not day_of(record.day) then
        write_record(id, false)
        purge_record(record)
      end
    end
  end
  ledger.cursor = scanned[1] ~= "0" and scanned[1] or ""
  if ledger.cursor == "" then
    local first_day = NEVER_MS
    for _, day in ipairs(known_days()) do first_day = math.min(first_day, day.number) end
    retire_choices(first_day)
  end
end

-- Return when the next day is forgotten, and when the last one is.
local function next_forget_ms()
  local next_ms, last_ms = NEVER_MS, 0
  for _, day in ipairs(known_days()) do
    next_ms, last_ms = math.min(next_ms, day.forget_at_ms), math.max(last_ms, day.forget_at_ms)
  end
  return next_ms, last_ms
end

-- Return how long the keys outlive the last day: at least as long as the longest block or window.
local function retention_ms()
  local rules = ledger.rules
  return RETENTION_MARGIN_MS
    + math.max(rules.no_show_block_ms, rules.cancellations_block_ms, rules.cancellations_window_ms,
      rules.abandoned_holds_window_ms + rules.abandoned_holds_block_ms)
end

local EVENTS_KEPT_MAX = 8 -- of a call whose tables the next one uses again

-- Write back what has changed, and renew the keys' TTL if the days have changed.
local function write_back(number_before, cursor_before, now_ms)
  flush()
  for number, day in next, ledger.days do
    if day then write_day(day) else drop_day(number) end
  end
  local last_ms
  if ledger.renewed then ledger.next_forget_ms, last_ms = next_forget_ms() end
  if ledger.number ~= number_before or ledger.cursor ~= cursor_before then
    if not ledger.renewed and not ledger.abandoned and ledger.cursor == cursor_before then
      call("HSET", HEAD, "now_ms", ledger.now_ms, "number", ledger.number, "write_id", new_write_id())
    else
      call("HSET", HEAD, "now_ms", ledger.now_ms, "number", ledger.number, "write_id", new_write_id(), "forgotten_day_max", forgotten_day_max(),
        "next_forget_ms", ledger.next_forget_ms, "cursor", ledger.cursor, "abandoned", abandoned_counts())
    end
  elseif ledger.is_day_written then
    call("HSET", HEAD, "write_id", new_write_id())
  end
  if number_before == 0 and ledger.number > 0 then
    for _, key in ipairs({ HEAD, DAYS, PENALTIES, CHOICES, KEYS[13] }) do call("HSETNX", key, "~", "") end
    for _, key in ipairs({ RECORDS, CLAIMS }) do call("HSETNX", key, "~", LONG_VALUE) end
    for _, key in ipairs({ COOLING, UPDATED, WAITING, KEYS[12] }) do call("ZADD", key, 0, "~") end
    call("ZADD", DUE, 0, LONG_VALUE)
  end
  if last_ms then
    local ttl_ms = math.max(0, last_ms - now_ms) + retention_ms()
    call("HSET", HEAD, "ends_at_ms", int(now_ms + ttl_ms))
    for _, key in ipairs(KEYS) do call("PEXPIRE", key, int(ttl_ms)) end
  end
  if IS_KEPT and ledger.number > 0 and ledger.cursor == "" and next(office.days) then
    office.now_ms, office.number, office.rules, office.next_forget_ms, office.cursor, office.has_penalties =
      ledger.now_ms, ledger.number, ledger.rules, ledger.next_forget_ms, ledger.cursor, ledger.has_penalties
    offices[HEAD] = office
  end
  -- A table that had many values is searched slowly when it is empty, so the next call makes new ones.
  are_written = ledger.number - number_before <= EVENTS_KEPT_MAX
end

local function line_of(result)
  if type(result) == "string" then return result end
  local flags, extensions_max = result.flags or "", ledger.rules.extensions_max
  if extensions_max > 0 and result.status == "HELD" then
    flags = flags .. "e" .. int(math.max(0, extensions_max - result.record.extensions))
  end
  local parts = {
    result.status, flags .. (result.announced or result.revision and COMMA .. int(result.revision) or ""), int(result.retry_at_ms or 0), int(result.units or 0), int(result.overbooked or 0),
  }
  if result.record then
    parts[6], parts[7], parts[8] = result.record.id, choice_of(result.record.choice).text, text_of_record(result.record)
  end
  return concat(parts, TAB)
end
