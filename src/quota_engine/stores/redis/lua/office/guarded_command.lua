-- guarded_command: a command that needs a valid pass and enough tokens. Mirrors admission/guarded_command.py; docs/rules.md
-- states the same in its section on guarded commands.
--
-- line  "guarded", pass id (or ""), until_ms of the pass, "1" if the pass is in shadow, charges, the command's own line
--
-- reply "G", index of the charge that refused (-1: none), indexes of the charges in shadow that would have refused.
--       Commas separate the indexes, and -1 stands for the pass. Then the reply of the command.

local GUARDED = "^guarded\t([%w_%-]*)\t(%d+)\t([01])\t([%w_%-:,]*)\t([%l_]+\t.+)$"

-- One function for each command that can be guarded. It returns true if the command may take units, or a place on a wait
-- list, that its party does not have yet. It changes nothing.
local TAKES_NEW_UNITS = {}

local function reserve_takes_new_units(id, number, party, now_ms)
  if record_of(id) then return false end
  return not resumable_reservation({ day = tonumber(number), party = party, applicants = names(party) }, now_ms)
end

function TAKES_NEW_UNITS.reserve(fields, now_ms)
  return reserve_takes_new_units(fields[2], fields[3], fields[4], now_ms)
end

function TAKES_NEW_UNITS.reserve_until(fields, now_ms)
  return reserve_takes_new_units(fields[3], fields[4], fields[5], now_ms)
end

function TAKES_NEW_UNITS.move_in(fields)
  return not record_of(fields[2])
end

local function is_overdue(record, now_ms)
  return record.state == "HELD" and record.deadline_at_ms <= now_ms
end

local function reacquire_takes_new_units(id, owner, now_ms)
  local record = record_of(id)
  if not record or not is_owner(record, owner) then return false end
  return record.state == "EXPIRED" or is_overdue(record, now_ms)
end

function TAKES_NEW_UNITS.confirm(fields, now_ms)
  return fields[5] == "1" and reacquire_takes_new_units(fields[2], fields[3], now_ms)
end

function TAKES_NEW_UNITS.reacquire_until(fields, now_ms)
  return reacquire_takes_new_units(fields[3], fields[4], now_ms)
end

function TAKES_NEW_UNITS.reschedule(fields, now_ms)
  local record = record_of(fields[2])
  if not record or not is_owner(record, fields[4]) or is_overdue(record, now_ms) then return false end
  -- An offer may turn an entry of the wait list into a hold in this very step, before the reschedule looks at it.
  if record.state ~= "WAITING" then
    local version = tonumber(fields[5])
    if not FROM.reschedule[record.state] or (version > 0 and version ~= record.version) then return false end
  end
  local given = choice_by_text(concat(fields, TAB, 6, 11))
  return record.day ~= tonumber(fields[3]) or not is_same_choice(record, given)
end

local function guarded_line(refused_by, in_shadow)
  return "G\t" .. (refused_by < 0 and "-1" or int(refused_by)) .. TAB .. concat(in_shadow, COMMA) .. TAB
end

-- Return true if the result of a command is a success and not a replay.
local function has_succeeded(result)
  local status = type(result) == "table" and result.status or string.match(result, "^%u+_?%u*")
  if type(result) == "table" and result.flags == "p" then return false end
  return status == "NEW" or status == "HELD" or status == "WAITING" or status == "CONFIRMED"
end

-- Take each charge that counts refusals, if it fits.
local function count_refusal(charges, now_ms)
  for _, charge in ipairs(charges) do
    if charge.counts_refusals then take({ charge }, now_ms) end
  end
end

-- fields: "guarded"; the pass, the charges and the command's fields by name
function HANDLERS.guarded(fields, now_ms)
  local in_shadow, command = {}, fields.command
  local apply = HANDLERS[command[1]]
  if not TAKES_NEW_UNITS[command[1]](command, now_ms) then
    return apply(command, now_ms), guarded_line(-1, in_shadow)
  end
  local exists = ledger.number > 0 -- before the first event nothing may be stored
  local gate_ms = gate_time(now_ms)
  local member, usable = "/" .. fields.pass, false
  if fields.pass ~= "" then
    usable = gate_ms < fields.pass_until_ms and tonumber(redis.call("ZSCORE", GATE, member) or "0") <= gate_ms
    if not usable and not fields.pass_in_shadow then
      count_refusal(exists and fields.charges or NOTHING, gate_ms)
      return outcome("NOT_ADMITTED"), guarded_line(-1, in_shadow)
    end
    if not usable then in_shadow[1] = "-1" end
  end
  local enforced, tried = {}, {}
  for _, charge in ipairs(exists and fields.charges or NOTHING) do
    if charge.in_shadow then tried[#tried + 1] = charge else enforced[#enforced + 1] = charge end
  end
  if #enforced > 0 then
    local refused_by, retry_at_ms = take(enforced, gate_ms)
    if refused_by >= 0 then
      count_refusal(fields.charges, gate_ms)
      return outcome("THROTTLED", nil, { retry_at_ms = retry_at_ms }), guarded_line(refused_by, in_shadow)
    end
  end
  for _, charge in ipairs(tried) do
    if take({ charge }, gate_ms) >= 0 then in_shadow[#in_shadow + 1] = int(charge.index) end
  end
  local result = apply(command, now_ms)
  if usable and has_succeeded(result) then
    redis.call("ZADD", GATE, int(fields.pass_until_ms), member)
    gate.now_ms, gate.changed, gate.added = math.max(gate_ms, gate.now_ms), true, gate.added + 1
  end
  return result, guarded_line(-1, in_shadow)
end

BEGINNINGS[#BEGINNINGS + 1] = function()
  begin_gate()
  ledger.write_back_more = gate_write_back
end

local parse_other = parse

-- Return the fields of a command, or nil if the line is not one.
function parse(line)
  local pass, pass_until_ms, pass_in_shadow, charges_text, rest = string.match(line, GUARDED)
  if not pass then return parse_other(line) end
  local charges, command = charges_of_text(charges_text), parse_other(rest)
  if not charges or not command or not TAKES_NEW_UNITS[command[1]] or #pass_until_ms > DIGITS_MAX then return nil end
  return {
    "guarded", pass = pass, pass_until_ms = tonumber(pass_until_ms), pass_in_shadow = pass_in_shadow == "1", charges = charges,
    command = command,
  }
end
