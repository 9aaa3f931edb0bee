-- operator_commands: rules, days, capacities and sweeps. Part of the body of rare_commands(); see state_machine.lua.

-- fields: name, then the rules as text
local function set_rules(fields, now_ms)
  local text = concat(fields, TAB, 2)
  if text == ledger.rules.text then return outcome("DONE", nil, { flags = "p" }) end
  -- The seed follows from the identity key. Another key would make other applicants of all known ones.
  local seed, new_seed = ledger.rules.jitter_seed, rules_of_text(text).jitter_seed
  if seed ~= "" and new_seed ~= "" and new_seed ~= seed then return outcome("CONFLICT") end
  append(now_ms, concat({ "rules_set", int(now_ms), text }, TAB))
  ledger.rules = rules_of_text(text)
  ledger.deadlines = {} -- they follow from the old rules
  ledger.renewed = true
  call("HSET", HEAD, "rules", text)
  return outcome("DONE")
end

-- Return true if publishing the day again changes nothing. Capacities do not count, because operators may set them.
local function is_published(day, new)
  if day.times ~= new.times then return false end
  for _, quota in ipairs(quotas_of(new)) do
    local old = day.quotas[quota.name]
    if not old or old.terms ~= quota.terms then return false end
  end
  return true
end

-- fields: name, day, the day as text (tabs and newlines written as "\1" and "\2"), its terms, which stay opaque here
local function publish(fields, now_ms)
  local number, text = tonumber(fields[2]), string.gsub(string.gsub(fields[3], "\1", TAB), "\2", NEWLINE)
  local new = day_of_text(number, text)
  if new.forget_at_ms <= now_ms or number <= ledger.forgotten_day_max then return outcome("DAY_OVER") end
  local day = day_of(number)
  if day then
    settle(day, now_ms, SETTLE_MAX)
    if is_published(day, new) then return outcome("DONE", nil, { flags = "p" }) end
  end
  append(now_ms, concat({ "day_published", int(now_ms), int(number), fields[4] }, TAB))
  call("HSET", DAYS, "t" .. int(number), fields[4])
  if day then
    local order = quotas_of(day)
    for _, quota in ipairs(quotas_of(new)) do
      local old = day.quotas[quota.name]
      if old then
        old.terms = quota.terms
        old.rule, old.cooling_ms, old.jitter_ms = quota.rule, quota.cooling_ms, quota.jitter_ms
        old.reallocate_to, old.reallocate_at_ms = quota.reallocate_to, quota.reallocate_at_ms
        old.blocks_ms = quota.blocks_ms
      else
        order[#order + 1] = quota
        day.quotas[quota.name] = quota
      end
    end
    for _, field in ipairs({ "times", "opens_at_ms", "starts_at_ms", "ends_at_ms", "forget_at_ms", "sessions" }) do day[field] = new[field] end
    day.last_valid_choice = nil
    day.revision = day.revision + 1
    day.next_due_ms = 0
    distribute_free_units(day, now_ms)
  else
    ledger.days[number] = new
  end
  ledger.changed[number] = true
  ledger.renewed = true
  return outcome("DONE")
end

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

handlers.set_rules, handlers.publish, handlers.set_capacity = set_rules, publish, set_capacity
handlers.close_day, handlers.open_day = set_closed(true, "day_closed"), set_closed(false, "day_opened")
handlers.reallocate_unused, handlers.release_parked, handlers.expire = reallocate_unused, release_parked, expire_overdue
forms.set_rules = string.rep(NUMBER .. "\t", 17) .. "[%d:,]*\t[%w_%-]*"
forms.publish = NUMBER .. "\t[^\t\n]+\t[^\t\n]+"
forms.set_capacity = concat({ NUMBER, NAME, NUMBER, NUMBER }, TAB)
forms.close_day, forms.open_day = NUMBER .. "\t" .. NUMBER, NUMBER .. "\t" .. NUMBER
forms.reallocate_unused = concat({ NUMBER, NAME, NUMBER }, TAB)
forms.release_parked = forms.reallocate_unused
forms.expire = NUMBER .. "\t" .. NUMBER
