-- codec: how a ledger is written down. Everything is text; numbers are integers below 2^53.
--
-- Fields are set apart by tabs, rows by newlines, names in a list by commas. None of these can occur in an id, a name or a
-- keyed hash. The same layouts stand in codec.py, and the differential tests compare the two.

local TAB, NEWLINE, COMMA = "\t", "\n", ","
local format, concat, sort = string.format, table.concat, table.sort

local STATE_OF_LETTER = {
  W = "WAITING", H = "HELD", C = "CONFIRMED", A = "ATTENDED", N = "NO_SHOW", R = "RELEASED", E = "EXPIRED", X = "CANCELLED",
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

-- A choice: service, service unit, session, channel, group, and its options, "a,b|c" for two of them.
local function choice_of_text(text)
  local fields = split(text, TAB)
  local options = {}
  for index, option in ipairs(split(fields[6], "|")) do
    options[index] = { text = option, quotas = names(option), index = index - 1 }
  end
  return { text = text, options = options }
end

-- A reservation, without its id, which is the field that it stands under.
local function record_of_text(id, text)
  local fields = split(text, TAB)
  local applicants = names(fields[10])
  return {
    id = id,
    day = tonumber(fields[1]),
    version = tonumber(fields[2]),
    state = STATE_OF_LETTER[fields[3]],
    created_at_ms = tonumber(fields[4]),
    deadline_ms = tonumber(fields[5]),
    queue_number = tonumber(fields[6]),
    moves = tonumber(fields[7]),
    choice = fields[8],
    quotas = fields[9],
    party = fields[10],
    applicants = applicants,
    units = #applicants,
  }
end

local function text_of_record(record)
  return concat({
    int(record.day), int(record.version), LETTER_OF_STATE[record.state], int(record.created_at_ms), int(record.deadline_ms),
    int(record.queue_number), int(record.moves), record.choice, record.quotas, record.party,
  }, TAB)
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
