-- wait_list: offers free units to the parties that wait, and withholds units from others. Mirrors domain/offers.py and
-- domain/wait_list.py. Body of load_wait_list(), so that the functions are created only when a party waits or waited.
--
-- The key `due` has two members for wait lists beside its holds. Each waiting party has one of them:
--   "w" .. day / demand / number / id          the queue of its demand
--   "p" .. day / until / demand / number / id  paused until then, because it has declined an offer
-- A demand is the index of a choice, a colon, and a number of applicants.
--
-- The loader defines DEMANDS_MAX, OFFERS_MAX and RESUME_MAX.

local EVERYTHING = 2 ^ 52

-- Return the member of a waiting record in the queue of its demand.
local function queue_member(record)
  return concat({ "w" .. int(record.day), record.choice .. ":" .. int(record.units), padded(record.wait_list_number), record.id }, SLASH)
end

-- Return the member of a waiting record among the paused ones.
local function paused_member(record)
  return concat({
    "p" .. int(record.day), padded(record.paused_until_ms), record.choice .. ":" .. int(record.units),
    padded(record.wait_list_number), record.id,
  }, SLASH)
end

local function join(record)
  call("ZADD", WAITING, record.day * EVENT_NUMBERS + record.wait_list_number, record.id)
  due_changes[record.paused_until_ms > 0 and paused_member(record) or queue_member(record)] = true
end

local function leave(record)
  call("ZREM", WAITING, record.id)
  due_changes[queue_member(record)] = false
  if record.paused_until_ms > 0 then due_changes[paused_member(record)] = false end
end

local function is_served(day, now_ms)
  return not day.closed and now_ms >= day.opens_at_ms and now_ms < day.ends_at_ms
end

-- Return until when a party may block the quota's free units; 0 if the order is first fit.
local function blocked_until_ms(quota)
  return quota.blocks_ms > 0 and quota.free_since_ms + quota.blocks_ms or 0
end

-- Return the first option with enough units that are not withheld, or nil.
local function first_fitting(day, choice, units, withheld)
  for _, option in ipairs(choice.options) do
    local is_fitting = true
    for _, name in ipairs(option.quotas) do
      is_fitting = is_fitting and day.quotas[name].free - (withheld[name] or 0) >= units
    end
    if is_fitting then return option end
  end
  return nil
end

-- Withhold units for a party that does not fit. Only the first such party of a quota blocks it.
local function withhold(day, choice, units, withheld, now_ms)
  for _, option in ipairs(choice.options) do
    for _, name in ipairs(option.quotas) do
      if not withheld[name] and now_ms < blocked_until_ms(day.quotas[name]) then withheld[name] = units end
    end
  end
end

-- Return true if a party with this demand neither fits nor blocks a quota, so that it need not be read.
local function is_idle(day, choice, units, now_ms)
  if not served_by_wait_list(day, choice) or is_session_over(day, choice, now_ms) then return true end
  if first_fitting(day, choice, units, {}) then return false end
  for _, option in ipairs(choice.options) do
    for _, name in ipairs(option.quotas) do
      if now_ms < blocked_until_ms(day.quotas[name]) then return false end
    end
  end
  return true
end

-- Return the paused members of a day whose pause is over, at most RESUME_MAX + 1.
local function over_members(day, now_ms)
  local prefix = "p" .. day.text .. SLASH
  return call("ZRANGEBYLEX", DUE, "[" .. prefix, "(" .. prefix .. padded(now_ms + 1), "LIMIT", 0, RESUME_MAX + 1)
end

