-- codec: how records, days, rules and events are stored. Numbers are integers below 2^53.
--
-- codecs/office_state.py and office_terms.py have the same layouts, and the differential tests compare. The loader defines
-- STATE_OF_LETTER and LETTER_OF_VERB from its tables.
--
-- An office has up to a million records and events, so their texts are short. A state or a verb is a letter, times are in
-- base 36, and no field follows from another. Applicants arrive in a short form; the scripts only compare them.
--
--   record   state and version (behind a dot undo_until_ms, if it has one), day, created_at_ms, deadline_at_ms, index of the
--            choice and letter of the option, applicants. Then the queue number, the moves, the forced moves, the extensions,
--            the number on the wait list, the declined offers and paused_until_ms. Then the former applicants and the queue
--            offsets. Zeros and empty texts at the end are left out. The deadline and undo_until_ms are times since
--            created_at_ms; the deadline is "" if the record never was a hold. Without quotas the option has no letter.
--   event    of a reservation: letter of the verb and time since created_at_ms ("" if none), id, record
--            of anything else: its name, its time in decimal, its fields

local LETTER_OF_STATE = {}
for letter, state in pairs(STATE_OF_LETTER) do LETTER_OF_STATE[state] = letter end

-- Return an integer as text that sorts as the number does, up to 15 digits.
local PADDED = INT == "%d" and "%015d" or "%015.0f"
local function padded(number)
  return format(PADDED, number)
end

-- The digits of base 36. Each one is made when it is first needed.
local DIGITS = setmetatable({}, {
  __index = function(digits, value)
    digits[value] = string.char(value + (value < 10 and 48 or 87))
    return digits[value]
  end,
})

-- Return a time or duration of at least 0 in base 36. tonumber(text, 36) is the inverse. Four digits are made at a time,
-- because each text between costs as much as its digits. The digits in front of them are remembered: in a time, they stay the
-- same for 28 minutes.
local short
local short_front = remembering(function(number) return short(number) end, 500)
function short(number)
  local low = number % 1679616
  local fourth, last_two, last_three = low % 36, low % 1296, low % 46656
  local text = DIGITS[(low - last_three) / 46656] .. DIGITS[(last_three - last_two) / 1296] .. DIGITS[(last_two - fourth) / 36]
    .. DIGITS[fourth]
  if low < number then return short_front((number - low) / 1679616) .. text end
  return (string.gsub(text, "^0+(.)", "%1"))
end

-- The same for durations. At an opening nearly all holds have the same few.
local short_duration = remembering(short, 500)

-- Return a choice of its text: service, service unit, session, channel, group and options. "a,b|c" stands for two options.
local function choice_of_text(text)
  local fields = split(text, TAB)
  local options = {}
  for index, option in ipairs(split(fields[6], "|")) do
    options[index] = { text = option, quotas = names(option), index = int(index - 1), letter = string.char(96 + index) }
  end
  return { text = text, field = "=" .. text, service = fields[1], service_unit = fields[2], session = fields[3], options = options }
end

local RECORD = "^(%u)(%d+)%.?(%w*)\t(%d+)\t(%w+)\t(%w*)\t(%d+)(%l?)\t([^\t]+)(.*)$"
local MORE = "^\t(%d+)" .. string.rep("\t?(%d*)", 6) .. "\t?([^\t]*)\t?([%d,]*)$"

-- Return a record without its quotas, which follow from its choice. The id is the field that the record is stored under.
local function record_without_quotas(id, text)
  local letter, version, undo, day, created, ttl, choice, option, party, more = string.match(text, RECORD)
  local queue_number, moves, forced_moves, extensions, wait_list_number, declines, paused_until_ms, former, queue_offsets
  if more ~= "" then
    queue_number, moves, forced_moves, extensions, wait_list_number, declines, paused_until_ms, former, queue_offsets =
      string.match(more, MORE)
  end
  local created_at_ms, applicants = tonumber(created, 36), names(party)
  return {
    id = id,
    day = tonumber(day),
    version = tonumber(version),
    state = STATE_OF_LETTER[letter],
    created_at_ms = created_at_ms,
    deadline_at_ms = ttl ~= "" and created_at_ms + tonumber(ttl, 36) or 0,
    queue_number = tonumber(queue_number) or 0,
    moves = tonumber(moves) or 0,
    forced_moves = tonumber(forced_moves) or 0,
    extensions = tonumber(extensions) or 0,
    wait_list_number = tonumber(wait_list_number) or 0,
    declines = tonumber(declines) or 0,
    paused_until_ms = tonumber(paused_until_ms) or 0,
    undo_until_ms = undo ~= "" and created_at_ms + tonumber(undo, 36) or 0,
    former = former or "",
    queue_offsets = queue_offsets or "",
    choice = choice,
    option = option,
    party = party,
    applicants = applicants,
    units = #applicants,
  }
