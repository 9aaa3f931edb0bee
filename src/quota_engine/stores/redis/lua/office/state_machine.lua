-- state_machine: the reservation rules, one function for each command. Mirrors domain/state_machine.py,
-- reserve_command.py and reservation_steps.py function by function; docs/rules.md states the same rules in words.
--
-- Each handler takes the command's fields (the first is its name) and the time. It returns an outcome: status, record,
-- flags ("p" replayed, "s" resumed), retry_at_ms, units, overbooked, announced (see penalties.lua); or the whole reply line. Statuses are checked in the
-- order of their precedence. A handler checks everything first; below "From here on it must succeed" nothing can fail.

local NOTHING = {}
local RESULT_OF_VERB = {
  confirm = "CONFIRMED", release = "RELEASED", cancel = "CANCELLED", check_in = "ATTENDED", mark_no_show = "NO_SHOW",
  move_out = "MOVED", undo_move = "RELEASED", decline = "WAITING", undo_attendance = "CONFIRMED",
}
local FROM = { -- the life cycle: which states a verb leads out of
  confirm = { HELD = true }, extend = { HELD = true },
  remove_applicant = { WAITING = true, HELD = true, CONFIRMED = true },
  replace_applicant = { WAITING = true, HELD = true, CONFIRMED = true }, release = { HELD = true, WAITING = true }, cancel = { CONFIRMED = true },
  check_in = { CONFIRMED = true }, mark_no_show = { CONFIRMED = true }, undo_attendance = { ATTENDED = true, NO_SHOW = true }, reschedule = { HELD = true, CONFIRMED = true },
  move_out = { HELD = true, CONFIRMED = true }, undo_move = { HELD = true, CONFIRMED = true }, decline = { HELD = true }, stay = { CONFIRMED = true },
}
local GIVING_BACK = { release = true, decline = true, cancel = true, move_out = true, undo_move = true }

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

-- Return the status that refuses all reserves of this day and choice now, and the time to retry at; or nil.
local function refuse_day(day, choice, now_ms)
  for _, option in ipairs(choice.options) do
    for _, name in ipairs(option.quotas) do
      if not day.quotas[name] then return "UNKNOWN_QUOTA", 0 end
    end
  end
  if day.closed then return "DAY_CLOSED", 0 end
  if now_ms >= day.ends_at_ms then return "DAY_OVER", 0 end
  if is_session_over(day, choice, now_ms) then return "SESSION_OVER", 0 end
  if now_ms < day.opens_at_ms then return "NOT_OPEN", day.opens_at_ms end
  return nil
end

local function blocked_until_ms(applicants, now_ms)
  if ledger.has_penalties == nil then ledger.has_penalties = call("HLEN", PENALTIES) > 1 end
  if not ledger.has_penalties then return 0 end
  local until_ms = 0
  for _, applicant in ipairs(applicants) do
    local penalty = penalty_text(applicant)
    if penalty then until_ms = math.max(until_ms, tonumber(string.match(penalty, "^%d+"))) end
  end
  return until_ms > now_ms and until_ms or 0
end

