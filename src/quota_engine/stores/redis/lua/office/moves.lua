-- moves: rescheduling within an office, and the steps of a move between offices. Mirrors domain/moves.py. Part of the body
-- of rare_commands(); see state_machine.lua.

-- Return the status that forbids moving the record anywhere, or nil.
local function refuse_move(record, now_ms)
  local rules, day = ledger.rules, day_of(record.day)
  if day.closed then return nil end
  if record.state == "CONFIRMED" and now_ms > day.starts_at_ms - rules.reschedule_before_ms then return "TOO_LATE" end
  if record.moves - record.forced_moves >= rules.reschedules_max then return "MOVES_EXCEEDED" end
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
  return outcome(refuse_move(record, now_ms) or record.state, record)
end

-- fields: name, id, owner, version
local function stay(fields, now_ms)
  local owner, version = fields[3], tonumber(fields[4])
  local known = record_of(fields[2])
  if not known then return outcome("NOT_FOUND") end
  local record = settle_reservation(known, now_ms)
  if not is_owner(record, owner) then return outcome("NOT_OWNER") end
  if record.state == "EXPIRED" then return outcome("HOLD_EXPIRED", record) end
  if version > 0 and version ~= record.version then return outcome("STALE", record) end
  if not FROM.stay[record.state] or not day_of(record.day).closed then return outcome("WRONG_STATE", record) end

  -- From here on it must succeed.
  local after = changed(record, {})
  reservation_changed("stay", record, after, now_ms)
  return outcome("CONFIRMED", after)
end

-- fields: name, id, day, applicants, deadline_at_ms ("0" for a confirmed one), moves, valid_until_ms, forced_moves,
-- extensions, choice (six fields)
local function move_in(fields, now_ms)
  local id, number, party, deadline_at_ms = fields[2], tonumber(fields[3]), fields[4], tonumber(fields[5])
  local confirmed, moves, valid_until_ms = deadline_at_ms == 0, tonumber(fields[6]), tonumber(fields[7])
  local choice, applicants = choice_by_text(concat(fields, TAB, 10)), names(party)
  local command = { day = number, party = party, applicants = applicants, choice = choice }
  local known, rest = record_of(id)
  if known then return replay_reserve(known, command, now_ms) end
  if valid_until_ms > 0 and now_ms > valid_until_ms then return outcome("COMMAND_EXPIRED") end
  local day = day_of(number)
  if not day then return outcome("UNKNOWN_DAY") end
  settle(day, now_ms, SETTLE_MAX)
  local refusal, retry_at_ms = refuse_day(day, choice, now_ms)
  if refusal == "UNKNOWN_QUOTA" then return outcome(refusal) end
  if not confirmed and deadline_at_ms <= now_ms then return outcome("HOLD_EXPIRED") end
  if refusal then return outcome(refusal, nil, { retry_at_ms = retry_at_ms }) end
  if #applicants > ledger.rules.party_max then return outcome("PARTY_TOO_LARGE") end
  if ledger.rules.abandoned_holds_max > 0 then penalties().expire_own_holds(applicants, now_ms) end
  local until_ms = blocked_until_ms(applicants, now_ms)
  if until_ms > 0 then return outcome("BLOCKED", nil, { retry_at_ms = until_ms }) end
  local conflicting = conflicting_claim(applicants, number, now_ms, "")
  if conflicting then return outcome("IDENTITY_LIMIT", same_party(conflicting, command) and conflicting or nil) end
  choice = complete_choice(day, choice)
  local option = find_option(day, choice, #applicants, now_ms, NOTHING)
  if not option then return SOLD_OUT end

  -- From here on it must succeed.
  if rest then purge_record(rest) end
  local record = {
    id = id, day = number, version = 1, state = confirmed and "CONFIRMED" or "HELD", created_at_ms = now_ms,
    deadline_at_ms = deadline_at_ms, queue_number = confirmed and day.last_queue_number + 1 or 0, moves = moves,
    forced_moves = tonumber(fields[8]), extensions = tonumber(fields[9]), wait_list_number = 0, declines = 0, paused_until_ms = 0, undo_until_ms = 0, former = "", queue_offsets = "",
    choice = index_of(choice, number), option = option.letter, quotas = option.text, party = party, applicants = applicants,
    units = #applicants,
  }
  reservation_changed(confirmed and "move_in_confirmed" or "move_in", nil, record, now_ms)
  return outcome(record.state, record)
end

-- fields: name, id, day, owner, version, choice (six fields)
local function reschedule(fields, now_ms)
  local number, owner, version = tonumber(fields[3]), fields[4], tonumber(fields[5])
  local choice = choice_by_text(concat(fields, TAB, 6, 11))
  local known = record_of(fields[2])
  if not known then return outcome("NOT_FOUND") end
  local record = settle_reservation(known, now_ms)
  local day = day_of(number)
  if not day then return outcome("UNKNOWN_DAY") end -- without the record: the owner is not checked yet
  settle(day, now_ms, SETTLE_MAX)
  record = record_of(record.id)
  local refusal, retry_at_ms = refuse_day(day, choice, now_ms)
  if refusal == "UNKNOWN_QUOTA" then return outcome(refusal) end
  if not is_owner(record, owner) then return outcome("NOT_OWNER") end
  local movable = FROM.reschedule[record.state]
  if movable and record.day == number and is_same_choice(record, choice) then
    return outcome(record.state, record, { flags = "p" })
  end
  if record.state == "EXPIRED" then return outcome("HOLD_EXPIRED", record) end
  if version > 0 and version ~= record.version then return outcome("STALE", record) end
  if not movable then return outcome("WRONG_STATE", record) end
  if refusal then return outcome(refusal, record, { retry_at_ms = retry_at_ms }) end
  local move_refusal = refuse_move(record, now_ms)
  if move_refusal then return outcome(move_refusal, record) end
  if conflicting_claim(record.applicants, number, now_ms, record.id) then return outcome("IDENTITY_LIMIT", record) end
  local kept = {}
  if record.day == number then
    for _, name in ipairs(names(record.quotas)) do kept[name] = true end
  end
  choice = complete_choice(day, choice)
  local option = find_option(day, choice, record.units, now_ms, kept)
  if not option then return outcome("SOLD_OUT", record) end

  -- From here on it must succeed.
  local moved = changed(record, {
    day = number, choice = index_of(choice, number), quotas = option.text, option = option.letter, moves = record.moves + 1,
    forced_moves = record.forced_moves + (day_of(record.day).closed and 1 or 0), wait_list_number = 0, declines = 0,
  })
  if record.state == "CONFIRMED" and record.day ~= number then
    moved.queue_number, moved.queue_offsets = day.last_queue_number + 1, ""
  end
  reservation_changed("reschedule", record, moved, now_ms)
  distribute_free_units(day_of(record.day), now_ms)
  return outcome(moved.state, moved)
end

handlers.prepare_move, handlers.move_in, handlers.undo_move, handlers.reschedule = prepare_move, move_in, step, reschedule
handlers.stay = stay
forms.prepare_move, forms.undo_move, forms.stay = STEP, STEP, STEP
handlers.decline, forms.decline, GUARDS.decline = step, STEP, GUARDS.confirm
forms.move_in = concat({ NAME, NUMBER, PARTY, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, CHOICE }, TAB)
forms.reschedule = NAME .. "\t" .. NUMBER .. "\t" .. MAYBE_APPLICANT .. "\t" .. NUMBER .. "\t" .. CHOICE
