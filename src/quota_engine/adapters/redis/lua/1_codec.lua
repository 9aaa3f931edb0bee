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

-- A day: a row of its own, a row a quota, and the sets of quotas that holds are on.
local function day_of_text(number, text)
  local rows = split(text, NEWLINE)
  local fields = split(rows[1], TAB)
  local day = {
    number = number,
    text = int(number),
    closed = fields[1] == "1",
    last_queue_number = tonumber(fields[2]),
    next_due_ms = tonumber(fields[3]),
    waiting = tonumber(fields[4]),
    opens_at_ms = tonumber(fields[5]),
    starts_at_ms = tonumber(fields[6]),
    ends_at_ms = tonumber(fields[7]),
    forget_at_ms = tonumber(fields[8]),
    due = {},
    quotas = {},
    order = {},
  }
  for _, quotas in ipairs(split(rows[2], TAB)) do
    if quotas ~= "" then day.due[quotas] = true end
  end
  for row = 3, #rows do
    local quota_fields = split(rows[row], TAB)
    local quota = {
      name = quota_fields[1],
      capacity = tonumber(quota_fields[2]),
      free = tonumber(quota_fields[3]),
      held = tonumber(quota_fields[4]),
      confirmed = tonumber(quota_fields[5]),
      cooling = tonumber(quota_fields[6]),
      parked = tonumber(quota_fields[7]),
      rule = quota_fields[8],
      cooling_ms = tonumber(quota_fields[9]),
      jitter_ms = tonumber(quota_fields[10]),
      pass_to = quota_fields[11],
      pass_at_ms = tonumber(quota_fields[12]),
    }
    day.order[#day.order + 1] = quota
    day.quotas[quota.name] = quota
  end
  return day
end

local function text_of_day(day)
  local due = {}
  for quotas in pairs(day.due) do due[#due + 1] = quotas end
  local rows = {
    concat({
      day.closed and "1" or "0", int(day.last_queue_number), int(day.next_due_ms), int(day.waiting), int(day.opens_at_ms),
      int(day.starts_at_ms), int(day.ends_at_ms), int(day.forget_at_ms),
    }, TAB),
    concat(due, TAB),
  }
  for _, quota in ipairs(day.order) do
    rows[#rows + 1] = concat({
      quota.name, int(quota.capacity), int(quota.free), int(quota.held), int(quota.confirmed), int(quota.cooling),
      int(quota.parked), quota.rule, int(quota.cooling_ms), int(quota.jitter_ms), quota.pass_to, int(quota.pass_at_ms),
    }, TAB)
  end
  return concat(rows, NEWLINE)
end

local function rules_of_text(text)
  local fields = split(text, TAB)
  local limits = {}
  for index, limit in ipairs(names(fields[11])) do
    local places, span = string.match(limit, "^(%d+):(%d+)$")
    limits[index] = { places_max = tonumber(places), span_days = tonumber(span) }
  end
  return {
    text = text,
    hold_ttl_ms = tonumber(fields[1]),
    offer_ttl_ms = tonumber(fields[2]),
    party_max = tonumber(fields[3]),
    no_show_block_ms = tonumber(fields[4]),
    cancellations_max = tonumber(fields[5]),
    cancellations_window_ms = tonumber(fields[6]),
    cancellations_block_ms = tonumber(fields[7]),
    reschedules_max = tonumber(fields[8]),
    reschedule_before_ms = tonumber(fields[9]),
    wait_list_max = tonumber(fields[10]),
    identity_limits = limits,
    jitter_seed = fields[12],
  }
end
