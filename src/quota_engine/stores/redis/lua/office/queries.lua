-- queries: reads one office's ledger without changing it. Mirrors domain/queries.py: effects of time count, whether or not a
-- command has settled them.
--
-- KEYS  see ledger.lua
-- ARGV  see shared/call.lua. Each line is a question: its name and its fields, separated by tabs.
--         lookup id
--         wait_list_position id
--         abandoned_holds
--         view day
--         list_day day cursor
--         hold_remaining_histogram day member bounds_ms (separated by commas)
--         all_names names_max                      of a client's sold-out cache, as are the next two: see sold_out_cache.py
--         events_since number events_max
--         sold_out day units join_wait_list choice
-- reply a line for each, "" for what is not known:
--         lookup               the reservation as apply_commands.lua writes it
--         wait_list_position   how many joined the day's wait list earlier and still wait, and how many wait in all
--         abandoned_holds      holds released, holds expired, and blocks that followed
--         view                 opens_at_ms, starts_at_ms, ends_at_ms, closed, waiting, revision, sessions; then for each quota its
--                              name, capacity, free, held, confirmed, cooling, parked, withheld
--         other questions      see their functions
--       If the fence is checked, one more line: see line() of shared/fence.lua
-- error FENCED, BEHIND: see shared/fence.lua

local clock_ms -- the time of the clock, which decides what is forgotten; now_ms is not before the last event

local function lookup(id, now_ms)
  if not string.match(id, "^[%w_%-]+$") then return "" end
  local record = record_of(id)
  if not record or day_of(record.day).forget_at_ms <= clock_ms then return "" end
  if record.state == "HELD" and record.deadline_at_ms <= now_ms then record = changed(record, { state = "EXPIRED" }) end
  return concat({ record.id, choice_of(record.choice).text, text_of_record(record) }, TAB)
end

-- Return the reservation's place on its day's wait list, or "" if it does not wait.
local function wait_list_position(id, now_ms)
  if not string.match(id, "^[%w_%-]+$") then return "" end
  local record = record_of(id)
  if not record or record.state ~= "WAITING" then return "" end
  local day = day_of(record.day)
  if day.forget_at_ms <= clock_ms or is_session_over(day, choice_of(record.choice), now_ms) then return "" end
  local joined = tonumber(call("ZSCORE", WAITING, id))
  local ahead = call("ZCOUNT", WAITING, int(record.day * EVENT_NUMBERS), int(joined - 1))
  return concat({ int(ahead), int(day.waiting) }, TAB)
end

local LIST_STEP = 500