end

local function text_of_record(record)
  local head = LETTER_OF_STATE[record.state] .. int(record.version)
  if record.undo_until_ms > 0 then head = head .. "." .. short(record.undo_until_ms - record.created_at_ms) end
  local text = concat({
    head, int(record.day), short(record.created_at_ms),
    record.deadline_at_ms > 0 and short(record.deadline_at_ms - record.created_at_ms) or "", record.choice .. record.option, record.party,
  }, TAB)
  if record.former ~= "" then
    text = concat({
      text, int(record.queue_number), int(record.moves), int(record.forced_moves), int(record.extensions), int(record.wait_list_number),
      int(record.declines), int(record.paused_until_ms), record.former,
    }, TAB)
    return record.queue_offsets ~= "" and text .. TAB .. record.queue_offsets or text
  end
  if record.wait_list_number > 0 then
    text = concat({
      text, int(record.queue_number), int(record.moves), int(record.forced_moves), int(record.extensions), int(record.wait_list_number),
    }, TAB)
    if record.paused_until_ms > 0 then return text .. TAB .. int(record.declines) .. TAB .. int(record.paused_until_ms) end
    return record.declines > 0 and text .. TAB .. int(record.declines) or text
  end
  if record.extensions > 0 then
    return concat({ text, int(record.queue_number), int(record.moves), int(record.forced_moves), int(record.extensions) }, TAB)
  end
  if record.forced_moves > 0 then
    return concat({ text, int(record.queue_number), int(record.moves), int(record.forced_moves) }, TAB)
  end
  if record.moves > 0 then return text .. TAB .. int(record.queue_number) .. TAB .. int(record.moves) end
  if record.queue_number > 0 then return text .. TAB .. int(record.queue_number) end
  return text
end

-- Return the event of a reservation's step as text. text is its record after the step.
local function text_of_event(verb, at_ms, record, text)
  local later_ms = at_ms - record.created_at_ms
  return LETTER_OF_VERB[verb] .. (later_ms > 0 and short(later_ms) or "") .. TAB .. record.id .. TAB .. text
end

-- Return a copy of a record with the next version and some fields changed. Records themselves never change.
local function changed(record, fields)
  local copy = {}
  for key, value in pairs(record) do copy[key] = value end
  for key, value in pairs(fields) do copy[key] = value end
  copy.version = record.version + 1
  return copy
end

-- The first row of a day: closed, last_queue_number, next_due_ms, waiting, departed, revision, last_wait_list_number,
-- opens_at_ms, starts_at_ms, ends_at_ms, forget_at_ms, sessions, guards. A session is "name:ends_at_ms:book_until_ms". A guard is
-- "name/scope"; guards are in the order of the quotas. The second row has the sets of quotas with holds. Each further row is a
-- quota: name, counters, terms. The last of its terms is the scope of a guard: service, service unit and session, separated by
-- slashes. It is "" for other quotas.
local DAY = "^([01])\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t((%d+)\t(%d+)\t(%d+)\t(%d+)\t([^\t\n]*))\t([^\t\n]*)\n([^\n]*)(.*)$"
local QUOTA =
  "^(%d+)\t(%-?%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t(([%l_]+)\t(%d+)\t(%d+)\t([^\t]*)\t(%d+)\t(%d+)\t([^\t\n]*))"

-- Parse the rest of a quota's row, which begins at `from`, behind the quota's name.
local function quota_of_text(name, rows, from)
  local capacity, free, held, confirmed, cooling, parked, free_since_ms, terms, rule, cooling_ms, jitter_ms, reallocate_to,
    reallocate_at_ms, blocks_ms, guard =
    string.match(string.sub(rows, from), QUOTA)
  return {
    name = name,
    capacity = tonumber(capacity),
    free = tonumber(free),
    held = tonumber(held),
    confirmed = tonumber(confirmed),
    cooling = tonumber(cooling),
    parked = tonumber(parked),
    free_since_ms = tonumber(free_since_ms),
    terms = terms,
    rule = rule,
    cooling_ms = tonumber(cooling_ms),
    jitter_ms = tonumber(jitter_ms),
    reallocate_to = reallocate_to,
    reallocate_at_ms = tonumber(reallocate_at_ms),
    blocks_ms = tonumber(blocks_ms),
    guard = guard,
  }
