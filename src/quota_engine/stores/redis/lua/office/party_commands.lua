-- party_commands: one applicant leaves a party, or an operator puts another one in their place. Mirrors
-- domain/party_changes.py. Part of the body of rare_commands(); see state_machine.lua.
--
-- The loader defines FORMER_APPLICANTS_MAX.

local function includes(list, applicant)
  for index, one in ipairs(list) do
    if one == applicant then return index end
  end
  return nil
end

local function without(applicants, others)
  local left = {}
  for _, one in ipairs(applicants) do
    if not includes(others, one) then left[#left + 1] = one end
  end
  return left
end

-- Apply a changed party to the claims and penalties. Part of reservation_changed().
function party_changed(verb, old, new, at_ms)
  local leaving, day = without(old.applicants, new.applicants), day_of(new.day)
  unclaim(old, leaving)
  if verb == "replace_applicant" then
    claim(new, without(new.applicants, old.applicants))
  elseif day.closed then
    if old.state == "CONFIRMED" then day.departed = day.departed + #leaving end
  elseif old.state == "CONFIRMED" then
    penalties().update({ applicants = leaving, units = #leaving }, "cancel", at_ms, at_ms)
  elseif old.state == "HELD" and ledger.rules.abandoned_holds_max > 0 then
    penalties().update({ applicants = leaving, units = #leaving }, "release", at_ms, at_ms)
  end
end

-- Return the text of the former applicants after one has left, without a newcomer.
local function former_with(record, applicant, newcomer)
  local former = {}
  for _, one in ipairs(names(record.former)) do
    if one ~= applicant and one ~= newcomer then former[#former + 1] = one end
  end
  former[#former + 1] = applicant
  if #former > FORMER_APPLICANTS_MAX then table.remove(former, 1) end
  return concat(former, COMMA)
end

-- Return the first queue number and the offsets without the number of one applicant.
local function queue_numbers_without(record, index)
  if record.queue_number == 0 then return 0, "" end
  local offsets, kept = names(record.queue_offsets), {}
  for at = 1, record.units do
    local offset = tonumber(offsets[at] or at - 1)
    if at ~= index then kept[#kept + 1] = offset end
  end
  local first, is_consecutive, texts = kept[1], true, {}
  for at, offset in ipairs(kept) do
    if offset - first ~= at - 1 then is_consecutive = false end
    texts[at] = int(offset - first)
  end
  return record.queue_number + first, is_consecutive and "" or concat(texts, COMMA)
end

-- Return the record with the next version and these applicants.
local function with_applicants(record, applicants, former)
  return changed(record, { applicants = applicants, party = concat(applicants, COMMA), units = #applicants, former = former })
end

-- fields: name, id, owner, version, applicant
local function remove_applicant(fields, now_ms)
  local owner, version, applicant = fields[3], tonumber(fields[4]), fields[5]
  local known = record_of(fields[2])
  if not known then return outcome("NOT_FOUND") end
  local record = settle_reservation(known, now_ms)
  local index = includes(record.applicants, applicant)
  local has_left = not index and includes(names(record.former), applicant)
  if not is_owner(record, owner) and not (has_left and owner == applicant) then return outcome("NOT_OWNER") end
  if has_left and ACTIVE[record.state] then return outcome(record.state, record, { flags = "p" }) end
  if not index then return outcome("NOT_IN_PARTY", record) end
  if record.state == "EXPIRED" then return outcome("HOLD_EXPIRED", record) end
  if version > 0 and version ~= record.version then return outcome("STALE", record) end
  if not FROM.remove_applicant[record.state] then return outcome("WRONG_STATE", record) end
  local day = day_of(record.day)
  if record.state == "CONFIRMED" and now_ms >= day.ends_at_ms and not day.closed then return outcome("DAY_OVER", record) end
  if record.units == 1 then return outcome("PARTY_TOO_SMALL", record) end
  -- A smaller party is another demand on the wait list, and the list is served by demand.
  if record.state == "WAITING"
      and not wait_list().has_room_for_demand(day, choice_of(record.choice), record.units - 1, now_ms) then
    return outcome("WAIT_LIST_FULL", record)
  end

  -- From here on it must succeed.
  local applicants = {}
  for at, one in ipairs(record.applicants) do
    if at ~= index then applicants[#applicants + 1] = one end
  end
  local after = with_applicants(record, applicants, former_with(record, applicant))
  after.queue_number, after.queue_offsets = queue_numbers_without(record, index)
  reservation_changed("remove_applicant", record, after, now_ms)
  distribute_free_units(day, now_ms)
  after = record_of(record.id) -- a smaller party may fit where the larger one waited
  return outcome(after.state, after)
end

-- fields: name, id, version, valid_until_ms, applicant, replacement
local function replace_applicant(fields, now_ms)
  local version, valid_until_ms, applicant, newcomer = tonumber(fields[3]), tonumber(fields[4]), fields[5], fields[6]
  local known = record_of(fields[2])
  if not known then return outcome("NOT_FOUND") end
  local record = settle_reservation(known, now_ms)
  local index = includes(record.applicants, applicant)
  if not index and includes(record.applicants, newcomer) and includes(names(record.former), applicant)
      and ACTIVE[record.state] then
    return outcome(record.state, record, { flags = "p" })
  end
  if valid_until_ms > 0 and now_ms > valid_until_ms then return outcome("COMMAND_EXPIRED", record) end
  if not index then return outcome("NOT_IN_PARTY", record) end
  if ledger.rules.abandoned_holds_max > 0 then
    penalties().expire_own_holds({ newcomer }, now_ms)
    record = record_of(record.id) -- the wait list may have been served
  end
  if record.state == "EXPIRED" then return outcome("HOLD_EXPIRED", record) end
  if version > 0 and version ~= record.version then return outcome("STALE", record) end
  if not FROM.replace_applicant[record.state] then return outcome("WRONG_STATE", record) end
  local day = day_of(record.day)
  if day.closed then return outcome("DAY_CLOSED", record) end
  if now_ms >= day.ends_at_ms then return outcome("DAY_OVER", record) end
  local until_ms = blocked_until_ms({ newcomer }, now_ms)
  if until_ms > 0 then return outcome("BLOCKED", record, { retry_at_ms = until_ms }) end
  if includes(record.applicants, newcomer) or conflicting_claim({ newcomer }, record.day, now_ms, record.id) then
    return outcome("IDENTITY_LIMIT", record)
  end

  -- From here on it must succeed.
  local applicants = {}
  for at, one in ipairs(record.applicants) do applicants[at] = at == index and newcomer or one end
  local after = with_applicants(record, applicants, former_with(record, applicant, newcomer))
  reservation_changed("replace_applicant", record, after, now_ms)
  if after.state == "WAITING" then
    distribute_free_units(day, now_ms) -- the change has queued the party again
    after = record_of(record.id)
  end
  return outcome(after.state, after)
end

local APPLICANT = "[%w_%-%.]+"
handlers.remove_applicant, handlers.replace_applicant = remove_applicant, replace_applicant
forms.remove_applicant = STEP .. "\t" .. APPLICANT
forms.replace_applicant = concat({ NAME, NUMBER, NUMBER, APPLICANT, APPLICANT }, TAB)
