-- operator_commands: rules, days, capacities and sweeps. Mirrors domain/operator_commands.py. Part of the body of
-- rare_commands(); see state_machine.lua.

-- fields: name, then the rules as text
local function set_rules(fields, now_ms)
  local text = concat(fields, TAB, 2)
  if text == ledger.rules.text then return outcome("DONE", nil, { flags = "p" }) end
  -- The seed follows from the identity key. Another key would make other applicants of all known ones.
  local seed, new_seed = ledger.rules.jitter_seed, rules_of_text(text).jitter_seed
  if seed ~= "" and new_seed ~= "" and new_seed ~= seed then return outcome("CONFLICT") end
  append(now_ms, concat({ "rules_set", int(now_ms), text }, TAB))
  ledger.rules = rules_of_text(text)
  ledger.deadline = nil -- it follows from the old rules
  ledger.renewed = true
  call("HSET", HEAD, "rules", text)
  return outcome("DONE")
end

local publish

-- Return a handler that settles the command's day and calls handler(day, quota, fields, now_ms), or returns UNKNOWN_DAY or
-- UNKNOWN_QUOTA.
local function with_quota(handler)
  return function(fields, now_ms)
    local day = day_of(tonumber(fields[2]))
    if not day then return outcome("UNKNOWN_DAY") end
    settle(day, now_ms, SETTLE_MAX)
    local quota = day.quotas[fields[3]]
    if not quota then return outcome("UNKNOWN_QUOTA") end
    return handler(day, quota, fields, now_ms)
  end
end

local function done(day, more)
  local result = outcome("DONE", nil, more)
  result.revision = day.revision
  return result
end

-- Return the refusal of a command that expects another revision of the day, or nil.
local function refuse_revision(day, expected)
  expected = tonumber(expected)
  if expected ~= 0 and expected ~= day.revision then return outcome("STALE", nil, { revision = day.revision }) end
end

local function count_change(day)
  day.revision = day.revision + 1
  mark_changed(day)
end

-- fields: name, day, quota, capacity, expected revision
local set_capacity = with_quota(function(day, quota, fields, now_ms)
  local capacity, flags = tonumber(fields[4]), "p"
  local stale = refuse_revision(day, fields[5])
  if stale and quota.capacity ~= capacity then return stale end
  -- After that time the new units would be reallocated at once, and again if the command were repeated.
  if quota.reallocate_to ~= "" and quota.reallocate_at_ms <= now_ms then return outcome("WRONG_STATE") end
  if quota.capacity ~= capacity then
    flags = ""
    append(now_ms, concat({ "capacity_set", int(now_ms), int(day.number), quota.name, int(capacity) }, TAB))
    add_free(quota, capacity - quota.capacity, now_ms)
    quota.capacity = capacity
    count_change(day)
    distribute_free_units(day, now_ms)
  end
  return done(day, { flags = flags, overbooked = math.max(0, -quota.free) })
end)

-- fields: name, day, quota, expected revision
local reallocate_unused = with_quota(function(day, quota, fields, now_ms)
  local stale = refuse_revision(day, fields[4])
  if stale and (quota.free > 0 or quota.reallocate_to == "") then return stale end
  if quota.reallocate_to == "" then return outcome("WRONG_STATE") end
  local units = reallocate(day, quota, now_ms, true)
  if units > 0 then count_change(day) end
  distribute_free_units(day, now_ms)
  return done(day, { units = units })
end)

-- fields: name, day, quota, expected revision
local release_parked = with_quota(function(day, quota, fields, now_ms)
  local units = quota.parked
  local stale = refuse_revision(day, fields[4])
  if stale and units > 0 then return stale end
  if units > 0 then
    append(now_ms, concat({ "parked_released", int(now_ms), int(day.number), quota.name, int(units) }, TAB))
    quota.parked, quota.cooling = 0, quota.cooling - units
    add_free(quota, units, now_ms)
    count_change(day)
    distribute_free_units(day, now_ms)
  end
  return done(day, { units = units })
end)

-- fields: name, day, expected revision
local function set_closed(closed, event)
  return function(fields, now_ms)
    local day = day_of(tonumber(fields[2]))
    if not day then return outcome("UNKNOWN_DAY") end
    settle(day, now_ms, SETTLE_MAX)
    local units = closed and 0 or day.departed
    if day.closed == closed then return done(day, { flags = "p", units = units }) end
    local stale = refuse_revision(day, fields[3])
    if stale then return stale end
    append(now_ms, concat({ event, int(now_ms), int(day.number) }, TAB))
    day.closed = closed
    if closed then day.departed = 0 end
    count_change(day)
    distribute_free_units(day, now_ms)
    return done(day, { units = units })
  end
end

-- fields: name, day, limit
local function expire_overdue(fields, now_ms)
  local day = day_of(tonumber(fields[2]))
  if not day then return outcome("UNKNOWN_DAY") end
  return outcome("DONE", nil, { units = settle(day, now_ms, tonumber(fields[3])) })
end

function GUARDS.undo_attendance(_, now_ms, record)
  if record.undo_until_ms <= now_ms then return "TOO_LATE" end
end

handlers.undo_attendance, forms.undo_attendance = step, STEP
handlers.set_rules, handlers.set_capacity = set_rules, set_capacity
handlers.close_day, handlers.open_day = set_closed(true, "day_closed"), set_closed(false, "day_opened")
handlers.reallocate_unused, handlers.release_parked, handlers.expire = reallocate_unused, release_parked, expire_overdue
function handlers.publish(fields, now_ms)
  publish = publish or load_publication()
  return publish(fields, now_ms)
end

forms.set_rules = string.rep(NUMBER .. "\t", 18) .. "[%d:,]*\t[%w_%-]*"
forms.publish = NUMBER .. "\t[^\t\n]+\t[%w_:,%-]*\t[^\t\n]+"
forms.set_capacity = concat({ NUMBER, NAME, NUMBER, NUMBER }, TAB)
forms.close_day, forms.open_day = NUMBER .. "\t" .. NUMBER, NUMBER .. "\t" .. NUMBER
forms.reallocate_unused = concat({ NUMBER, NAME, NUMBER }, TAB)
forms.release_parked = forms.reallocate_unused
forms.expire = NUMBER .. "\t" .. NUMBER
