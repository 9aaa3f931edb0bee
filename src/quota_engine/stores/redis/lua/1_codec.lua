-- codec: how a ledger is written down. Everything is text; numbers are integers below 2^53.
--
-- Fields are set apart by tabs, rows by newlines, names in a list by commas. None of these can occur in an id, a name or a
-- keyed hash. The same layouts stand in codec.py, and the differential tests compare the two.
--
-- What there is a million of, records and their events, is kept short: a letter for a state or a verb, times in base 36, nothing that
-- follows from the rest. Applicants come from codec.py in a short form, which means nothing here.
--
--   record   state and version, day, created_at_ms, deadline_ms as what came after created_at_ms ("" if it never was a hold), index
--            of the choice and letter of the option ("" if it has no quotas), applicants; queue number and moves, if there are any
--   event    of a reservation: letter of the verb and how long after created_at_ms it was ("" if at once), id, record;
--            any other: its name, the time in decimal, its fields

local TAB, NEWLINE, COMMA = "\t", "\n", ","
local format, concat, sort = string.format, table.concat, table.sort

local STATE_OF_LETTER = {
  W = "WAITING", H = "HELD", C = "CONFIRMED", A = "ATTENDED", N = "NO_SHOW", R = "RELEASED", E = "EXPIRED", X = "CANCELLED",
  M = "MOVED",
}
local LETTER_OF_STATE = {}
for letter, state in pairs(STATE_OF_LETTER) do LETTER_OF_STATE[state] = letter end

-- An integer as text. (tostring would write 1e+15 for a large one.)
local function int(number)
  return format("%.0f", number)
end

-- An integer that sorts as text as it does as a number, up to 15 digits.
local function padded(number)
  return format("%015.0f", number)
end

local function split(text, separator)
  local parts, count, from = {}, 0, 1
  while true do
    local at = string.find(text, separator, from, true)
    count = count + 1
    if not at then
      parts[count] = string.sub(text, from)
      return parts
    end
    parts[count] = string.sub(text, from, at - 1)
    from = at + 1
  end
end

local function names(text)
  if text == "" then return {} end
  return split(text, COMMA)
end

local DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

-- A time or a duration in base 36, for what there are many of; tonumber(text, 36) is the way back. Not below 0.
local function short(number)
  local text = ""
  repeat
    local digit = number % 36
    text = string.sub(DIGITS, digit + 1, digit + 1) .. text
    number = (number - digit) / 36
  until number == 0
  return text
end

-- A choice: service, service unit, session, channel, group, and its options, "a,b|c" for two of them.
local function choice_of_text(text)
  local fields = split(text, TAB)
  local options = {}
  for index, option in ipairs(split(fields[6], "|")) do
    options[index] = { text = option, quotas = names(option), index = index - 1, letter = string.char(96 + index) }
  end
  return { text = text, options = options }
end

local RECORD = "^(%u)(%d+)\t(%d+)\t(%w+)\t(%w*)\t(%d+)(%l?)\t([^\t]+)\t?(%d*)\t?(%d*)$"

-- A reservation, without its id, which is the field that it stands under, and its quotas, for which its choice has to be looked up.
local function record_without_quotas(id, text)
  local letter, version, day, created, lasting, choice, option, party, queue_number, moves = string.match(text, RECORD)
  local created_at_ms, applicants = tonumber(created, 36), names(party)
  return {
    id = id,
    day = tonumber(day),
    version = tonumber(version),
    state = STATE_OF_LETTER[letter],
    created_at_ms = created_at_ms,
    deadline_ms = lasting ~= "" and created_at_ms + tonumber(lasting, 36) or 0,
    queue_number = tonumber(queue_number) or 0,
    moves = tonumber(moves) or 0,
    choice = choice,
    option = option,
    party = party,
    applicants = applicants,
    units = #applicants,
  }
end

local function text_of_record(record)
  local text = concat({
    LETTER_OF_STATE[record.state] .. int(record.version), int(record.day), short(record.created_at_ms),
    record.deadline_ms > 0 and short(record.deadline_ms - record.created_at_ms) or "", record.choice .. record.option, record.party,
  }, TAB)
  if record.moves > 0 then return text .. TAB .. int(record.queue_number) .. TAB .. int(record.moves) end
  if record.queue_number > 0 then return text .. TAB .. int(record.queue_number) end
  return text
end

local LETTER_OF_VERB = {
  reserve = "R", wait = "W", offer = "O", confirm = "C", reacquire = "Q", release = "L", expire = "E", cancel = "X", reschedule = "M",
  check_in = "A", mark_no_show = "N", move_in = "I", move_in_confirmed = "J", move_out = "U",
  undo_move = "B",
}

-- The event of a reservation's step; text is its record after it.
local function text_of_change(verb, at_ms, record, text)
  local later_ms = at_ms - record.created_at_ms
  return LETTER_OF_VERB[verb] .. (later_ms > 0 and short(later_ms) or "") .. TAB .. record.id .. TAB .. text
end

-- A copy of a record with the next version and some fields changed, as records never change themselves.
local function changed(record, fields)
  local copy = {}
  for key, value in pairs(record) do copy[key] = value end
  for key, value in pairs(fields) do copy[key] = value end
  copy.version = record.version + 1
  return copy
end