end

-- A day has many quotas and a command needs few of them, so a row is parsed when its quota is first read.
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
  local closed, last_queue_number, next_due_ms, waiting, departed, revision, last_wait_list_number, times, opens_at_ms,
    starts_at_ms, ends_at_ms, forget_at_ms, sessions, guards, due, rows =
    string.match(text, DAY)
  local day = {
    number = number,
    text = int(number),
    closed = closed == "1",
    departed = tonumber(departed),
    last_queue_number = tonumber(last_queue_number),
    next_due_ms = tonumber(next_due_ms),
    waiting = tonumber(waiting),
    revision = tonumber(revision),
    last_wait_list_number = tonumber(last_wait_list_number),
    times = times,
    opens_at_ms = tonumber(opens_at_ms),
    starts_at_ms = tonumber(starts_at_ms),
    ends_at_ms = tonumber(ends_at_ms),
    forget_at_ms = tonumber(forget_at_ms),
    sessions = sessions,
    guards = guards,
    completed_count = 0,
    completed = {}, -- choice -> the choice with the guards that count it
    due = {},
    valid = {}, -- choice -> until when it is valid on this day, and its index if it needs no guards
    valid_count = 0,
    quotas = setmetatable({ rows }, LAZY),
    rows = {}, -- name -> what text_of_quota() remembers
    newly_held = {}, -- names of quotas that got holds since the day was written
  }
  for quotas in string.gmatch(due, "[^\t]+") do day.due[quotas] = true end
  return day
end

-- Return ends_at_ms and book_until_ms of a choice's session; both are the day's end if the day has no such session.
local function session_times(day, choice)
  if day.sessions == "" or choice.session == "" then return day.ends_at_ms, day.ends_at_ms end
  local sessions = COMMA .. day.sessions
  local _, last = string.find(sessions, COMMA .. choice.session .. ":", 1, true)
  if not last then return day.ends_at_ms, day.ends_at_ms end
  local ends_at_ms, book_until_ms = string.match(sessions, "^(%d+):(%d+)", last + 1)
  return tonumber(ends_at_ms), tonumber(book_until_ms)
end

local function is_session_over(day, choice, now_ms)
  local _, book_until_ms = session_times(day, choice)
  return book_until_ms <= now_ms
end