-- Put parties back whose pause is over. Returns true if more are left.
local function resume(day, now_ms)
  flush_due()
  local members = over_members(day, now_ms)
  for index = 1, math.min(#members, RESUME_MAX) do
    local rest = string.sub(members[index], #day.text + 19)
    due_changes[members[index]], due_changes["w" .. day.text .. SLASH .. rest] = false, true
  end
  flush_due()
  return #members > RESUME_MAX
end

-- Return the first party with this demand behind a member that is not paused now, and its member; or nil. Without a member, it
-- is the first of all.
local function next_of(day, demand, behind, now_ms)
  local prefix = "w" .. day.text .. SLASH .. demand .. SLASH
  while true do
    local from = behind and "(" .. behind or "[" .. prefix
    local member = call("ZRANGEBYLEX", DUE, from, "(" .. prefix .. ":", "LIMIT", 0, 1)[1]
    if not member then return nil end
    local id = string.sub(member, #prefix + 17)
    local record = record_of_text(id, record_text(id))
    if record.paused_until_ms <= now_ms then return record, member end
    -- The time has run back since its pause ended.
    if not ledger.is_read_only then due_changes[member], due_changes[paused_member(record)] = false, true end
    behind = member
  end
end

local function add_head(heads, day, demand, record, member)
  local index = #heads + 1
  while index > 1 and heads[index - 1].record.wait_list_number > record.wait_list_number do index = index - 1 end
  table.insert(heads, index, { demand = demand, record = record, member = member, choice = choice_of(record.choice) })
end

local function parts_of(demand)
  local index, units = string.match(demand, "^(%d+):(%d+)$")
  return choice_of(index), tonumber(units)
end

-- Return the first party of each demand, in the order of their numbers. Those that can change nothing are left out.
local function heads_of(day, now_ms)
  local heads, to = {}, "(w" .. day.text .. "0"
  local from = "[w" .. day.text .. SLASH
  while true do
    local member = call("ZRANGEBYLEX", DUE, from, to, "LIMIT", 0, 1)[1]
    if not member then break end
    local demand = string.match(member, "^[^/]*/([^/]*)/")
    local choice, units = parts_of(demand)
    if not is_idle(day, choice, units, now_ms) then
      local record, first = next_of(day, demand, nil, now_ms)
      if record then add_head(heads, day, demand, record, first) end
    end
    from = "(w" .. day.text .. SLASH .. demand .. "0" -- "0" is the character after "/"
  end
  if ledger.is_read_only then
    for _, member in ipairs(over_members(day, now_ms)) do
      local demand, id = string.match(member, "^[^/]*/[^/]*/([^/]*)/[^/]*/(.*)$")
      local choice, units = parts_of(demand)
      if not is_idle(day, choice, units, now_ms) then add_head(heads, day, demand, record_of_text(id, record_text(id))) end
    end
  end
  return heads
end

-- Return the units that the wait list withholds from all others, by quota; or nil for all units, because a party fits.
local function withheld_units(day, now_ms)
  local withheld = {}
  if not is_served(day, now_ms) then return withheld end
  if not ledger.is_read_only and resume(day, now_ms) then return nil end
  for _, head in ipairs(heads_of(day, now_ms)) do
    if first_fitting(day, head.choice, head.record.units, withheld) then return nil end
    withhold(day, head.choice, head.record.units, withheld, now_ms)
  end
  return withheld
end

-- Return when a party may have to stop blocking free units next.
local function next_unblocked_ms(day, now_ms)
  local next_ms = NEVER_MS
  for _, quota in ipairs(quotas_of(day)) do
    local until_ms = blocked_until_ms(quota)
    if quota.free > 0 and until_ms > now_ms then
      next_ms = math.min(next_ms, until_ms)
      -- A party whose session can no longer be booked blocks nothing.
      for book_until in string.gmatch(day.sessions, ":%d+:(%d+)") do
        if tonumber(book_until) > now_ms then next_ms = math.min(next_ms, tonumber(book_until)) end
      end
    end
  end
  return next_ms
end

-- Return when the wait list has to be served next although no unit becomes free, relative to the last event.
local function due_ms(day)
  local now_ms = ledger.now_ms
  if now_ms < day.opens_at_ms then return day.opens_at_ms end
  if not is_served(day, now_ms) then return NEVER_MS end
  if not withheld_units(day, now_ms) then return now_ms end
  flush_due()
  local prefix, next_ms = "p" .. day.text .. SLASH, NEVER_MS
  local paused = call("ZRANGEBYLEX", DUE, "[" .. prefix, "(" .. prefix .. ":", "LIMIT", 0, 1)[1]
  if paused then next_ms = tonumber(string.sub(paused, #prefix + 1, #prefix + 15)) end
  return math.min(next_ms, next_unblocked_ms(day, now_ms))
end

-- Note when the wait list is due next.
local function note(day, next_ms)
  if next_ms < day.next_due_ms then
    day.next_due_ms = next_ms
    mark_changed(day)
  end
end

-- Note it after a party has joined, which did not fit itself.
local function note_join(day)
  note(day, next_unblocked_ms(day, ledger.now_ms))
end

-- Offer free units to the parties in order, at most OFFERS_MAX of them.
local function serve(day, now_ms)
  if not is_served(day, now_ms) then return end
  resume(day, now_ms)
  local heads, withheld, offers, index = heads_of(day, now_ms), {}, 0, 1
  while heads[index] and offers < OFFERS_MAX do
    local head = heads[index]
    local record, option = head.record, first_fitting(day, head.choice, head.record.units, withheld)
    if option then
      reservation_changed("offer", record, changed(record, {
        quotas = option.text, option = option.letter, state = "HELD", deadline_at_ms = now_ms + ledger.rules.offer_ttl_ms,
        paused_until_ms = 0,
      }), now_ms)
      offers = offers + 1
      local following, member = next_of(day, head.demand, head.member, now_ms)
      if following then add_head(heads, day, head.demand, following, member) end
    else
      withhold(day, head.choice, record.units, withheld, now_ms)
    end
    index = index + 1
  end
  note(day, due_ms(day))
end

-- Return the index of a choice if it is stored, or nil.
local function known_index(choice)
  local known = indexes[choice.text]
  if known then return known.index end
  return string.match(call("HGET", CHOICES, choice.field) or "", "^(%d+)\t")
end

-- Return true if a party with this demand would not be one demand too many.
local function has_room_for_demand(day, choice, units, now_ms)
  resume(day, now_ms)
  local prefix, count, index = "w" .. day.text .. SLASH, 0, known_index(choice)
  if index then
    local own = prefix .. index .. ":" .. int(units) .. SLASH
    if call("ZRANGEBYLEX", DUE, "[" .. own, "(" .. own .. ":", "LIMIT", 0, 1)[1] then return true end
  end
  local from = "[" .. prefix
  while count < DEMANDS_MAX do
    local member = call("ZRANGEBYLEX", DUE, from, "(w" .. day.text .. "0", "LIMIT", 0, 1)[1]
    if not member then return true end
    count = count + 1
    from = "(" .. prefix .. string.match(member, "^[^/]*/([^/]*)/") .. "0"
  end
  return false
end

-- Return the first name of a list that has fewer free units than needed, or nil.
local function lacking_of(day, needed, units, withheld)
  for _, name in ipairs(needed) do
    if day.quotas[name].free - (withheld[name] or 0) < units then return name end
  end
  return nil
end

-- Do what find_option does on a day with a wait list: its parties come first.
local function find_option_behind(day, choice, units, now_ms, kept)
  local budget, withheld = RECLAIM_MAX, nil
  for _, option in ipairs(choice.options) do
    local needed = {}
    for _, name in ipairs(option.quotas) do
      if not kept[name] then needed[#needed + 1] = name end
    end
    while true do
      local lacking = lacking_of(day, needed, units, {})
      if not lacking then
        withheld = withheld or withheld_units(day, now_ms)
        if not withheld then return nil end
        lacking = lacking_of(day, needed, units, withheld)
        if not lacking then return option end
      end
      if now_ms < day.next_due_ms or budget == 0 or reclaim(day, lacking, EVERYTHING, now_ms, 1) > 0 then break end
      budget, withheld = budget - 1, nil
    end
  end
  return nil
end

return {
  join = join, leave = leave, serve = serve, note_join = note_join, due_ms = due_ms, withheld_units = withheld_units, has_room_for_demand = has_room_for_demand,
  find_option = find_option_behind,
}
