-- ledger: the state of one office, read from its keys once for each call, and the events that change it. Mirrors
-- domain/ledger.py, claims.py, returned_units.py and event_handlers.py.
--
-- KEYS  1 head       hash    now_ms and number of the last event, rules, forgotten_day_max, next_forget_ms, cursor of the purge.
--                            Abandoned: holds released, holds expired and blocks that followed, separated by commas.
--                            write_id: the unique id of the last write, see begin_call()
--       2 days       hash    day -> its counters (see codec.lua); "t" .. day -> its published terms
--       3 records    hash    id -> reservation
--       4 claims     hash    applicant -> ids of their active reservations
--       5 penalties  hash    applicant -> the end of their block, and the ends that may lead to one; see penalties.lua
--       6 due        zset    day / quotas / deadline / id of every hold, in the order of the text; and the queues of the wait
--                            lists: see wait_list.lua
--       7 cooling    zset    day / quota / due / units / id / version, in the order of the text
--       8 waiting    zset    id, by day * 2^31 + the reservation's number on the wait list
--       9 events     stream  number-0: e -> the event
--      10 choices    hash    index -> choice. "=" .. choice -> index and the last day that had a record with it. "n" -> the
--                            last index. "x" .. index -> the event after which no record has the choice.
--      11 updated    zset    applicant, by the number of the event that changed their penalty
--      12 gate       zset    for guarded commands: see buckets/token_bucket.lua
--      13 ticks      hash    for guarded commands: see buckets/token_bucket.lua
--
-- All keys always exist: each has a "~" without a meaning. A cluster that moves a slot refuses commands when only some of
-- their keys exist. In records, claims and due it has LONG_VALUE.
--
-- No function below can fail: a handler checks everything before its first write. Records, claims, due holds and events are
-- read and written for all commands of a call together, because one server call costs about as much as a whole command.
--
-- The loader defines DEFAULT_RULES, EVENT_NUMBERS (2^31, above every number of one day's wait list) and CLAIMS_MAX.

local HEAD, DAYS, RECORDS, CLAIMS, PENALTIES, DUE, COOLING, WAITING, EVENTS, CHOICES, UPDATED
local call

-- Everything else that a call has read or changed. The table stays from call to call, because making it costs as much as a server call.
-- So begin_call() sets each of its fields.
local ledger = {}

-- Changes of a call, which are written together at its end. They are variables and not fields of ledger, because each access
-- to a field of a variable costs one more step.
local records, records_changed -- id -> text, or false if there is none; the ids to write
local claims, claims_changed -- applicant -> ids, or false; the applicants to write
local due_changes, new_events -- member -> true to add it, false to delete it; the events to append
local indexes -- text of a choice -> its index and last day; see index_of()
local choices_read, penalties_read = {}, {} -- index -> choice; applicant -> text, or false if there is none
local are_written = false -- true if nothing is left to write, so that the tables of changes are empty

-- A server keeps a small hash or sorted set as a list, which it searches from its beginning. A value of more than 64 bytes makes
-- it a table: otherwise a reserve takes twice as long in an office with 200 reservations.
local LONG_VALUE = string.rep("~", 65)

local NEVER_MS = 2 ^ 52
local ACTIVE = { WAITING = true, HELD = true, CONFIRMED = true, ATTENDED = true, NO_SHOW = true }
local CONSUMING = { HELD = "held", CONFIRMED = "confirmed", ATTENDED = "confirmed", NO_SHOW = "confirmed" }
local SLASH = "/"
local KNOWN_TEXTS_MAX = 500 -- rules and choices that a server remembers from call to call
local KNOWN_ROWS_MAX = 12000 -- of days; each quota counts as one, and each day as four more
local ARGUMENTS_MAX = 256 -- of one server call; even, because some arguments come in pairs

-- Functions of other files that make their state new.
local BEGINNINGS = {}

local known_rules = remembering(rules_of_text, KNOWN_TEXTS_MAX)
local known_number = remembering(tonumber, KNOWN_TEXTS_MAX) -- for texts that many calls have, such as days

-- The choice of a text. At an opening nearly all callers want the same few.
local choice_by_text = remembering(choice_of_text, KNOWN_TEXTS_MAX)

-- Offices as this server knows them from its last calls, by the key of their head. Only functions outlive a call (IS_KEPT), so
-- scripts know none. An office has what the head has, whether there are penalties, and its days by number. A call takes its
-- office out, because a call that fails leaves it half changed.
--
-- The write_id in the head proves that nothing has been written since: each call that writes leaves another one there, which
-- no other write has had. Scripts leave "", which proves nothing, and a reconciliation deletes it. Without the proof, a day is
-- taken from memory only if its text in the store is the same.
local offices, known_rows_count = {}, 0
local office
local write_id_format, writes_count = "", 0

-- Begin a call, and read the head unless this server knows it.
local function begin_call()
  call = redis.call
  HEAD, DAYS, RECORDS, CLAIMS, PENALTIES, DUE, COOLING, WAITING, EVENTS, CHOICES, UPDATED = unpack(KEYS)
  office = offices[HEAD]
  if office then
    offices[HEAD] = nil
    if call("HGET", HEAD, "write_id") == office.write_id then return end
  end
  local head = call("HMGET", HEAD, "now_ms", "number", "rules", "next_forget_ms", "cursor", "write_id")
  office = office or { days = {}, reads = 0 }
  office.now_ms, office.number = tonumber(head[1] or "0"), tonumber(head[2] or "0")
  office.rules = known_rules(head[3] or DEFAULT_RULES)
  office.next_forget_ms, office.cursor = known_number(head[4] or int(NEVER_MS)), head[5] or ""
  office.write_id, office.has_penalties = head[6] ~= "" and head[6] or nil, nil
  office.reads = office.reads + 1 -- days of earlier reads are compared by their text
end

-- Return the id of a new write.
local function new_write_id()
  if not IS_KEPT then return "" end
  if write_id_format == "" then -- the time of the first write, and the address of a table that only these functions have
    local time = call("TIME")
    write_id_format = time[1] .. "." .. time[2] .. "." .. match(tostring(ledger), "%w+$") .. "." .. INT
  end
  writes_count = writes_count + 1
  office.write_id = format(write_id_format, writes_count)
  return office.write_id
end

-- Make everything else new that the state machine reads and changes.
local function begin_commands()
  if not are_written then -- the last call has failed, or this is the first one
    records_changed, claims_changed, due_changes, new_events = {}, {}, {}, {}
  end
  are_written = false
  records, claims, indexes = {}, {}, {}
  ledger.now_ms, ledger.number, ledger.rules = office.now_ms, office.number, office.rules
  ledger.next_forget_ms, ledger.cursor, ledger.has_penalties = office.next_forget_ms, office.cursor, office.has_penalties
  ledger.days, ledger.deadline, ledger.deadline_ttl_ms = {}, nil, nil
  if next(choices_read) then choices_read = {} end
  if next(penalties_read) then penalties_read = {} end
  ledger.abandoned, ledger.forgotten_day_max = nil, nil -- read when they are needed
  ledger.renewed, ledger.is_read_only, ledger.write_back_more, ledger.is_day_written = nil, nil, nil, nil
  for index = 1, #BEGINNINGS do BEGINNINGS[index]() end
end

local function forgotten_day_max()
  return ledger.forgotten_day_max or tonumber(call("HGET", HEAD, "forgotten_day_max") or "0")
end

-- Return the counts of abandoned holds. A call changes ledger.abandoned.
local function abandoned_counts()
  return ledger.abandoned or call("HGET", HEAD, "abandoned") or "0,0,0"
end

local function call_with(name, key, arguments)
  for first = 1, #arguments, ARGUMENTS_MAX do
    call(name, key, unpack(arguments, first, math.min(first + ARGUMENTS_MAX - 1, #arguments)))
  end
end

-- Return the day of this number, or nil. It is read once and written back at the end of the call if it changed.
local function day_of(number)
  local day = ledger.days[number]
  if day == nil then
    day = office.days[number]
    if not day or day.reads ~= office.reads then
      local text = call("HGET", DAYS, number)
      if not day or day.written ~= text then
        day = text and day_of_text(number, text) or false
      end
      if day then day.written, day.reads, day.valid, day.valid_count = text, office.reads, {}, 0 end
    end
    ledger.days[number] = day
  end
  return day or nil
end

-- Write a day if it has changed, and remember it for the next call.
local function write_day(day)
  if day.is_changed then
    day.written, day.is_changed = text_of_day(day), nil
    call("HSET", DAYS, day.text, day.written)
    ledger.is_day_written = true
  end
  local known = office.days[day.number]
  if known then
    local rows_count = day.row_texts and 4 + #day.row_texts or known.rows_count -- a new publication changes it
    known_rows_count, day.rows_count = known_rows_count + rows_count - known.rows_count, rows_count
  else
    if known_rows_count >= KNOWN_ROWS_MAX then offices, office.days, known_rows_count = {}, {}, 0 end
    if not day.row_texts then split_rows(day) end
    day.rows_count = 4 + #day.row_texts
    known_rows_count = known_rows_count + day.rows_count
  end
  office.days[day.number], day.reads = day, office.reads
end

-- Forget a day that is not there any more.
local function drop_day(number)
  local day = office.days[number]
  if day then office.days[number], known_rows_count = nil, known_rows_count - day.rows_count end
end

local function mark_changed(day)
  day.is_changed, day.front = true, nil
end

local function choice_of(index)
  local choice = choices_read[index]
  if not choice then
    local text = call("HGET", CHOICES, index)
    -- The choice of a record that a forgotten day left behind may be deleted already.
    choice = text and choice_by_text(text) or { text = "", field = "=", options = {} }
    choices_read[index] = choice
  end
  return choice
end

local function record_of_text(id, text)
  local record = record_without_quotas(id, text)
  local option = record.option ~= "" and choice_of(record.choice).options[string.byte(record.option) - 96]
  record.quotas = option and option.text or ""
  return record
end

-- Return the functions of guards.lua, which nearly no call needs. The loader defines load_guards() from that file.
local load_guards, guard_functions
local function guards()
  if not guard_functions then guard_functions = load_guards() end
  return guard_functions
end

local NONE_RENAMED = {}

-- Return the choice with all guards of the day that count it, at the end of each option; itself if they are there.
local function complete_choice(day, choice)
  if day.guards == "" then return choice end
  local complete, tail = day.completed[choice], ""
  if complete then return complete end
  for name, service, unit, session in string.gmatch(day.guards, "([^,/]+)/([^,/]*)/([^,/]*)/([^,/]*)") do
    if (service == "" or service == choice.service) and (unit == "" or unit == choice.service_unit)
        and (session == "" or session == choice.session) then
      tail = tail .. COMMA .. name
    end
  end
  complete = choice
  for _, option in ipairs(choice.options) do
    if tail ~= "" and string.sub(COMMA .. option.text, -#tail) ~= tail then
      complete = guards().rewrite_choice(NONE_RENAMED, day, choice)
      break
    end
  end
  if day.completed_count >= KNOWN_TEXTS_MAX then day.completed, day.completed_count = {}, 0 end
  day.completed[choice], day.completed_count = complete, day.completed_count + 1
  return complete
end

-- The index and the last day of a choice, from their text.
local known_index_and_day = remembering(function(text)
  local index, last_day = string.match(text, "^(%d+)\t(%d+)$")
  return { index = index, last_day = tonumber(last_day) }
end, KNOWN_TEXTS_MAX)

-- Return the index of a choice, for a record on this day. A new choice is stored here, so call this only before the record
-- is written.
local function index_of(choice, number)
  local known = indexes[choice.text]
  if not known then
    local text = call("HGET", CHOICES, choice.field)
    known = text and known_index_and_day(text) or { index = int(call("HINCRBY", CHOICES, "n", 1)), last_day = 0 }
    indexes[choice.text] = known
  end
  if number > known.last_day then
    known = { index = known.index, last_day = number }
    indexes[choice.text] = known
    call("HSET", CHOICES, known.index, choice.text, choice.field, known.index .. TAB .. int(number))
    call("HDEL", CHOICES, "x" .. known.index)
  end
  return known.index
end

-- Delete choices that no record from first_day on uses, once all events with them are trimmed.
local function retire_choices(first_day)
  local oldest = call("XRANGE", EVENTS, "-", "+", "COUNT", 1)[1]
  local oldest_number = oldest and tonumber(string.match(oldest[1], "^%d+")) or ledger.number + 1
  local fields, known = call("HGETALL", CHOICES), {}
  for at = 1, #fields, 2 do known[fields[at]] = fields[at + 1] end
  for name, value in pairs(known) do
    local index, last_day = string.match(value, "^(%d+)\t(%d+)$")
    if string.sub(name, 1, 1) == "=" and tonumber(last_day) < first_day then
      local last_number = known["x" .. index]
      if not last_number then
        call("HSET", CHOICES, "x" .. index, int(ledger.number))
      elseif tonumber(last_number) < oldest_number then
        call("HDEL", CHOICES, index, name, "x" .. index)
        choices_read[index], indexes[string.sub(name, 2)] = nil, nil
      end
    end
  end
end

-- Read the fields of a hash that the commands need, in as few server calls as possible.
local function read_ahead(key, known, fields)
  if not fields[1] then return end
  for first = 1, #fields, ARGUMENTS_MAX do
    local last = math.min(first + ARGUMENTS_MAX - 1, #fields)
    local texts = call("HMGET", key, unpack(fields, first, last))
    for index = first, last do known[fields[index]] = texts[index - first + 1] end
  end
end

local function record_text(id)
  local text = records[id]
  if text == nil then
    text = call("HGET", RECORDS, id)
    records[id] = text
  end
  return text
end

local function write_record(id, text)
  records[id], records_changed[id] = text, true
end

-- Return the ids of an applicant's claims as text, or false.
local function claims_text(applicant)
  local text = claims[applicant]
  if text == nil then
    text = call("HGET", CLAIMS, applicant)
    claims[applicant] = text
  end
  return text
end

local function write_claims(applicant, text)
  claims[applicant], claims_changed[applicant] = text, true
end

local function penalty_text(applicant)
  local text = penalties_read[applicant]
  if text == nil then
    text = call("HGET", PENALTIES, applicant)
    penalties_read[applicant] = text
  end
  return text
end

-- Write the changed fields of a hash; false stands for a deleted one.
local function flush_hash(key, known, changes)
  local only = next(changes)
  if only == nil then return end
  if next(changes, only) == nil then -- a lone call
    local text = known[only]
    changes[only] = nil
    if text then call("HSET", key, only, text) else call("HDEL", key, only) end
    return
  end
  local pairs_set, gone = {}, {}
  for field in pairs(changes) do
    local text = known[field]
    if text then
      pairs_set[#pairs_set + 1], pairs_set[#pairs_set + 2] = field, text
    else
      gone[#gone + 1] = field
    end
    changes[field] = nil
  end
  call_with("HSET", key, pairs_set)
  call_with("HDEL", key, gone)
end

-- Write the changed due holds. Called before any read of what is due.
local function flush_due()
  local only, is_added = next(due_changes)
  if only == nil then return end
  if next(due_changes, only) == nil then
    due_changes[only] = nil
    if is_added then call("ZADD", DUE, 0, only) else call("ZREM", DUE, only) end
    return
  end
  local added, gone = {}, {}
  for member, is_there in pairs(due_changes) do
    if is_there then
      added[#added + 1], added[#added + 2] = 0, member
    else
      gone[#gone + 1] = member
    end
  end
  due_changes = {}
  call_with("ZADD", DUE, added)
  call_with("ZREM", DUE, gone)
end

local function flush()
  local first = ledger.number - #new_events
  for index = 1, #new_events do
    call("XADD", EVENTS, first + index, "e", new_events[index]) -- a number alone stands for number-0
    new_events[index] = nil
  end
  flush_hash(RECORDS, records, records_changed)
  flush_hash(CLAIMS, claims, claims_changed)
  flush_due()
end

-- Return the holds of a day on one set of quotas that are due before a time, in order, and the length of their prefix.
local function due_holds(day, quotas, before, ...)
  flush_due()
  local prefix = day.text .. SLASH .. quotas .. SLASH
  return call("ZRANGEBYLEX", DUE, "[" .. prefix, "(" .. prefix .. before, ...), #prefix
end

-- Return the record of this id; or nil and the remains of a record whose day is forgotten.
local function record_of(id)
  local text = record_text(id)
  if not text then return nil end
  local record = record_of_text(id, text)
  if day_of(record.day) then return record end
  return nil, record
end

-- Call visit(record) for each claim of an applicant, oldest first, until it returns a value. Return that value, or nil.
local function find_claim(applicant, now_ms, visit)
  local ids = claims_text(applicant)
  if not ids then return nil end
  for _, id in ipairs(names(ids)) do
    local record = record_of(id)
    local over = record and (day_of(record.day).closed or (record.state == "HELD" and record.deadline_at_ms <= now_ms)
      or (record.state == "WAITING" and is_session_over(day_of(record.day), choice_of(record.choice), now_ms)))
    if record and not over then
      local found = visit(record)
      if found then return found end
    end
  end
  return nil
end

-- Add the claims of a record's applicants, or of these ones alone.
local function claim(record, newcomers)
  for _, applicant in ipairs(newcomers or record.applicants) do
    local others = claims_text(applicant)
    write_claims(applicant, others and (others .. COMMA .. record.id) or record.id)
  end
end

-- Delete the claims of a record's applicants, or of these ones alone.
local function unclaim(record, leaving)
  for _, applicant in ipairs(leaving or record.applicants) do
    local left = {}
    for _, id in ipairs(names(claims_text(applicant) or "")) do
      if id ~= record.id then left[#left + 1] = id end
    end
    write_claims(applicant, #left > 0 and concat(left, COMMA))
  end
end

local function due_member(record)
  return concat({ int(record.day), record.quotas, padded(record.deadline_at_ms), record.id }, SLASH)
end

-- Return the functions of wait_list.lua. They are created when one of them is called, like those of penalties.lua below.
local load_wait_list, wait_list_functions
local function wait_list()
  if not wait_list_functions then wait_list_functions = load_wait_list() end
  return wait_list_functions
end

-- Delete the index entries of a record whose day is forgotten, which the purge has not reached yet.
local function purge_record(rest)
  if ACTIVE[rest.state] then unclaim(rest) end
  if rest.state == "HELD" then due_changes[due_member(rest)] = false end
  if rest.state == "WAITING" then wait_list().leave(rest) end
end

local function push_due(day, record)
  due_changes[due_member(record)] = true
  set_due(day, record.quotas, true)
  if record.deadline_at_ms < day.next_due_ms then day.next_due_ms = record.deadline_at_ms end
end

-- Split the units that a record (its new version) returns at at_ms. Returns how many become free, how many cool (parked
-- ones included), how many are parked, and when the cooling ones become free.
local function split_returned_units(quota, units, record, at_ms)
  local worked_off = math.min(units, math.max(0, -quota.free))
  local rest = units - worked_off
  if rest == 0 or quota.rule == "at_once" or quota.rule == "wait_list" then return units, 0, 0, 0 end
  if quota.rule == "next_draw" then return worked_off, rest, rest, 0 end
  local digest = redis.sha1hex(
    ledger.rules.jitter_seed .. ":" .. record.id .. ":" .. int(record.version) .. ":" .. quota.name
  )
  local jitter_ms = tonumber(string.sub(digest, 1, 12), 16) % (quota.jitter_ms + 1)
  return worked_off, rest, 0, at_ms + quota.cooling_ms + jitter_ms
end

-- Add free units, and note when the first one is there.
local function add_free(quota, units, at_ms)
  if quota.free <= 0 and quota.free + units > 0 then quota.free_since_ms = at_ms end
  quota.free = quota.free + units
end

local function give_back(day, name, units, record, at_ms)
  local quota = day.quotas[name]
  local free, cooling, parked, due_at_ms = split_returned_units(quota, units, record, at_ms)
  add_free(quota, free, ledger.now_ms)
  quota.cooling = quota.cooling + cooling
  quota.parked = quota.parked + parked
  if cooling > parked then
    call("ZADD", COOLING, 0, concat(
      { int(day.number), name, padded(due_at_ms), padded(cooling), record.id, int(record.version) }, SLASH))
    if due_at_ms < day.next_due_ms then day.next_due_ms = due_at_ms end
  end
end

-- Append an event. Its number is one more than the last one, its time the time of its step.
local function append(at_ms, event)
  ledger.number = ledger.number + 1
  ledger.now_ms = at_ms
  new_events[#new_events + 1] = event
end

-- Apply a new hold, the step of nearly every command at an opening. Does what reservation_changed does, without the parts
-- that only older records need. text is the record.
local function reservation_held(day, option, id, applicants, text, now_ms, deadline)
  append(now_ms, "R\t" .. id .. TAB .. text)
  write_record(id, text)
  local units, quotas = #applicants, day.quotas
  for index = 1, units do
    local applicant = applicants[index]
    local others = claims_text(applicant)
    write_claims(applicant, others and (others .. COMMA .. id) or id)
  end
  for index = 1, #option.quotas do
    local name = option.quotas[index]
    local quota = quotas[name]
    quota.free, quota.held = quota.free - units, quota.held + units
    day.newly_held[name] = true
  end
  due_changes[day.text .. SLASH .. option.text .. SLASH .. deadline.digits .. SLASH .. id] = true
  if not day.due[option.text] then set_due(day, option.text, true) end
  day.is_changed = true
  if deadline.at_ms < day.next_due_ms then
    day.next_due_ms = deadline.at_ms
    mark_changed(day)
  end
end

-- Return the functions of penalties.lua. Creating functions costs as much as a server call, and an opening needs none of
-- these, so they are created when one of them is called.
local load_penalties, penalty_functions
local function penalties()
  if not penalty_functions then penalty_functions = load_penalties() end
  return penalty_functions
end

local party_changed -- of party_commands.lua, which its own commands load
local CHANGES_PARTY = { remove_applicant = true, replace_applicant = true }
local TOUCHES_PENALTIES = { cancel = true, mark_no_show = true, release = true, expire = true, reacquire = true }

-- Apply a reservation's step. old is its record before, or nil for a new one; new is the record after.
local function reservation_changed(verb, old, new, at_ms)
  local day = day_of(new.day)
  local text = text_of_record(new)
  append(at_ms, text_of_event(verb, at_ms, new, text))
  write_record(new.id, text)
  mark_changed(day)
  local old_day = old and day_of(old.day)
  local old_bucket, new_bucket = old and CONSUMING[old.state], CONSUMING[new.state]
  local kept = {}
  if old_bucket and new_bucket and old_day == day then
    local of_new = {}
    for _, name in ipairs(names(new.quotas)) do of_new[name] = true end
    for _, name in ipairs(names(old.quotas)) do kept[name] = of_new[name] end
  end
  if new_bucket then
    for _, name in ipairs(names(new.quotas)) do
      local quota = day.quotas[name]
      quota[new_bucket] = quota[new_bucket] + new.units
      if not kept[name] then quota.free = quota.free - new.units end
    end
  end
  if old_bucket then
    mark_changed(old_day)
    -- The hold ended at its deadline, not when a later sweep found it.
    local ended_at_ms = verb == "expire" and old.deadline_at_ms or at_ms
    for _, name in ipairs(names(old.quotas)) do
      local quota = old_day.quotas[name]
      quota[old_bucket] = quota[old_bucket] - old.units
      local returned = kept[name] and old.units - new.units or old.units
      if returned > 0 then give_back(old_day, name, returned, new, ended_at_ms) end
    end
    if old.state == "HELD" then due_changes[due_member(old)] = false end
  end
  if old and old.state == "WAITING" then
    mark_changed(old_day)
    old_day.waiting = old_day.waiting - 1
    wait_list().leave(old)
  end
  if new.state == "HELD" then push_due(day, new) end
  if new.state == "WAITING" then
    day.waiting = day.waiting + 1
    day.last_wait_list_number = math.max(day.last_wait_list_number, new.wait_list_number)
    wait_list().join(new)
  end
  if new.queue_number > 0 then
    local last_offset = tonumber(string.match(new.queue_offsets, "%d+$") or new.units - 1)
    day.last_queue_number = math.max(day.last_queue_number, new.queue_number + last_offset)
  end
  local was_active, is_active = old and ACTIVE[old.state] or false, ACTIVE[new.state] or false
  if was_active and not is_active then unclaim(old) end
  if is_active and not was_active then claim(new) end
  if CHANGES_PARTY[verb] then
    party_changed(verb, old, new, at_ms)
    return
  end
  if old and old.state == "NO_SHOW" then -- undone, also on a closed day: the no-show counted before the office closed it
    penalties().update(new, verb, at_ms, at_ms)
  elseif old_day and old_day.closed then -- the office has ended the reservation: no step counts
    if old_bucket == "confirmed" and (old_day ~= day or not new_bucket) then old_day.departed = old_day.departed + old.units end
  elseif old and TOUCHES_PENALTIES[verb] then
    penalties().apply_step(verb, old, new, at_ms)
  end
end
