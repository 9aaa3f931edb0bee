-- operators: commands that a rush does not need, one function each; goes on where machine.lua ends. All of this file is the body of one
-- function, operators(), which runs when the first of them comes. It returns their handlers, and what each of them has to look like.

-- fields: name, valid_until_ms, and from field 3 on those of a reserve (the choice as six)
local function reserve_until(fields, now_ms, now)
  if now_ms > tonumber(fields[2]) and not record_of(fields[3]) then return outcome("COMMAND_EXPIRED") end
  local rest = { "reserve", fields[3], fields[4], fields[5], fields[6], fields[7], concat(fields, TAB, 8) }
  return reserve(rest, now_ms, now)
end

-- fields: name, valid_until_ms, id, owner, version
local function reacquire_until(fields, now_ms)
  return step({ "confirm", fields[3], fields[4], fields[5], "1", fields[2] }, now_ms)
end

-- Why the record may not be moved away from its place any more, to wherever; nil if it may.
local function move_refused(record, now_ms)
  local rules = ledger.rules
  local last_moment_ms = day_of(record.day).starts_at_ms - rules.reschedule_before_ms
  if record.state == "CONFIRMED" and now_ms > last_moment_ms then return "TOO_LATE" end
  if record.moves >= rules.reschedules_max then return "MOVES_EXCEEDED" end
  return nil
end

-- fields: name, id, owner, version
local function prepare_move(fields, now_ms)
  local owner, version = fields[3], tonumber(fields[4])
  local known = record_of(fields[2])
  if not known then return outcome("NOT_FOUND") end
  local record = settle_reservation(known, now_ms)
  if not is_owner(record, owner) then return outcome("NOT_OWNER") end
  if record.state == "EXPIRED" then return outcome("HOLD_EXPIRED", record) end
  if version > 0 and version ~= record.version then return outcome("STALE", record) end
  if not FROM.move_out[record.state] then return outcome("WRONG_STATE", record) end
  return outcome(move_refused(record, now_ms) or record.state, record)
end