-- Return an active reservation that reaches an identity limit of one of the applicants for this day, or nil.
local function conflicting_claim(applicants, number, now_ms, except_id)
  for _, applicant in ipairs(applicants) do
    local claims = {}
    find_claim(applicant, now_ms, function(record)
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

-- Return true if the record was made for the command's party, as far as the record says.
local function is_party_of(record, command)
  if record.former == "" then return same_party(record, command) end
  local members = {}
  for _, applicant in ipairs(record.applicants) do members[applicant] = true end
  for _, applicant in ipairs(names(record.former)) do members[applicant] = true end
  for _, applicant in ipairs(command.applicants) do
    if not members[applicant] then return false end
  end
  return true
end

-- Return true if a choice is that of the record, with or without the guards that count it.
local function is_same_choice(record, choice)
  local text = choice_of(record.choice).text
  return text == choice.text or text == complete_choice(day_of(record.day), choice).text
end

local function replay_reserve(known, command, now_ms)
  local record = settle_reservation(known, now_ms)
  if not is_party_of(record, command) then return outcome("CONFLICT") end
  if record.moves == 0 and not (record.day == command.day
      and is_same_choice(record, command.choice)) then
    return outcome("CONFLICT")
  end
  if not ACTIVE[record.state] then return outcome("RESERVATION_ENDED", record, { flags = "p" }) end
  local result = outcome(record.state, record, { flags = "p" })
  if record.state == "HELD" and ledger.rules.abandoned_holds_max > 0 then
    penalties().expire_own_holds(record.applicants, now_ms)
    return penalties().announce(result, now_ms)
  end
  return result
end

local function has_claims(applicants)
  for index = 1, #applicants do
    if claims_text(applicants[index]) then return true end
  end
  return false
end

local function resumable_reservation(command, now_ms)
  return find_claim(command.applicants[1], now_ms, function(record)
    if record.day == command.day and (record.state == "WAITING" or record.state == "HELD")
        and same_party(record, command) then
      return record
    end
  end)
end

local function resume_or_refuse(command, now_ms)
  local mine = resumable_reservation(command, now_ms)
  if mine then
    local result = outcome(mine.state, mine, { flags = "s" })
    if mine.state ~= "HELD" or ledger.rules.abandoned_holds_max == 0 then return result end
    return penalties().announce(result, now_ms)
  end
  local conflicting = conflicting_claim(command.applicants, command.day, now_ms, "")
  if not conflicting then return nil end
  return outcome("IDENTITY_LIMIT", same_party(conflicting, command) and conflicting or nil)
end

local VALID_CHOICES_MAX = 20 -- that a day remembers
local SOLD_OUT = "SOLD_OUT\t\t0\t0\t0"

-- Return the deadline of a hold that lasts hold_ttl_ms; 0 means the office's time. It has the texts that all such holds of a call
-- share: its digits for the due holds, the times of a record, and the beginning of a reply. Only the last deadline is
-- remembered, because nearly all holds of a call last equally long.
local function deadline_of(hold_ttl_ms, now_ms)
  local deadline = ledger.deadline
  if not deadline or ledger.deadline_ttl_ms ~= hold_ttl_ms then
    local ttl_ms = hold_ttl_ms > 0 and hold_ttl_ms or ledger.rules.hold_ttl_ms
    local at_ms = now_ms + ttl_ms
    deadline = {
      at_ms = at_ms, digits = padded(at_ms), times = TAB .. short(now_ms) .. TAB .. short_duration(ttl_ms) .. TAB,
      line = "NEW\t" .. int(now_ms) .. TAB .. int(at_ms) .. TAB,
    }
    ledger.deadline, ledger.deadline_ttl_ms = deadline, hold_ttl_ms
  end
  return deadline
end

-- fields: "reserve", id, day, party, options: see known_options(); and its applicants by name
local function reserve(fields, now_ms)
  local id, number, party, options = fields[2], fields[3], fields[4], fields[5]
  local choice, day_number, applicants = options.choice, known_number(number), fields.applicants
  local known, rest = record_of(id)
  if known then
    return replay_reserve(known, { day = day_number, party = party, applicants = applicants, choice = choice }, now_ms)
  end
  local day = day_of(day_number)
  if not day then return outcome("UNKNOWN_DAY") end
  if now_ms >= day.next_due_ms then settle(day, now_ms, SETTLE_MAX) end
  local valid = day.valid[choice]
  if not valid or day.closed or now_ms < day.opens_at_ms or now_ms >= valid.until_ms then
    local refusal, retry_at_ms = refuse_day(day, choice, now_ms)
    if refusal then return outcome(refusal, nil, { retry_at_ms = retry_at_ms }) end
    local _, until_ms = session_times(day, choice)
    valid = { until_ms = until_ms }
    if day.valid_count >= VALID_CHOICES_MAX then day.valid, day.valid_count = {}, 0 end
    day.valid[choice], day.valid_count = valid, day.valid_count + 1
  end
  local units, rules = #applicants, ledger.rules
  if units > rules.party_max then return outcome("PARTY_TOO_LARGE") end
  if rules.abandoned_holds_max > 0 and has_claims(applicants) then penalties().expire_own_holds(applicants, now_ms) end
  if ledger.has_penalties ~= false then
    local until_ms = blocked_until_ms(applicants, now_ms)
    if until_ms > 0 then return outcome("BLOCKED", nil, { retry_at_ms = until_ms }) end
  end
  if has_claims(applicants) then
    local refused = resume_or_refuse({ day = day_number, party = party, applicants = applicants }, now_ms)
    if refused then return refused end
  end
  local given = choice
  choice = complete_choice(day, choice)
  local option = find_option(day, choice, units, now_ms, NOTHING)
  if not option then
    if not options.joins_wait_list or not served_by_wait_list(day, choice) then return SOLD_OUT end
    if day.waiting >= rules.wait_list_max or not wait_list().has_room_for_demand(day, choice, units, now_ms) then
      return outcome("WAIT_LIST_FULL")
    end
  end

  -- From here on it must succeed.
  if rest then purge_record(rest) end
  if not option then
    local waiting = {
      id = id, day = day_number, version = 1, state = "WAITING", created_at_ms = now_ms, deadline_at_ms = 0, queue_number = 0,
      moves = 0, forced_moves = 0, extensions = 0, wait_list_number = day.last_wait_list_number + 1, declines = 0, paused_until_ms = 0, undo_until_ms = 0,
      former = "", queue_offsets = "",
      choice = index_of(choice, day_number), option = "", quotas = "", party = party, applicants = applicants, units = units,
    }
    reservation_changed("wait", nil, waiting, now_ms)
    wait_list().note_join(day)
    return outcome("WAITING", waiting)
  end
  local deadline = deadline_of(options.hold_ttl_ms, now_ms)
  -- The same text as text_of_record's, made of texts that exist already.
  local index = index_of(choice, day_number)
  if choice == given then valid.index = index end
  local text = "H1\t" .. number .. deadline.times .. index .. option.letter .. TAB .. party
  reservation_held(day, option, id, applicants, text, now_ms, deadline)
  if choice ~= given then -- the caller does not have the choice of the record
    local held = outcome("HELD", record_of_text(id, text))
    return rules.abandoned_holds_max > 0 and penalties().announce(held, now_ms) or held
  end
  local line = deadline.line .. option.index
  if rules.extensions_max > 0 then line = line .. TAB .. int(rules.extensions_max) end
  if rules.abandoned_holds_max > 0 and ledger.has_penalties then
    local left, until_ms = penalties().announcement(applicants, now_ms, deadline.at_ms)
    if left then return line .. TAB .. int(left) .. TAB .. int(until_ms) end
  end
  return line
end

local function is_owner(record, owner)
  if owner == "" then return true end
  for _, applicant in ipairs(record.applicants) do
    if applicant == owner then return true end
  end
  return false
end

local function reacquire(record, now_ms)
  if ledger.rules.abandoned_holds_max > 0 then penalties().expire_own_holds(record.applicants, now_ms) end
  local day, option = day_of(record.day), nil
  local choice = choice_of(record.choice)
  if not refuse_day(day, choice, now_ms) and blocked_until_ms(record.applicants, now_ms) == 0
      and not conflicting_claim(record.applicants, record.day, now_ms, "") then
    option = find_option(day, choice, record.units, now_ms, NOTHING)
  end
  if not option then return outcome("HOLD_EXPIRED", record) end

  -- From here on it must succeed.
  local confirmed = changed(record, {
    quotas = option.text, option = option.letter, state = "CONFIRMED", queue_number = day.last_queue_number + 1,
  })
  reservation_changed("reacquire", record, confirmed, now_ms)
  return outcome("CONFIRMED", confirmed)
end

local GUARDS = {
  confirm = function(day, now_ms, record)
    if day.closed then return "DAY_CLOSED" end
    if now_ms >= day.ends_at_ms then return "DAY_OVER" end
    if now_ms >= session_times(day, choice_of(record.choice)) then return "SESSION_OVER" end
  end,
  release = function() end,
  cancel = function(day, now_ms)
    if now_ms >= day.ends_at_ms and not day.closed then return "DAY_OVER" end
  end,
  check_in = function(day, now_ms)
    if now_ms >= day.ends_at_ms then return "DAY_OVER" end
    if now_ms < day.starts_at_ms then return "TOO_EARLY" end
  end,
  mark_no_show = function(day, now_ms)
    if day.closed then return "DAY_CLOSED" end
    if now_ms < day.starts_at_ms then return "TOO_EARLY" end
  end,
  move_out = function() end,
  undo_move = function() end,
}

-- fields: verb, id, owner, version; for a confirm "1" if it may reacquire, and optionally the last moment for that
local function step(fields, now_ms)
  local verb, owner, version = fields[1], fields[3], tonumber(fields[4])
  local known = record_of(fields[2])
  if not known then return outcome("NOT_FOUND") end
  local record = settle_reservation(known, now_ms)
  if not is_owner(record, owner) then return outcome("NOT_OWNER") end
  local goal = RESULT_OF_VERB[verb]
  local is_announced = verb == "release" and ledger.rules.abandoned_holds_max > 0
  if is_announced then
    penalties().expire_own_holds(record.applicants, now_ms)
    record = record_of(record.id) -- the wait list may have been served
  end
  if record.state == goal then
    local result = outcome(goal, record, { flags = "p" })
    return is_announced and penalties().announce(result, now_ms) or result
  end
  if record.state == "EXPIRED" then
    if fields[5] == "1" then
      if fields[6] and now_ms > tonumber(fields[6]) then return outcome("COMMAND_EXPIRED", record) end
      return reacquire(record, now_ms)
    end
    return outcome("HOLD_EXPIRED", record)
  end
  if version > 0 and version ~= record.version then return outcome("STALE", record) end
  if not FROM[verb][record.state] or (verb == "decline" and record.wait_list_number == 0) then
    return outcome("WRONG_STATE", record)
  end
  local day = day_of(record.day)
  local refusal = GUARDS[verb](day, now_ms, record)
  if refusal then return outcome(refusal, record) end
  if verb == "decline" and record.declines >= ledger.rules.declines_max then return outcome("DECLINES_EXCEEDED", record) end

  -- From here on it must succeed.
  local after = changed(record, { state = goal })
  if verb == "confirm" then after.queue_number = day.last_queue_number + 1 end
  if verb == "decline" then
    after.quotas, after.option, after.deadline_at_ms, after.extensions = "", "", 0, 0
    after.declines, after.paused_until_ms = record.declines + 1, now_ms + ledger.rules.decline_pause_ms
  end
  after.undo_until_ms = (verb == "check_in" or verb == "mark_no_show") and now_ms + ledger.rules.undo_window_ms or 0
  reservation_changed(verb, record, after, now_ms)
  if GIVING_BACK[verb] then distribute_free_units(day, now_ms) end
  local result = outcome(goal, after)
  return is_announced and penalties().announce(result, now_ms) or result
end

-- The form of each command. Every command of a call is checked before the first one is applied: an error halfway through a
-- script leaves its earlier writes in place. A number is captured and its length checked afterwards, because a pattern that
-- bounds it would try millions of ways to match a line that does not fit.
local NAME, MAYBE_APPLICANT, NUMBER = "[%w_%-]+", "[%w_%-%.]*", "(%d+)"
local CHOICE = string.rep("[%w_%-]*\t", 5) .. "[%w_%-][%w_%-,|]*"
local STEP = NAME .. "\t" .. MAYBE_APPLICANT .. "\t" .. NUMBER
local PARTY = "[%w_%-%.][%w_%-%.,]*"
local HANDLERS = { reserve = reserve, confirm = step, release = step, cancel = step, check_in = step, mark_no_show = step, move_out = step }
local FORMS = { confirm = STEP .. "\t[01]", release = STEP, cancel = STEP, check_in = STEP, mark_no_show = STEP, move_out = STEP }

-- Creating a function costs as much as a server call, and each call of the script creates them again. So the functions that
-- an opening does not need are created when one of them is called. The loader defines rare_commands() from
-- deadline_commands.lua, moves.lua and operator_commands.lua, and load_publication() from publication.lua.
local rare_commands, load_publication
local function load_rare_commands(table, name)
  if rare_commands then
    rare_commands(HANDLERS, FORMS)
    rare_commands = nil
  end
  return rawget(table, name)
end
setmetatable(HANDLERS, { __index = load_rare_commands })
setmetatable(FORMS, { __index = load_rare_commands })

local RESERVE = "^reserve\t(" .. NAME .. ")\t" .. NUMBER .. "\t(" .. PARTY .. ")\t()"
local OPTIONS = "^([01])\t" .. NUMBER .. "\t(" .. CHOICE .. ")$"
-- The fields of a reserve behind the party, or nil if the text is not them. Nearly all callers share them, so they are checked
-- when they are first seen.
local known_options = remembering(function(text)
  local joins_wait_list, hold_ttl_ms, choice_text = string.match(text, OPTIONS)
  if not choice_text or #hold_ttl_ms > DIGITS_MAX then return nil end
  return { joins_wait_list = joins_wait_list == "1", hold_ttl_ms = tonumber(hold_ttl_ms), choice = choice_by_text(choice_text) }
end, KNOWN_TEXTS_MAX)

local function reserve_fields(id, number, party, options)
  local applicants = string.find(party, COMMA, 1, true) and names(party) or { party }
  return { "reserve", id, number, party, options, applicants = applicants }
end

-- Return the fields of a command, or nil if the line is not one.
local function parse(line)
  local id, number, party, options_from = string.match(line, RESERVE)
  if id then
    local options = known_options(string.sub(line, options_from))
    return options and #number <= DIGITS_MAX and reserve_fields(id, number, party, options) or nil
  end
  local name = string.match(line, "^[%l_]+")
  local form = name and FORMS[name]
  if not form then return nil end
  local numbers = { string.match(line, "^[%l_]+\t" .. form .. "$") }
  if #numbers == 0 then return nil end
  for _, number in ipairs(numbers) do
    if #number > DIGITS_MAX then return nil end
  end
  return split(line, TAB)
end
