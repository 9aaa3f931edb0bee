-- guarded: a reserve that is tried only if its pass is good and its charges fit. Mirrors admission/guarded.py; docs/rules.md says the
-- same in words, in the section on guarded reserves.
--
-- line  "guarded", pass id ("": none), until_ms of its lease, "1" if it is in shadow, charges, and the reserve's own line
-- reply "G", index of the charge that refused (-1: none), indexes of those in shadow that would have (-1 for the pass) with commas
--       between, and what a reserve answers

local GUARDED = "^guarded\t([%w_%-]*)\t(%d+)\t([01])\t([%w_%-:,]*)\t(reserve[%l_]*\t.+)$"

-- Whether the party asks for what it has: the id is known, or there is something to resume.
local function is_repeat(fields, now_ms)
  local at = fields[1] == "reserve_until" and 3 or 2
  local id, number, party = fields[at], fields[at + 1], fields[at + 2]
  if record_of(id) then return true end
  local applicants = names(party)
  return to_resume({ day = tonumber(number), party = party, applicants = applicants }, now_ms) ~= nil
end

local function guarded_line(refused_by, in_shadow)
  return "G\t" .. (refused_by < 0 and "-1" or int(refused_by)) .. TAB .. concat(in_shadow, COMMA) .. TAB
end

-- fields: "guarded", with the pass, the charges and the reserve's fields by name
function HANDLERS.guarded(fields, now_ms, now)
  local in_shadow = {}
  local reserve = HANDLERS[fields.reserve[1]]
  if is_repeat(fields.reserve, now_ms) then
    return reserve(fields.reserve, now_ms, now), guarded_line(-1, in_shadow)
  end
  local exists = ledger.number > 0 -- where nothing was ever published, nothing is left behind
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
  -- Not repeated: a success is a hold or a place on the wait list, in the reserve's own form if it is a line.
  local status = type(result) == "table" and result.status or string.match(result, "^%u+_?%u*")
  if usable and (status == "NEW" or status == "HELD" or status == "WAITING") then
    redis.call("ZADD", GATE, int(fields.pass_until_ms), member)
    gate.now_ms, gate.changed, gate.added = math.max(gate_ms, gate.now_ms), true, gate.added + 1
  end
  return result, guarded_line(-1, in_shadow)
end

ledger.write_back_more = gate_write_back

local parse_other = parse

-- The fields of a command, or nil if it is none.
function parse(line)
  local pass, pass_until_ms, pass_in_shadow, charges_text, rest = string.match(line, GUARDED)
  if not pass then return parse_other(line) end
  local charges, of_reserve = charges_of_text(charges_text), parse_other(rest)
  if not charges or not of_reserve or not HANDLERS[of_reserve[1]] or #pass_until_ms > 15 then return nil end
  return {
    "guarded", pass = pass, pass_until_ms = tonumber(pass_until_ms), pass_in_shadow = pass_in_shadow == "1", charges = charges,
    reserve = of_reserve,
  }
end