-- Return one page of a day's reservations, and the cursor of the next page: "0" after the last.
local function list_day(number, cursor, now_ms)
  local scanned = call("HSCAN", RECORDS, cursor, "COUNT", LIST_STEP)
  local lines = { scanned[1] }
  for index = 1, #scanned[2], 2 do
    local id = scanned[2][index]
    if id ~= "~" and record_without_quotas(id, scanned[2][index + 1]).day == number then
      local line = lookup(id, now_ms)
      if line ~= "" then lines[#lines + 1] = line end
    end
  end
  return concat(lines, NEWLINE)
end

-- Apply the effects of time to the day's counters, which are not written back. Does what settling does, without events.
local function project(day, now_ms)
  for _, quotas in ipairs(held_quota_sets(day)) do
    local members, prefix_length = due_holds(day, quotas, padded(now_ms + 1))
    for _, member in ipairs(members) do
      local id = string.sub(member, prefix_length + 17)
      local record = record_of_text(id, record_text(id))
      local expired = changed(record, {})
      for _, name in ipairs(names(quotas)) do
        local quota = day.quotas[name]
        quota.held = quota.held - record.units
        local free, cooling, parked, due_at_ms = split_returned_units(quota, record.units, expired, record.deadline_at_ms)
        if cooling > parked and due_at_ms <= now_ms then free, cooling = free + cooling, 0 end
        add_free(quota, free, now_ms)
        quota.cooling, quota.parked = quota.cooling + cooling, quota.parked + parked
      end
    end
  end
  for _, quota in ipairs(quotas_of(day)) do
    local prefix = int(day.number) .. SLASH .. quota.name .. SLASH
    for _, member in ipairs(call("ZRANGEBYLEX", COOLING, "[" .. prefix, "(" .. prefix .. padded(now_ms + 1))) do
      local units = tonumber(string.match(member, "^%d+/(%d+)/", #prefix + 1))
      quota.cooling = quota.cooling - units
      add_free(quota, units, now_ms)
    end
  end
  for _, quota in ipairs(quotas_of(day)) do
    if quota.reallocate_to ~= "" and quota.reallocate_at_ms <= now_ms and quota.free > 0 then
      local target, units = day.quotas[quota.reallocate_to], quota.free
      quota.free, quota.capacity = quota.free - units, quota.capacity - units
      target.capacity = target.capacity + units
      add_free(target, units, now_ms)
    end
  end
end

local HOLDS_STEP = 1000

-- Count a page of a day's holds by their remaining time, between rising bounds. The page begins behind the member `seen`.
-- Returns the page's last member, or "" after the last page, then the counts.
local function hold_remaining_histogram(number, seen, bounds, now_ms)
  local counts = {}
  for index = 1, #bounds + 1 do counts[index] = 0 end
  local text = call("HGET", DAYS, int(number))
  local day = text and day_of_text(number, text)
  if not day or day.forget_at_ms <= clock_ms then return TAB .. concat(counts, COMMA) end
  local first = seen == "" and "[" .. int(number) .. SLASH or "(" .. seen
  local members = call("ZRANGEBYLEX", DUE, first, "(" .. int(number) .. "0", "LIMIT", 0, HOLDS_STEP)
  for _, member in ipairs(members) do
    local bounds_ms = tonumber(string.match(member, "^%d+/[^/]*/(%d+)/")) - now_ms
    if bounds_ms > 0 then
      local index = 1
      while bounds[index] and tonumber(bounds[index]) < bounds_ms do index = index + 1 end
      counts[index] = counts[index] + 1
    end
  end
  return (#members == HOLDS_STEP and members[#members] or "") .. TAB .. concat(counts, COMMA)
end

local projected = {}

-- Return the day with the effects of time, or nil if it is not known. Computed once for each call.
local function projected_day(number, now_ms)
  if projected[number] == nil then
    local text = call("HGET", DAYS, int(number))
    local day = text and day_of_text(number, text)
    if day and clock_ms < day.forget_at_ms then
      if now_ms >= day.next_due_ms then project(day, now_ms) end
      projected[number] = day
    else
      projected[number] = false
    end
  end
  return projected[number] or nil
end

-- Return the units that the wait list withholds, by quota. Without a quota in strict order there are none.
local function withheld_of(day, now_ms)
  if day.waiting > 0 then
    for _, quota in ipairs(quotas_of(day)) do
      if quota.blocks_ms > 0 then return wait_list().withheld_units(day, now_ms) or {} end
    end
  end
  return {}
end

local function view(number, now_ms)
  local day = projected_day(number, now_ms)
  if not day then return "" end
  local withheld = withheld_of(day, now_ms)
  local parts = {
    int(day.opens_at_ms), int(day.starts_at_ms), int(day.ends_at_ms), day.closed and "1" or "0", int(day.waiting),
    int(day.revision), day.sessions,
  }
  for _, quota in ipairs(quotas_of(day)) do
    parts[#parts + 1] = concat({
      quota.name, int(quota.capacity), int(quota.free), int(quota.held), int(quota.confirmed), int(quota.cooling),
      int(quota.parked), int(math.min(math.max(quota.free, 0), withheld[quota.name] or 0)),
    }, COMMA)
  end
  return concat(parts, TAB)
end

-- Return every id and applicant for whom a reserve may have another answer than SOLD_OUT, because of a record, a claim or a
-- penalty. Before them come two rows: number and time of the last event, and that event, if it is not trimmed. Returns "" if
-- there are more than names_max.
local function all_names(names_max)
  if call("HLEN", RECORDS) + call("HLEN", CLAIMS) + call("HLEN", PENALTIES) > names_max then return "" end
  local last = call("XRANGE", EVENTS, int(ledger.number) .. "-0", int(ledger.number) .. "-0")[1]
  return concat({
    int(ledger.number) .. TAB .. int(ledger.now_ms), last and last[2][2] or "", concat(call("HKEYS", RECORDS), TAB),
    concat(call("HKEYS", CLAIMS), TAB), concat(call("HKEYS", PENALTIES), TAB),
  }, NEWLINE)
end

-- Return the events from this number on, at most events_max: a row with number and time of the last event, then a row with
-- number and text for each. The first of them shows whether the history is still the same, as it is not after some failovers.
local function events_since(number, events_max)
  local rows = { int(ledger.number) .. TAB .. int(ledger.now_ms) }
  for _, entry in ipairs(call("XRANGE", EVENTS, int(number) .. "-0", "+", "COUNT", events_max)) do
    rows[#rows + 1] = string.match(entry[1], "^%d+") .. TAB .. entry[2][2]
  end
  return concat(rows, NEWLINE)
end

-- Return "1" if an unknown applicant's reserve would be SOLD_OUT now: steps 2, 3, 7 and 8 of a reserve in docs/rules.md.
local function is_sold_out(number, units, join_wait_list, choice, now_ms)
  local day = projected_day(number, now_ms)
  if not day or day.closed or now_ms < day.opens_at_ms or now_ms >= day.ends_at_ms or is_session_over(day, choice, now_ms)
      or units > ledger.rules.party_max then
    return "0"
  end
  for _, option in ipairs(choice.options) do
    for _, name in ipairs(option.quotas) do
      if not day.quotas[name] then return "0" end
    end
  end
  local withheld = withheld_of(day, now_ms)
  choice = complete_choice(day, choice)
  for _, option in ipairs(choice.options) do
    local is_fitting = true
    for _, name in ipairs(option.quotas) do
      is_fitting = is_fitting and day.quotas[name].free - (withheld[name] or 0) >= units
    end
    if is_fitting then return "0" end
  end
  if join_wait_list == "1" and served_by_wait_list(day, choice) then return "0" end
  return "1"
end

local ANSWERS = {
  lookup = function(fields, now_ms) return lookup(fields[2], now_ms) end,
  wait_list_position = function(fields, now_ms) return wait_list_position(fields[2], now_ms) end,
  abandoned_holds = abandoned_counts,
  view = function(fields, now_ms) return view(tonumber(fields[2]), now_ms) end,
  list_day = function(fields, now_ms) return list_day(tonumber(fields[2]), fields[3], now_ms) end,
  hold_remaining_histogram = function(fields, now_ms)
    return hold_remaining_histogram(tonumber(fields[2]), fields[3], fields[4] == "" and {} or split(fields[4], COMMA), now_ms)
  end,
  all_names = function(fields) return all_names(tonumber(fields[2])) end,
  events_since = function(fields) return events_since(tonumber(fields[2]), tonumber(fields[3])) end,
  sold_out = function(fields, now_ms)
    local choice = choice_of_text(concat(fields, TAB, 5))
    return is_sold_out(tonumber(fields[2]), tonumber(fields[3]), fields[4], choice, now_ms)
  end,
}

begin_call()
begin_commands()
ledger.is_read_only = true
local now_ms, _, checks_fence, seen = call_time()
local fences, fence
if checks_fence == "@" then
  fences = load_fence()
  fence = fences.check(seen, now_ms)
  if fence.problem then return redis.error_reply(fence.problem) end
end
check_leap(now_ms, ledger.now_ms, ledger.next_forget_ms)
clock_ms, now_ms = now_ms, math.max(now_ms, ledger.now_ms)
local lines = {}
for index = 2, #ARGV do
  local fields = split(ARGV[index], TAB)
  local answer = ANSWERS[fields[1]]
  lines[index - 1] = answer and answer(fields, now_ms) or ""
end
if fence then lines[#lines + 1] = fences.line(fence) end
return lines
