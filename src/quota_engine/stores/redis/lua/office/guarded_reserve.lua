-- guarded_reserve: a reserve that needs a valid pass and enough tokens. Mirrors admission/guarded_reserve.py; docs/rules.md
-- states the same in its section on guarded reserves.
--
-- line  "guarded", pass id (or ""), until_ms of the pass, "1" if the pass is in shadow, charges, the reserve's own line
--
-- reply "G", index of the charge that refused (-1: none), indexes of the charges in shadow that would have refused.
--       Commas separate the indexes, and -1 stands for the pass. Then the reply of the reserve.

local GUARDED = "^guarded\t([%w_%-]*)\t(%d+)\t([01])\t([%w_%-:,]*)\t(reserve[%l_]*\t.+)$"

-- Return true if the party has the place already: its id is known, or it has a reservation to resume.
local function is_repeat(fields, now_ms)
  local at = fields[1] == "reserve_until" and 3 or 2
  local id, number, party = fields[at], fields[at + 1], fields[at + 2]
  if record_of(id) then return true end
  local applicants = names(party)
  return resumable_reservation({ day = tonumber(number), party = party, applicants = applicants }, now_ms) ~= nil
end

local function guarded_line(refused_by, in_shadow)
  return "G\t" .. (refused_by < 0 and "-1" or int(refused_by)) .. TAB .. concat(in_shadow, COMMA) .. TAB
end

-- fields: "guarded"; the pass, the charges and the reserve's fields by name
function HANDLERS.guarded(fields, now_ms, now)
  local in_shadow = {}
  local reserve = HANDLERS[fields.reserve[1]]
  if is_repeat(fields.reserve, now_ms) then
    return reserve(fields.reserve, now_ms, now), guarded_line(-1, in_shadow)
  end
  local exists = ledger.number > 0 -- before the first event nothing may be stored
  local gate_ms = gate_time(now_ms)
  local member, usable = "/" .. fields.pass, false
  if fields.pass ~= "" then
    usable = gate_ms < fields.pass_until_ms and tonumber(redis.call("ZSCORE", GATE, member) or "0") <= gate_ms
    if not usable and not fields.pass_in_shadow then
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
      return outcome("THROTTLED", nil, { retry_at_ms = retry_at_ms }), guarded_line(refused_by, in_shadow)
    end
  end
  for _, charge in ipairs(tried) do
    if take({ charge }, gate_ms) >= 0 then in_shadow[#in_shadow + 1] = int(charge.index) end
  end
  local result = reserve(fields.reserve, now_ms, now)
  -- The call is not a repetition, so a success is a hold or a place on the wait list, as a line or as a table.
  local status = type(result) == "table" and result.status or string.match(result, "^%u+_?%u*")
  if usable and (status == "NEW" or status == "HELD" or status == "WAITING") then
    redis.call("ZADD", GATE, int(fields.pass_until_ms), member)
    gate.now_ms, gate.changed, gate.added = math.max(gate_ms, gate.now_ms), true, gate.added + 1
  end
  return result, guarded_line(-1, in_shadow)
end

ledger.write_back_more = gate_write_back

local parse_other = parse

-- Return the fields of a command, or nil if the line is not one.
function parse(line)
  local pass, pass_until_ms, pass_in_shadow, charges_text, rest = string.match(line, GUARDED)
  if not pass then return parse_other(line) end
  local charges, of_reserve = charges_of_text(charges_text), parse_other(rest)
  if not charges or not of_reserve or not HANDLERS[of_reserve[1]] or #pass_until_ms > DIGITS_MAX then return nil end
  return {
    "guarded", pass = pass, pass_until_ms = tonumber(pass_until_ms), pass_in_shadow = pass_in_shadow == "1", charges = charges,
    reserve = of_reserve,
  }
end
