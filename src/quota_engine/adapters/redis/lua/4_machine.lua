-- machine: the reservation rules, one function a command. Mirrors domain/machine.py, and docs/rules.md says the same in words.
--
-- Each takes the command's fields (the first is its name) and the time, and returns its outcome: status, record, flags ("p" replayed, "s" resumed),
-- retry_at_ms, units, overbooked; or the whole answer as a line. Everything is checked first; below "from here on it must succeed" nothing can fail.

local NOTHING = {}
local RESULT_OF_VERB = {
  confirm = "CONFIRMED", release = "RELEASED", cancel = "CANCELLED", check_in = "ATTENDED", mark_no_show = "NO_SHOW",
  move_out = "MOVED",
}
local FROM = { -- the life cycle: which states a verb leads out of
  confirm = { HELD = true }, release = { HELD = true, WAITING = true }, cancel = { CONFIRMED = true },
  check_in = { CONFIRMED = true }, mark_no_show = { CONFIRMED = true }, reschedule = { HELD = true, CONFIRMED = true },
  move_out = { HELD = true, CONFIRMED = true },
}

local function outcome(status, record, more)
  local result = more or {}
  result.status, result.record = status, record
  return result
end

local function same_party(one, other)
  if one.party == other.party then return true end
  if #one.applicants ~= #other.applicants then return false end
  local members = {}
  for _, applicant in ipairs(one.applicants) do members[applicant] = true end
  for _, applicant in ipairs(other.applicants) do
    if not members[applicant] then return false end
  end
  return true
end

-- Why nobody can get a place on this day now: a status, and when to come back; nil if somebody can.
local function day_refuses(day, choice, now_ms)
  for _, option in ipairs(choice.options) do
    for _, name in ipairs(option.quotas) do
      if not day.quotas[name] then return "UNKNOWN_QUOTA", 0 end
    end
  end
  if day.closed then return "CLOSED", 0 end
  if now_ms >= day.ends_at_ms then return "OVER", 0 end
  if now_ms < day.opens_at_ms then return "NOT_OPEN", day.opens_at_ms end
  return nil
end

local function blocked_until_ms(applicants, now_ms)
  if ledger.has_standings == nil then ledger.has_standings = call("HLEN", STANDINGS) > 1 end
  if not ledger.has_standings then return 0 end
  local until_ms = 0
  for _, applicant in ipairs(applicants) do
    local standing = call("HGET", STANDINGS, applicant)
    if standing then until_ms = math.max(until_ms, tonumber(names(standing)[1])) end
  end
  return until_ms > now_ms and until_ms or 0
end