-- Return all quotas of a day in the order of its terms.
local function quotas_of(day)
  if not day.order then
    day.order = {}
    for name in string.gmatch(day.quotas[1], "\n([^\t]+)") do day.order[#day.order + 1] = day.quotas[name] end
  end
  return day.order
end

local COUNTS = INT .. TAB .. INT

-- Return the row of a quota. The day remembers it, because a hold changes two numbers of a few of its quotas. It remembers a list
-- of the row, its parts in front of and behind free and held, and the values. A table with names would take three times the
-- memory. is_only_held is true if nothing but free and held has changed.
local function text_of_quota(day, quota, is_only_held)
  local row, free, held = day.rows[quota.name], quota.free, quota.held
  if not row or not is_only_held and (row[6] ~= quota.capacity or row[7] ~= quota.confirmed or row[8] ~= quota.cooling
      or row[9] ~= quota.parked or row[10] ~= quota.free_since_ms or row[11] ~= quota.terms) then
    row = {
      "", NEWLINE .. quota.name .. TAB .. int(quota.capacity) .. TAB,
      TAB .. int(quota.confirmed) .. TAB .. int(quota.cooling) .. TAB .. int(quota.parked) .. TAB .. int(quota.free_since_ms) .. TAB
        .. quota.terms,
      false, false, quota.capacity, quota.confirmed, quota.cooling, quota.parked, quota.free_since_ms, quota.terms,
    }
    day.rows[quota.name] = row
  end
  if row[4] ~= free or row[5] ~= held then
    row[1], row[4], row[5] = row[2] .. format(COUNTS, free, held) .. row[3], free, held
  end
  return row[1]
end

-- Note that a set of quotas has holds on a day, or (nil) has none. Not every such day is written, so the text no longer proves
-- the day. Another writer may give the set a hold again, and leave the same text.
local function set_due(day, names_of_set, has_holds)
  day.due[names_of_set], day.front, day.written = has_holds, nil, nil
end

-- Read the rows of a day's quotas once, as they were, and note where each quota has its own.
local function split_rows(day)
  local texts, indexes = {}, {}
  if day.order then
    for index, quota in ipairs(day.order) do indexes[quota.name] = index end
  else
    for row, name in string.gmatch(day.quotas[1], "(\n([^\t]+)[^\n]*)") do
      texts[#texts + 1] = row
      indexes[name] = #texts
    end
  end
  day.row_texts, day.row_indexes = texts, indexes
end

-- Return a day as text. The rows in front of its quotas are remembered until mark_changed() forgets them. While they are known,
-- only holds were added, on the quotas of day.newly_held. Rows that no command parsed are copied as they were.
local function text_of_day(day)
  if not day.row_texts then split_rows(day) end
  local front, texts = day.front, day.row_texts
  for name in next, front and day.newly_held or day.row_indexes do
    local quota = rawget(day.quotas, name)
    if quota then texts[day.row_indexes[name]] = text_of_quota(day, quota, front) end
  end
  if next(day.newly_held) then day.newly_held = {} end
  if not front then
    local due = {}
    for names_of_set in pairs(day.due) do due[#due + 1] = names_of_set end
    front = (day.closed and "1\t" or "0\t") .. int(day.last_queue_number) .. TAB .. int(day.next_due_ms) .. TAB
      .. int(day.waiting) .. TAB .. int(day.departed) .. TAB .. int(day.revision) .. TAB .. int(day.last_wait_list_number) .. TAB
      .. day.times .. TAB .. day.guards .. NEWLINE .. concat(due, TAB)
    day.front = front
  end
  return front .. (texts[2] and concat(texts) or texts[1])
end

-- hold_ttl_ms, offer_ttl_ms, extensions_max, extension_ms, party_max, no_show_block_ms, cancellations_max, cancellations_window_ms,
-- cancellations_block_ms, abandoned_holds_max, abandoned_holds_window_ms, abandoned_holds_block_ms, reschedules_max, reschedule_before_ms, wait_list_max, declines_max, decline_pause_ms,
-- undo_window_ms, identity_limits ("places:days" each), jitter_seed
local RULES = "^" .. string.rep("(%d+)\t", 18) .. "([^\t]*)\t(.*)$"

local function rules_of_text(text)
  local hold_ttl_ms, offer_ttl_ms, extensions_max, extension_ms, party_max, no_show_block_ms, cancellations_max, cancellations_window_ms, cancellations_block_ms,
    abandoned_holds_max, abandoned_holds_window_ms, abandoned_holds_block_ms, reschedules_max, reschedule_before_ms, wait_list_max,
    declines_max, decline_pause_ms, undo_window_ms, limits_text, jitter_seed = string.match(text, RULES)
  local limits = {}
  for places, span in string.gmatch(limits_text, "(%d+):(%d+)") do
    limits[#limits + 1] = { places_max = tonumber(places), span_days = tonumber(span) }
  end
  return {
    text = text,
    hold_ttl_ms = tonumber(hold_ttl_ms),
    offer_ttl_ms = tonumber(offer_ttl_ms),
    extensions_max = tonumber(extensions_max),
    extension_ms = tonumber(extension_ms),
    party_max = tonumber(party_max),
    no_show_block_ms = tonumber(no_show_block_ms),
    cancellations_max = tonumber(cancellations_max),
    cancellations_window_ms = tonumber(cancellations_window_ms),
    cancellations_block_ms = tonumber(cancellations_block_ms),
    abandoned_holds_max = tonumber(abandoned_holds_max),
    abandoned_holds_window_ms = tonumber(abandoned_holds_window_ms),
    abandoned_holds_block_ms = tonumber(abandoned_holds_block_ms),
    reschedules_max = tonumber(reschedules_max),
    reschedule_before_ms = tonumber(reschedule_before_ms),
    wait_list_max = tonumber(wait_list_max),
    declines_max = tonumber(declines_max),
    decline_pause_ms = tonumber(decline_pause_ms),
    undo_window_ms = tonumber(undo_window_ms),
    identity_limits = limits,
    jitter_seed = jitter_seed,
  }
end