-- fields: name, id, day, applicants, deadline_ms ("0" for what is confirmed), moves, valid_until_ms, choice (six fields)
local function move_in(fields, now_ms)
  local id, number, party, deadline_ms = fields[2], tonumber(fields[3]), fields[4], tonumber(fields[5])
  local confirmed, moves, valid_until_ms = deadline_ms == 0, tonumber(fields[6]), tonumber(fields[7])
  local choice, applicants = choice_by_text(concat(fields, TAB, 8)), names(party)
  local command = { day = number, party = party, applicants = applicants, choice = choice }
  local known, rest = record_of(id)
  if known then return replay(known, command, now_ms) end
  if valid_until_ms > 0 and now_ms > valid_until_ms then return outcome("COMMAND_EXPIRED") end
  local day = day_of(number)
  if not day then return outcome("UNKNOWN_DAY") end
  settle(day, now_ms, SETTLE_MAX)
  local refusal, retry_at_ms = day_refuses(day, choice, now_ms)
  if refusal == "UNKNOWN_QUOTA" then return outcome(refusal) end
  if not confirmed and deadline_ms <= now_ms then return outcome("HOLD_EXPIRED") end
  if refusal then return outcome(refusal, nil, { retry_at_ms = retry_at_ms }) end
  if #applicants > ledger.rules.party_max then return outcome("PARTY_TOO_LARGE") end
  local until_ms = blocked_until_ms(applicants, now_ms)
  if until_ms > 0 then return outcome("BLOCKED", nil, { retry_at_ms = until_ms }) end
  local in_the_way = limit_reached(applicants, number, now_ms, "")
  if in_the_way then return outcome("IDENTITY_LIMIT", same_party(in_the_way, command) and in_the_way or nil) end
  local option = find_option(day, choice, #applicants, now_ms, NOTHING)
  if not option then return SOLD_OUT end

  -- From here on it must succeed.
  if rest then forget_rest(rest) end
  local record = {
    id = id, day = number, version = 1, state = confirmed and "CONFIRMED" or "HELD", created_at_ms = now_ms,
    deadline_ms = deadline_ms, queue_number = confirmed and day.last_queue_number + 1 or 0, moves = moves,
    choice = index_of(choice, number), option = option.letter, quotas = option.text, party = party, applicants = applicants,
    units = #applicants,
  }
  reservation_changed(confirmed and "move_in_confirmed" or "move_in", nil, record, now_ms)
  return outcome(record.state, record)
end

-- fields: name, id, day, owner, version, choice (six fields)
local function reschedule(fields, now_ms)
  local number, owner, version = tonumber(fields[3]), fields[4], tonumber(fields[5])
  local choice = choice_of_text(concat(fields, TAB, 6, 11))
  local known = record_of(fields[2])
  if not known then return outcome("NOT_FOUND") end
  local record = settle_reservation(known, now_ms)
  local day = day_of(number)
  if not day then return outcome("UNKNOWN_DAY") end -- without the record: whose it is has not been looked at yet
  settle(day, now_ms, SETTLE_MAX)
  record = record_of(record.id)
  local refusal, retry_at_ms = day_refuses(day, choice, now_ms)
  if refusal == "UNKNOWN_QUOTA" then return outcome(refusal) end
  if not is_owner(record, owner) then return outcome("NOT_OWNER") end
  local movable = FROM.reschedule[record.state]
  if movable and record.day == number and choice_of(record.choice).text == choice.text then
    return outcome(record.state, record, { flags = "p" })
  end
  if record.state == "EXPIRED" then return outcome("HOLD_EXPIRED", record) end
  if version > 0 and version ~= record.version then return outcome("STALE", record) end
  if not movable then return outcome("WRONG_STATE", record) end
  if refusal then return outcome(refusal, record, { retry_at_ms = retry_at_ms }) end
  local move_refusal = move_refused(record, now_ms)
  if move_refusal then return outcome(move_refusal, record) end
  if limit_reached(record.applicants, number, now_ms, record.id) then return outcome("IDENTITY_LIMIT", record) end
  local kept = {}
  if record.day == number then
    for _, name in ipairs(names(record.quotas)) do kept[name] = true end
  end
  local option = find_option(day, choice, record.units, now_ms, kept)
  if not option then return outcome("SOLD_OUT", record) end

  -- From here on it must succeed.
  local moved = changed(record, {
    day = number, choice = index_of(choice, number), quotas = option.text, option = option.letter, moves = record.moves + 1,
  })
  if record.state == "CONFIRMED" and record.day ~= number then moved.queue_number = day.last_queue_number + 1 end
  reservation_changed("reschedule", record, moved, now_ms)
  distribute_free_units(day_of(record.day), now_ms)
  return outcome(moved.state, moved)
end

-- fields: name, the rules as text, from field 2 on
local function set_rules(fields, now_ms)
  local text = concat(fields, TAB, 2)
  if text == ledger.rules.text then return outcome("DONE", nil, { flags = "p" }) end
  -- The seed is made of the identity key: whoever brings another one would not know anybody again.
  local seed, new_seed = ledger.rules.jitter_seed, rules_of_text(text).jitter_seed
  if seed ~= "" and new_seed ~= "" and new_seed ~= seed then return outcome("CONFLICT") end
  append(now_ms, concat({ "rules_set", int(now_ms), text }, TAB))
  ledger.rules = rules_of_text(text)
  ledger.deadlines = {} -- they were counted by the old ones
  ledger.renewed = true
  call("HSET", HEAD, "rules", text)
  return outcome("DONE")
end

-- Whether publishing a day again would change nothing. Capacities do not count: operators may set them.
local function takes_over_nothing(day, new)
  if day.times ~= new.times then return false end
  for _, quota in ipairs(quotas_of(new)) do
    local old = day.quotas[quota.name]
    if not old or old.terms ~= quota.terms then return false end
  end
  return true
end

-- fields: name, day, the day as text (its tabs and newlines written as "\1" and "\2"), and its terms, which are opaque here
local function publish(fields, now_ms)
  local number, text = tonumber(fields[2]), string.gsub(string.gsub(fields[3], "\1", TAB), "\2", NEWLINE)
  local new = day_of_text(number, text)
  if new.forget_at_ms <= now_ms or number <= ledger.forgotten_day_max then return outcome("DAY_OVER") end
  local day = day_of(number)
  if day then
    settle(day, now_ms, SETTLE_MAX)
    if takes_over_nothing(day, new) then return outcome("DONE", nil, { flags = "p" }) end
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
      else
        order[#order + 1] = quota
        day.quotas[quota.name] = quota
      end
    end
    for _, field in ipairs({ "times", "opens_at_ms", "starts_at_ms", "ends_at_ms", "forget_at_ms" }) do day[field] = new[field] end
    day.next_due_ms = 0
    distribute_free_units(day, now_ms)
  else
    ledger.days[number] = new
  end
  ledger.changed[number] = true
  ledger.renewed = true
  return outcome("DONE")
end

-- Calls handler(day, quota, fields, now_ms) with the command's day, settled, and its quota, or answers that there is none.
local function on_quota(handler)
  return function(fields, now_ms)
    local day = day_of(tonumber(fields[2]))
    if not day then return outcome("UNKNOWN_DAY") end
    settle(day, now_ms, SETTLE_MAX)
    local quota = day.quotas[fields[3]]
    if not quota then return outcome("UNKNOWN_QUOTA") end
    return handler(day, quota, fields, now_ms)
  end
end

-- fields: name, day, quota, capacity
local set_capacity = on_quota(function(day, quota, fields, now_ms)
  -- From then on what is set here would be passed on at once, and a second time if the command were sent again.
  if quota.reallocate_to ~= "" and quota.reallocate_at_ms <= now_ms then return outcome("WRONG_STATE") end
  local capacity, flags = tonumber(fields[4]), "p"
  if quota.capacity ~= capacity then
    flags = ""
    append(now_ms, concat({ "capacity_set", int(now_ms), int(day.number), quota.name, int(capacity) }, TAB))
    quota.free = quota.free + capacity - quota.capacity
    quota.capacity = capacity
    touch(day)
    distribute_free_units(day, now_ms)
  end
  return outcome("DONE", nil, { flags = flags, overbooked = math.max(0, -quota.free) })
end)

-- fields: name, day, quota
local reallocate_unused = on_quota(function(day, quota, _, now_ms)
  if quota.reallocate_to == "" then return outcome("WRONG_STATE") end
  local units = reallocate(day, quota, now_ms)
  distribute_free_units(day, now_ms)
  return outcome("DONE", nil, { units = units })
end)

-- fields: name, day, quota
local release_parked = on_quota(function(day, quota, _, now_ms)
  local units = quota.parked
  if units > 0 then
    append(now_ms, concat({ "parked_released", int(now_ms), int(day.number), quota.name, int(units) }, TAB))
    quota.parked, quota.cooling, quota.free = 0, quota.cooling - units, quota.free + units
    touch(day)
    distribute_free_units(day, now_ms)
  end
  return outcome("DONE", nil, { units = units })
end)

-- fields: name, day
local function set_closed(closed, event)
  return function(fields, now_ms)
    local day = day_of(tonumber(fields[2]))
    if not day then return outcome("UNKNOWN_DAY") end
    settle(day, now_ms, SETTLE_MAX)
    if day.closed == closed then return outcome("DONE", nil, { flags = "p" }) end
    append(now_ms, concat({ event, int(now_ms), int(day.number) }, TAB))
    day.closed = closed
    touch(day)
    distribute_free_units(day, now_ms)
    return outcome("DONE")
  end
end

-- fields: name, day, limit
local function expire_overdue(fields, now_ms)
  local day = day_of(tonumber(fields[2]))
  if not day then return outcome("UNKNOWN_DAY") end
  return outcome("DONE", nil, { units = settle(day, now_ms, tonumber(fields[3])) })
end

return {
  reschedule = reschedule, expire = expire_overdue, set_rules = set_rules, publish = publish, set_capacity = set_capacity,
  close_day = set_closed(true, "day_closed"), open_day = set_closed(false, "day_opened"),
  reallocate_unused = reallocate_unused, release_parked = release_parked,
  reserve_until = reserve_until, reacquire_until = reacquire_until, prepare_move = prepare_move, move_in = move_in,
  undo_move = step,
}, {
  reschedule = NAME .. "\t" .. NUMBER .. "\t" .. MAYBE_APPLICANT .. "\t" .. NUMBER .. "\t" .. CHOICE,
  expire = NUMBER .. "\t" .. NUMBER,
  set_rules = string.rep(NUMBER .. "\t", 10) .. "[%d:,]*\t[%w_%-]*",
  publish = NUMBER .. "\t[^\t\n]+\t[^\t\n]+",
  set_capacity = NUMBER .. "\t" .. NAME .. "\t" .. NUMBER,
  close_day = NUMBER, open_day = NUMBER,
  reallocate_unused = NUMBER .. "\t" .. NAME, release_parked = NUMBER .. "\t" .. NAME,
  reserve_until = concat({ NUMBER, NAME, NUMBER, PARTY, "[01]", NUMBER, CHOICE }, TAB),
  reacquire_until = NUMBER .. "\t" .. STEP,
  prepare_move = STEP, undo_move = STEP,
  move_in = concat({ NAME, NUMBER, PARTY, NUMBER, NUMBER, NUMBER, CHOICE }, TAB),
}