-- A day: a row of its own (closed, last_queue_number, next_due_ms, waiting, opens_at_ms, starts_at_ms, ends_at_ms, forget_at_ms), a row
-- of the sets of quotas that holds are on, and a row a quota: its name, counters and terms.
local DAY = "^([01])\t(%d+)\t(%d+)\t(%d+)\t((%d+)\t(%d+)\t(%d+)\t(%d+))\n([^\n]*)(.*)$"
local QUOTA = "^(%d+)\t(%-?%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(([%l_]+)\t(%d+)\t(%d+)\t([^\t]*)\t(%d+))"

-- A quota, of what stands in a day's rows from this place on, behind its name.
local function quota_of_text(name, rows, from)
  local capacity, free, held, confirmed, cooling, parked, terms, rule, cooling_ms, jitter_ms, reallocate_to, reallocate_at_ms =
    string.match(string.sub(rows, from), QUOTA)
  return {
    name = name,
    capacity = tonumber(capacity),
    free = tonumber(free),
    held = tonumber(held),
    confirmed = tonumber(confirmed),
    cooling = tonumber(cooling),
    parked = tonumber(parked),
    terms = terms,
    rule = rule,
    cooling_ms = tonumber(cooling_ms),
    jitter_ms = tonumber(jitter_ms),
    reallocate_to = reallocate_to,
    reallocate_at_ms = tonumber(reallocate_at_ms),
  }
end

-- A day has many quotas and a command needs few of them: a row is taken apart when its quota is asked for.
local LAZY = {
  __index = function(quotas, name)
    local rows = quotas[1]
    local _, before = string.find(rows, NEWLINE .. name .. TAB, 1, true)
    if not before then return nil end
    local quota = quota_of_text(name, rows, before + 1)
    quotas[name] = quota
    return quota
  end,
}

local function day_of_text(number, text)
  local closed, last_queue_number, next_due_ms, waiting, times, opens_at_ms, starts_at_ms, ends_at_ms, forget_at_ms, due, rows =
    string.match(text, DAY)
  local day = {
    number = number,
    text = int(number),
    closed = closed == "1",
    last_queue_number = tonumber(last_queue_number),
    next_due_ms = tonumber(next_due_ms),
    waiting = tonumber(waiting),
    times = times,
    opens_at_ms = tonumber(opens_at_ms),
    starts_at_ms = tonumber(starts_at_ms),
    ends_at_ms = tonumber(ends_at_ms),
    forget_at_ms = tonumber(forget_at_ms),
    due = {},
    quotas = setmetatable({ rows }, LAZY),
  }
  for quotas in string.gmatch(due, "[^\t]+") do day.due[quotas] = true end
  return day
end

-- All quotas of a day, in the order of its terms.
local function quotas_of(day)
  if not day.order then
    day.order = {}
    for name in string.gmatch(day.quotas[1], "\n([^\t]+)") do day.order[#day.order + 1] = day.quotas[name] end
  end
  return day.order
end

local function text_of_quota(quota)
  return format("\n%s\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%s", quota.name, quota.capacity, quota.free, quota.held, quota.confirmed,
    quota.cooling, quota.parked, quota.terms)
end

-- Only what was taken apart is put together again: the other rows are as they were.
local function text_of_day(day)
  local due, rows, quotas = {}, nil, day.quotas
  for names_of_set in pairs(day.due) do due[#due + 1] = names_of_set end
  if day.order then
    rows = {}
    for index, quota in ipairs(day.order) do rows[index] = text_of_quota(quota) end
    rows = concat(rows)
  else
    rows = string.gsub(quotas[1], "\n([^\t]+)[^\n]*", function(name)
      local quota = rawget(quotas, name)
      return quota and text_of_quota(quota)
    end)
  end
  return format("%s\t%.0f\t%.0f\t%.0f\t%s\n%s%s", day.closed and "1" or "0", day.last_queue_number, day.next_due_ms, day.waiting,
    day.times, concat(due, TAB), rows)
end

-- hold_ttl_ms, offer_ttl_ms, party_max, no_show_block_ms, cancellations_max, cancellations_window_ms, cancellations_block_ms,
-- reschedules_max, reschedule_before_ms, wait_list_max, identity_limits ("places:days" each), jitter_seed
local RULES = "^" .. string.rep("(%d+)\t", 10) .. "([^\t]*)\t(.*)$"

local function rules_of_text(text)
  local hold_ttl_ms, offer_ttl_ms, party_max, no_show_block_ms, cancellations_max, cancellations_window_ms, cancellations_block_ms,
    reschedules_max, reschedule_before_ms, wait_list_max, limits_text, jitter_seed = string.match(text, RULES)
  local limits = {}
  for places, span in string.gmatch(limits_text, "(%d+):(%d+)") do
    limits[#limits + 1] = { places_max = tonumber(places), span_days = tonumber(span) }
  end
  return {
    text = text,
    hold_ttl_ms = tonumber(hold_ttl_ms),
    offer_ttl_ms = tonumber(offer_ttl_ms),
    party_max = tonumber(party_max),
    no_show_block_ms = tonumber(no_show_block_ms),
    cancellations_max = tonumber(cancellations_max),
    cancellations_window_ms = tonumber(cancellations_window_ms),
    cancellations_block_ms = tonumber(cancellations_block_ms),
    reschedules_max = tonumber(reschedules_max),
    reschedule_before_ms = tonumber(reschedule_before_ms),
    wait_list_max = tonumber(wait_list_max),
    identity_limits = limits,
    jitter_seed = jitter_seed,
  }
end