-- An active reservation that keeps one of the applicants from a place on the day, or nil.
local function limit_reached(applicants, number, now_ms, except_id)
  for _, applicant in ipairs(applicants) do
    local claims = {}
    each_claim(applicant, now_ms, function(record)
      if record.id ~= except_id then claims[#claims + 1] = record end
    end)
    if #claims >= CLAIMS_MAX then return claims[1] end
    for _, limit in ipairs(ledger.rules.identity_limits) do
      local near = {}
      for _, record in ipairs(claims) do
        if limit.span_days == 0 or math.abs(record.day - number) < limit.span_days then near[#near + 1] = record end
      end
      if #near >= limit.places_max then return near[1] end
    end
  end
  return nil
end

local function replay(known, command, now_ms)
  local record = settled(known, now_ms)
  if not same_party(record, command) or (record.moves == 0
      and (record.day ~= command.day or choice_of(record.choice).text ~= command.choice.text)) then
    return outcome("CONFLICT")
  end
  if not ACTIVE[record.state] then return outcome("ENDED", record, { flags = "p" }) end
  return outcome(record.state, record, { flags = "p" })
end

local function has_claims(applicants)
  for index = 1, #applicants do
    if claims_text(applicants[index]) then return true end
  end
  return false
end

local function resume_or_refuse(command, now_ms)
  local mine = each_claim(command.applicants[1], now_ms, function(record)
    if record.day == command.day and (record.state == "WAITING" or record.state == "HELD")
        and same_party(record, command) then
      return record
    end
  end)
  if mine then return outcome(mine.state, mine, { flags = "s" }) end
  local in_the_way = limit_reached(command.applicants, command.day, now_ms, "")
  if not in_the_way then return nil end
  return outcome("IDENTITY_LIMIT", same_party(in_the_way, command) and in_the_way or nil)
end

local SOLD_OUT = "SOLD_OUT\t\t0\t0\t0"

-- fields: "reserve", id, day, applicants, wait ("1"), hold_ttl_ms, choice (six fields)
local function reserve(fields, now_ms, now)
  local id, number, party, wait, hold_ttl_ms = fields[2], fields[3], fields[4], fields[5], fields[6]
  local choice, day_number = choice_by_text(fields[7]), tonumber(number)
  local applicants = fields.applicants or names(party)
  local known, rest = record_of(id)
  if known then
    return replay(known, { day = day_number, party = party, applicants = applicants, choice = choice }, now_ms)
  end
  local day = day_of(day_number)
  if not day then return outcome("UNKNOWN_DAY") end
  if now_ms >= day.next_due_ms then settle(day, now_ms, SETTLE_MAX) end
  if day.known_choice ~= choice or day.closed or now_ms < day.opens_at_ms or now_ms >= day.ends_at_ms then
    local refusal, retry_at_ms = day_refuses(day, choice, now_ms)
    if refusal then return outcome(refusal, nil, { retry_at_ms = retry_at_ms }) end
    day.known_choice = choice
  end
  local units, rules = #applicants, ledger.rules
  if units > rules.party_max then return outcome("PARTY_TOO_LARGE") end
  if ledger.has_standings ~= false then
    local until_ms = blocked_until_ms(applicants, now_ms)
    if until_ms > 0 then return outcome("BLOCKED", nil, { retry_at_ms = until_ms }) end
  end
  if has_claims(applicants) then
    local refused = resume_or_refuse({ day = day_number, party = party, applicants = applicants }, now_ms)
    if refused then return refused end
  end
  local option = find_option(day, choice, units, now_ms, NOTHING)
  if not option then
    if wait ~= "1" or not served_by_wait_list(day, choice) then return SOLD_OUT end
    if day.waiting >= rules.wait_list_max then return outcome("WAIT_LIST_FULL") end
  end

  -- From here on it must succeed.
  if rest then forget_rest(rest) end
  if not option then
    local waiting = {
      id = id, day = day_number, version = 1, state = "WAITING", created_at_ms = now_ms, deadline_ms = 0, queue_number = 0,
      moves = 0, choice = index_of(choice, day_number), option = "", quotas = "", party = party, applicants = applicants, units = units,
    }
    reservation_changed("wait", nil, waiting, now_ms)
    return outcome("WAITING", waiting)
  end
  local deadline = ledger.deadlines[hold_ttl_ms]
  if not deadline then
    local ttl_ms = tonumber(hold_ttl_ms)
    local at_ms = now_ms + (ttl_ms > 0 and ttl_ms or rules.hold_ttl_ms)
    deadline = { at_ms = at_ms, text = int(at_ms), digits = padded(at_ms), lasting = short(at_ms - now_ms) }
    ledger.deadlines[hold_ttl_ms] = deadline
  end
  -- What text_of_record would write, of texts that are there already.
  local text = "H1\t" .. number .. TAB .. now.short .. TAB .. deadline.lasting .. TAB .. index_of(choice, day_number) .. option.letter .. TAB
    .. party
  hold_made(day, option, id, applicants, text, now_ms, deadline)
  return "NEW\t" .. now.text .. TAB .. deadline.text .. TAB .. option.index
end

-- fields: name, valid_until_ms, and from field 3 on those of a reserve (the choice as six)
local function reserve_until(fields, now_ms, now)
  if now_ms > tonumber(fields[2]) and not record_of(fields[3]) then return outcome("LAPSED") end
  local rest = { "reserve", fields[3], fields[4], fields[5], fields[6], fields[7], concat(fields, TAB, 8) }
  return reserve(rest, now_ms, now)
end

local function is_owner(record, owner)
  if owner == "" then return true end
  for _, applicant in ipairs(record.applicants) do
    if applicant == owner then return true end
  end
  return false
end

local function reacquire(record, now_ms)
  local day, option = day_of(record.day), nil
  local choice = choice_of(record.choice)
  if not day_refuses(day, choice, now_ms) and blocked_until_ms(record.applicants, now_ms) == 0
      and not limit_reached(record.applicants, record.day, now_ms, "") then
    option = find_option(day, choice, record.units, now_ms, NOTHING)
  end
  if not option then return outcome("EXPIRED", record) end

  -- From here on it must succeed.
  local confirmed = changed(record, {
    quotas = option.text, option = option.letter, state = "CONFIRMED", queue_number = day.last_queue_number + 1,
  })
  reservation_changed("reacquire", record, confirmed, now_ms)
  return outcome("CONFIRMED", confirmed)
end

local GUARDS = {
  confirm = function(day, now_ms)
    if day.closed then return "CLOSED" end
    if now_ms >= day.ends_at_ms then return "OVER" end
  end,
  release = function() end,
  cancel = function(day, now_ms)
    if now_ms >= day.ends_at_ms then return "OVER" end
  end,
  check_in = function(day, now_ms)
    if now_ms >= day.ends_at_ms then return "OVER" end
    if now_ms < day.starts_at_ms then return "TOO_EARLY" end
  end,
  mark_no_show = function(day, now_ms)
    if now_ms < day.starts_at_ms then return "TOO_EARLY" end
  end,
  move_out = function() end,
}

-- fields: verb, id, owner, version, and for a confirm "1" if it may reacquire, and until when, if not at any time
local function step(fields, now_ms)
  local verb, owner, version = fields[1], fields[3], tonumber(fields[4])
  local known = record_of(fields[2])
  if not known then return outcome("NOT_FOUND") end
  local record = settled(known, now_ms)
  if not is_owner(record, owner) then return outcome("NOT_OWNER") end
  local goal = RESULT_OF_VERB[verb]
  if record.state == goal then return outcome(goal, record, { flags = "p" }) end
  if record.state == "EXPIRED" then
    if fields[5] == "1" then
      if fields[6] and now_ms > tonumber(fields[6]) then return outcome("LAPSED", record) end
      return reacquire(record, now_ms)
    end
    return outcome("EXPIRED", record)
  end
  if version > 0 and version ~= record.version then return outcome("STALE", record) end
  if not FROM[verb][record.state] then return outcome("WRONG_STATE", record) end
  local day = day_of(record.day)
  local refusal = GUARDS[verb](day, now_ms)
  if refusal then return outcome(refusal, record) end

  -- From here on it must succeed.
  local after = changed(record, { state = goal })
  if verb == "confirm" then after.queue_number = day.last_queue_number + 1 end
  reservation_changed(verb, record, after, now_ms)
  if verb == "release" or verb == "cancel" or verb == "move_out" then after_return(day, now_ms) end
  return outcome(goal, after)
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
  local record = settled(known, now_ms)
  if not is_owner(record, owner) then return outcome("NOT_OWNER") end
  if record.state == "EXPIRED" then return outcome("EXPIRED", record) end
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
  if valid_until_ms > 0 and now_ms > valid_until_ms then return outcome("LAPSED") end
  local day = day_of(number)
  if not day then return outcome("UNKNOWN_DAY") end
  settle(day, now_ms, SETTLE_MAX)
  local refusal, retry_at_ms = day_refuses(day, choice, now_ms)
  if refusal == "UNKNOWN_QUOTA" then return outcome(refusal) end
  if not confirmed and deadline_ms <= now_ms then return outcome("EXPIRED") end
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
  local record = settled(known, now_ms)
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
  if record.state == "EXPIRED" then return outcome("EXPIRED", record) end
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
  after_return(day_of(record.day), now_ms)
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
  if new.forget_at_ms <= now_ms or number <= ledger.forgotten_day_max then return outcome("OVER") end
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
        old.pass_to, old.pass_at_ms = quota.pass_to, quota.pass_at_ms
      else
        order[#order + 1] = quota
        day.quotas[quota.name] = quota
      end
    end
    for _, field in ipairs({ "times", "opens_at_ms", "starts_at_ms", "ends_at_ms", "forget_at_ms" }) do day[field] = new[field] end
    day.next_due_ms = 0
    after_return(day, now_ms)
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
  if quota.pass_to ~= "" and quota.pass_at_ms <= now_ms then return outcome("WRONG_STATE") end
  local capacity, flags = tonumber(fields[4]), "p"
  if quota.capacity ~= capacity then
    flags = ""
    append(now_ms, concat({ "capacity_set", int(now_ms), int(day.number), quota.name, int(capacity) }, TAB))
    quota.free = quota.free + capacity - quota.capacity
    quota.capacity = capacity
    touch(day)
    after_return(day, now_ms)
  end
  return outcome("DONE", nil, { flags = flags, overbooked = math.max(0, -quota.free) })
end)

-- fields: name, day, quota
local pass_on_unused = on_quota(function(day, quota, _, now_ms)
  if quota.pass_to == "" then return outcome("WRONG_STATE") end
  local units = pass_on(day, quota, now_ms)
  after_return(day, now_ms)
  return outcome("DONE", nil, { units = units })
end)

-- fields: name, day, quota
local return_parked = on_quota(function(day, quota, _, now_ms)
  local units = quota.parked
  if units > 0 then
    append(now_ms, concat({ "parked_returned", int(now_ms), int(day.number), quota.name, int(units) }, TAB))
    quota.parked, quota.cooling, quota.free = 0, quota.cooling - units, quota.free + units
    touch(day)
    after_return(day, now_ms)
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
    after_return(day, now_ms)
    return outcome("DONE")
  end
end

-- fields: name, day, limit
local function expire_overdue(fields, now_ms)
  local day = day_of(tonumber(fields[2]))
  if not day then return outcome("UNKNOWN_DAY") end
  return outcome("DONE", nil, { units = settle(day, now_ms, tonumber(fields[3])) })
end

local HANDLERS = {
  reserve = reserve, confirm = step, release = step, cancel = step, check_in = step, mark_no_show = step,
  reschedule = reschedule, expire = expire_overdue, set_rules = set_rules, publish = publish, set_capacity = set_capacity,
  close_day = set_closed(true, "day_closed"), open_day = set_closed(false, "day_opened"),
  pass_on_unused = pass_on_unused, return_parked = return_parked,
  reserve_until = reserve_until, reacquire_until = reacquire_until,
  prepare_move = prepare_move, move_in = move_in, move_out = step,
}

-- What each command has to look like. Every command of a call is held against this before the first of them is carried out: an
-- error half way through a script would leave what it wrote before.
local NAME, MAYBE_APPLICANT, NUMBER = "[%w_%-]+", "[%w_%-%.]*", "%d%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?"
local CHOICE = string.rep("[%w_%-]*\t", 5) .. "[%w_%-][%w_%-,|]*"
local STEP = NAME .. "\t" .. MAYBE_APPLICANT .. "\t" .. NUMBER
local PARTY = "[%w_%-%.][%w_%-%.,]*"
local FORMS = {
  confirm = STEP .. "\t[01]", release = STEP, cancel = STEP, check_in = STEP, mark_no_show = STEP,
  reschedule = NAME .. "\t" .. NUMBER .. "\t" .. MAYBE_APPLICANT .. "\t" .. NUMBER .. "\t" .. CHOICE,
  expire = NUMBER .. "\t" .. NUMBER,
  set_rules = string.rep(NUMBER .. "\t", 10) .. "[%d:,]*\t[%w_%-]*",
  publish = NUMBER .. "\t[^\t\n]+\t[^\t\n]+",
  set_capacity = NUMBER .. "\t" .. NAME .. "\t" .. NUMBER,
  close_day = NUMBER, open_day = NUMBER,
  pass_on_unused = NUMBER .. "\t" .. NAME, return_parked = NUMBER .. "\t" .. NAME,
  reserve_until = concat({ NUMBER, NAME, NUMBER, PARTY, "[01]", NUMBER, CHOICE }, TAB),
  reacquire_until = NUMBER .. "\t" .. STEP,
  prepare_move = STEP, move_out = STEP,
  move_in = concat({ NAME, NUMBER, PARTY, NUMBER, NUMBER, NUMBER, CHOICE }, TAB),
}
local RESERVE = "^reserve\t(" .. NAME .. ")\t(" .. NUMBER .. ")\t([%w_%-%.][%w_%-%.,]*)\t([01])\t(" .. NUMBER .. ")\t([^\n]+)$"
local CHOICE_ONLY = "^" .. CHOICE .. "$"

-- The fields of a command, or nil if it is none.
local function parse(line)
  local id, number, party, wait, hold_ttl_ms, choice_text = string.match(line, RESERVE)
  if id then
    if not ledger.by_text[choice_text] and not string.match(choice_text, CHOICE_ONLY) then return nil end
    choice_by_text(choice_text)
    local applicants = string.find(party, COMMA, 1, true) and names(party) or { party }
    return { "reserve", id, number, party, wait, hold_ttl_ms, choice_text, applicants = applicants }
  end
  local name = string.match(line, "^[%l_]+")
  local form = name and FORMS[name]
  if not form or not string.match(line, "^[%l_]+\t" .. form .. "$") then return nil end
  return split(line, TAB)
end
