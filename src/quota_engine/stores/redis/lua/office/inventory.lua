-- inventory: finds units for a request, and settles what time alone has decided. Mirrors domain/inventory.py.
--
-- The loader defines SETTLE_MAX and RECLAIM_MAX.

local function fits(day, option, units, kept)
  local quotas, needed = day.quotas, option.quotas
  for index = 1, #needed do
    if quotas[needed[index]].free < units and not kept[needed[index]] then return false end
  end
  return true
end

-- Compare by bytes. Lua compares by the server's locale, which other backends cannot reproduce.
local function before(one, other)
  for index = 1, math.min(#one, #other) do
    local a, b = string.byte(one, index), string.byte(other, index)
    if a ~= b then return a < b end
  end
  return #one < #other
end

-- Return the sets of quotas that have holds on this day, sorted by name.
local function held_quota_sets(day)
  local sets = {}
  for quotas in pairs(day.due) do sets[#sets + 1] = quotas end
  sort(sets, before)
  return sets
end

-- Return the first overdue hold on this set of quotas, or nil.
local function first_overdue(day, quotas, now_ms)
  local members, prefix_length = due_holds(day, quotas, padded(now_ms + 1), "LIMIT", 0, 1)
  if not members[1] then return nil end
  local id = string.sub(members[1], prefix_length + 17)
  return record_of_text(id, record_text(id))
end

local function expire(record, now_ms)
  local expired = changed(record, { state = "EXPIRED" })
  reservation_changed("expire", record, expired, now_ms)
  return expired
end

local function expire_one(day, quotas, now_ms)
  local record = first_overdue(day, quotas, now_ms)
  if not record then return false end
  expire(record, now_ms)
  return true
end

local function first_cooling(day, name)
  local prefix = int(day.number) .. SLASH .. name .. SLASH
  local member = call("ZRANGEBYLEX", COOLING, "[" .. prefix, "(" .. prefix .. ":", "LIMIT", 0, 1)[1]
  if not member then return nil end
  local due_at_ms, units = string.match(member, "^(%d+)/(%d+)/", #prefix + 1)
  return member, tonumber(due_at_ms), tonumber(units)
end

local function release_cooled(day, name, now_ms)
  local member, due_at_ms, units = first_cooling(day, name)
  if not member or due_at_ms > now_ms then return false end
  local quota = day.quotas[name]
  append(now_ms, concat({ "cooled", int(now_ms), int(day.number), name, int(units), int(due_at_ms) }, TAB))
  call("ZREM", COOLING, member)
  quota.cooling = quota.cooling - units
  add_free(quota, units, now_ms)
  mark_changed(day)
  return true
end

local function reallocate(day, quota, now_ms, by_operator)
  local units = quota.free
  if units <= 0 or quota.reallocate_to == "" then return 0 end
  append(now_ms, concat({
    "units_reallocated", int(now_ms), int(day.number), quota.name, quota.reallocate_to, int(units), by_operator and "1" or "0",
  }, TAB))
  local target = day.quotas[quota.reallocate_to]
  quota.capacity, quota.free = quota.capacity - units, quota.free - units
  target.capacity = target.capacity + units
  add_free(target, units, now_ms)
  mark_changed(day)
  return units
end

local function served_by_wait_list(day, choice)
  for _, option in ipairs(choice.options) do
    for _, name in ipairs(option.quotas) do
      if day.quotas[name].rule == "wait_list" then return true end
    end
  end
  return false
end

-- Reallocate what is due to be reallocated, then serve the wait list. Call it after units may have become free.
local function distribute_free_units(day, now_ms)
  for _, quota in ipairs(quotas_of(day)) do
    if quota.reallocate_to ~= "" and quota.reallocate_at_ms <= now_ms then reallocate(day, quota, now_ms) end
  end
  if day.waiting > 0 then wait_list().serve(day, now_ms) end
end

local function next_due_ms(day)
  -- Counted from the last event and not from now: a command without an event may be followed by an earlier one.
  local due_ms, now_ms = day.forget_at_ms, ledger.now_ms
  if day.waiting > 0 then due_ms = math.min(due_ms, wait_list().due_ms(day)) end
  for _, quotas in ipairs(held_quota_sets(day)) do
    local members, prefix_length = due_holds(day, quotas, ":", "LIMIT", 0, 1)
    if members[1] then
      due_ms = math.min(due_ms, tonumber(string.sub(members[1], prefix_length + 1, prefix_length + 15)))
    else
      set_due(day, quotas, nil)
    end
  end
  for _, quota in ipairs(quotas_of(day)) do
    if quota.cooling > quota.parked then
      local _, due_at_ms = first_cooling(day, quota.name)
      due_ms = math.min(due_ms, due_at_ms)
    end
    if quota.reallocate_to ~= "" and quota.reallocate_at_ms > now_ms then due_ms = math.min(due_ms, quota.reallocate_at_ms) end
  end
  return due_ms
end

-- Apply what time alone has decided on this day, and expire up to `limit` holds. Returns the number of expired holds.
local function settle(day, now_ms, limit)
  if now_ms < day.next_due_ms then return 0 end
  local expired = 0
  for _, quotas in ipairs(held_quota_sets(day)) do
    while expired < limit and expire_one(day, quotas, now_ms) do expired = expired + 1 end
  end
  for _, quota in ipairs(quotas_of(day)) do
    for _ = 1, SETTLE_MAX do
      if not release_cooled(day, quota.name, now_ms) then break end
    end
  end
  distribute_free_units(day, now_ms)
  local before_ms = day.next_due_ms
  day.next_due_ms = next_due_ms(day)
  -- Nothing is written while the next due time is the same: a refused command costs no write.
  if day.next_due_ms ~= before_ms then mark_changed(day) end
  return expired
end

-- Return the record after its day is settled. It is never an overdue hold.
local function settle_reservation(record, now_ms)
  local day = day_of(record.day)
  if now_ms >= day.next_due_ms then
    settle(day, now_ms, SETTLE_MAX)
    record = record_of(record.id)
  end
  if record.state == "HELD" and record.deadline_at_ms <= now_ms then
    record = expire(record, now_ms)
    distribute_free_units(day, now_ms)
  end
  return record
end

-- Expire and cool overdue units of one quota until it has enough free. Returns the rest of the budget of steps.
local function reclaim(day, name, units, now_ms, budget)
  local quota = day.quotas[name]
  while budget > 0 and quota.free < units do
    local changed_names = release_cooled(day, name, now_ms) and { name } or nil
    if not changed_names then
      for _, quotas in ipairs(held_quota_sets(day)) do
        local needed = names(quotas)
        for _, other in ipairs(needed) do
          if other == name and expire_one(day, quotas, now_ms) then changed_names = needed end
        end
        if changed_names then break end
      end
    end
    if not changed_names then return budget end
    budget = budget - 1
    -- While returned units only reduce an overbooking none becomes free, and the wait list need not be served.
    local is_free = false
    for _, other in ipairs(changed_names) do is_free = is_free or day.quotas[other].free > 0 end
    if is_free then distribute_free_units(day, now_ms) end
  end
  return budget
end

-- Return the first option with enough free units, after reclaiming overdue units of quotas that lack them; or nil.
local function find_option(day, choice, units, now_ms, kept)
  if day.waiting > 0 then return wait_list().find_option(day, choice, units, now_ms, kept) end
  local budget, options = RECLAIM_MAX, choice.options
  for index = 1, #options do
    local option = options[index]
    if fits(day, option, units, kept) then return option end
    if now_ms >= day.next_due_ms then
      for _, name in ipairs(option.quotas) do
        if not kept[name] then budget = reclaim(day, name, units, now_ms, budget) end
      end
      if fits(day, option, units, kept) then return option end
    end
  end
  return nil
end
