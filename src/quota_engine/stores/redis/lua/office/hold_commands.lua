-- hold_commands: the extension of a hold. Mirrors domain/extension.py. Part of the body of rare_commands(); see
-- state_machine.lua.

-- fields: name, id, owner, version, the number of the extension
local function extend(fields, now_ms)
  local owner, version, extension = fields[3], tonumber(fields[4]), tonumber(fields[5])
  local known = record_of(fields[2])
  if not known then return outcome("NOT_FOUND") end
  local record = settle_reservation(known, now_ms)
  if not is_owner(record, owner) then return outcome("NOT_OWNER") end
  local rules = ledger.rules
  local is_announced = rules.abandoned_holds_max > 0
  if is_announced then
    penalties().expire_own_holds(record.applicants, now_ms)
    record = record_of(record.id) -- the wait list may have been served
  end
  if record.state == "HELD" and extension <= record.extensions then
    local result = outcome("HELD", record, { flags = "p" })
    return is_announced and penalties().announce(result, now_ms) or result
  end
  if record.state == "EXPIRED" then return outcome("HOLD_EXPIRED", record) end
  if extension > record.extensions + 1 or (version > 0 and version ~= record.version) then return outcome("STALE", record) end
  if not FROM.extend[record.state] then return outcome("WRONG_STATE", record) end
  local day = day_of(record.day)
  if day.closed then return outcome("DAY_CLOSED", record) end
  if now_ms >= day.ends_at_ms then return outcome("DAY_OVER", record) end
  if now_ms >= session_times(day, choice_of(record.choice)) then return outcome("SESSION_OVER", record) end
  if extension > rules.extensions_max then return outcome("EXTENSIONS_EXCEEDED", record) end

  -- From here on it must succeed.
  local extended = changed(record, { deadline_at_ms = record.deadline_at_ms + rules.extension_ms, extensions = extension })
  reservation_changed("extend", record, extended, now_ms)
  local result = outcome("HELD", extended)
  return is_announced and penalties().announce(result, now_ms) or result
end

handlers.extend = extend
forms.extend = STEP .. "\t" .. NUMBER
