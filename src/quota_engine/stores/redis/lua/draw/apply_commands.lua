-- apply_commands: applies commands to one draw, one after the other, at one time.
--
-- KEYS  see ledger.lua
-- ARGV  see shared/call.lua. Each line is a command: its name and its fields, separated by tabs.
--
-- reply a line for each command, with tabs between its fields: status, number, version, flags ("p": replayed), retry_at_ms,
--       quotas, epoch. If the fence is checked, one more line: see line() of shared/fence.lua
-- error ILLFORMED, FENCED, BEHIND: no command was applied
--
-- The loader defines PREFERENCES_MAX, OFFERED_DAYS_MAX, APPLICANTS_MAX, CHOICES_MAX and RETENTION_MARGIN_MS.

local function outcome(status, number, version, flags, retry_at_ms, quotas, epoch)
  local numbers = { int(number or 0), int(version or 0), int(retry_at_ms or 0), int(epoch or 0) }
  return concat({ status, numbers[1], numbers[2], flags or "", numbers[3], quotas or "", numbers[4] }, TAB)
end

-- application: what application_of() returns, or nil
local function outcome_of(status, application, flags)
  if not application then return outcome(status) end
  return outcome(status, application.number, application.version, flags, 0, "", application.epoch)
end

-- Return the version of an application as its text begins.
local function text_of_version(version)
  return draw.epoch == EPOCH_FIRST and int(version) or int(version) .. ":" .. int(draw.epoch)
end

-- Return true if the draw has lost the version of an application that a sender saw. Mirrors is_lost() of the Python.
local function is_lost(version, epoch, expected_version, expected_epoch)
  if expected_epoch == 0 or expected_version == 0 then return false end
  if expected_version == version then return expected_epoch ~= epoch end
  return expected_version > version and expected_epoch ~= draw.epoch
end

local function refusal_by_version(before, expected_version, expected_epoch)
  local version, epoch = before and before.version or 0, before and before.epoch or 0
  if is_lost(version, epoch, expected_version, expected_epoch) then return outcome_of("APPLICATION_LOST", before) end
  if expected_version ~= version then return outcome_of("STALE", before) end
  return nil
end

-- Mark the draw changed, so that its head is written back.
local function changed_at(now_ms)
  draw.now_ms = now_ms
  draw.changed = true
end

local function write_membership(applicant, membership)
  if membership.assigned_number == 0 and membership.active == 0 then
    call("HDEL", APPLICANTS, applicant)
  elseif membership.assigned_number == membership.active then
    call("HSET", APPLICANTS, applicant, int(membership.assigned_number))
  else
    call("HSET", APPLICANTS, applicant, int(membership.assigned_number) .. COMMA .. int(membership.active))
  end
end

-- fields: name, then the ten fields of DrawConfig
local function create(fields, now_ms)
  local text = concat(fields, TAB, 2)
  if known(now_ms) then
    if draw.config.text == text then return outcome("DONE", 0, 0, "p") end
    return outcome("CONFLICT")
  end
  local config = config_of_text(text)
  if config.forget_at_ms <= now_ms then return outcome("DRAW_OVER") end
  -- The epoch is later if the store has lost the draw and an operator has opened its address again: see take_over.lua.
  local epoch = not draw.config and tonumber(call("HGET", HEAD, "epoch") or "") or EPOCH_FIRST
  for _, key in ipairs(KEYS) do
    call("PEXPIRE", key, 0) -- deletes, and needs no further permission
    call("HSET", key, "~", "")
    call("PEXPIRE", key, int(config.forget_at_ms - now_ms + RETENTION_MARGIN_MS))
  end
  call("HSET", HEAD, "config", text, "ends_at_ms", int(config.forget_at_ms), "epoch", int(epoch))
  load_draw()
  changed_at(now_ms)
  return outcome("DONE")
end

-- Return the outcome that refuses all applications and withdrawals now, or nil.
local function refusal_by_time(config, now_ms)
  if not config then return outcome("UNKNOWN_DRAW") end
  if now_ms < config.opens_at_ms then return outcome("NOT_OPEN", 0, 0, "", config.opens_at_ms) end
  if now_ms >= config.closes_at_ms then return outcome("APPLICATIONS_CLOSED") end
  return nil
end

-- Remove all applicants from an application. Their memberships are put into the table; the caller writes them.
local function leave(before, memberships)
  if not before or before.party == "" then return end
  local party = names(before.party)
  draw.active = draw.active - 1
  draw.applicants = draw.applicants - #party
  local texts = call("HMGET", APPLICANTS, unpack(party))
  for index, applicant in ipairs(party) do
    if not memberships[applicant] then memberships[applicant] = membership_of_text(texts[index]) end
    memberships[applicant].active = 0
  end
end

-- fields: name, applicants, version, epoch, preferences
local function apply(fields, now_ms)
  local config = known(now_ms)
  local refusal = refusal_by_time(config, now_ms)
  if refusal then return refusal end
  local party, preferences = names(fields[2]), split(fields[5], ";")
  if #party > config.party_max then return outcome("PARTY_TOO_LARGE") end
  if #preferences > config.choices_max then return outcome("TOO_MANY_CHOICES") end
  for _, preference in ipairs(preferences) do
    local day = tonumber(string.match(preference, "/(%d+)/"))
    if day < config.first_day or day > config.last_day then return outcome("NOT_IN_DRAW") end
  end
  local memberships = {}
  for index, text in ipairs(call("HMGET", APPLICANTS, unpack(party))) do memberships[party[index]] = membership_of_text(text) end
  local number = memberships[party[1]].assigned_number
  for _, applicant in ipairs(party) do
    local active = memberships[applicant].active
    if active ~= 0 and active ~= number then return outcome("ALREADY_APPLIED") end
  end
  local before = application_of(number)
  local version = before and before.version or 0
  local keys = {}
  for index, preference in ipairs(preferences) do keys[index] = "=" .. preference end
  local numbers = call("HMGET", PREFERENCES, unpack(keys))
  local new = 0
  for _, found in ipairs(numbers) do
    if not found then new = new + 1 end
  end
  if new == 0 and before and before.party == fields[2] and before.preferences == concat(numbers, COMMA) then
    return outcome_of("APPLIED", before, "p")
  end
  local stale = refusal_by_version(before, tonumber(fields[3]), tonumber(fields[4]))
  if stale then return stale end
  if (number == 0 and draw.last_number >= config.applications_max) or draw.preferences + new > PREFERENCES_MAX then
    return outcome("DRAW_FULL")
  end
  -- From here on nothing can fail.
  if number == 0 then
    draw.last_number = draw.last_number + 1
    number = draw.last_number
    memberships[party[1]].assigned_number = number
  end
  leave(before, memberships)
  for _, applicant in ipairs(party) do memberships[applicant].active = number end
  for applicant, membership in pairs(memberships) do write_membership(applicant, membership) end
  for index, preference in ipairs(preferences) do
    if not numbers[index] then
      draw.preferences = draw.preferences + 1
      numbers[index] = int(draw.preferences)
      call("HSET", PREFERENCES, numbers[index], preference, "=" .. preference, numbers[index])
    end
  end
  call("HSET", APPLICATIONS, int(number), concat({ text_of_version(version + 1), fields[2], concat(numbers, COMMA) }, TAB))
  draw.active = draw.active + 1
  draw.applicants = draw.applicants + #party
  changed_at(now_ms)
  return outcome("APPLIED", number, version + 1, "", 0, "", draw.epoch)
end

-- fields: name, applicant, version, epoch
local function withdraw(fields, now_ms)
  local refusal = refusal_by_time(known(now_ms), now_ms)
  if refusal then return refusal end
  local membership, version = membership_of_text(call("HGET", APPLICANTS, fields[2]) or nil), tonumber(fields[3])
  local before = application_of(membership.active)
  if not before then
    before = application_of(membership.assigned_number)
    if before and before.party == "" and before.version == version + 1 then
      return outcome_of("WITHDRAWN", before, "p")
    end
    return outcome(is_lost(0, 0, version, tonumber(fields[4])) and "APPLICATION_LOST" or "NOT_FOUND")
  end
  local stale = refusal_by_version(before, version, tonumber(fields[4]))
  if stale then return stale end
  local memberships = {}
  leave(before, memberships)
  for applicant, one in pairs(memberships) do write_membership(applicant, one) end
  call("HSET", APPLICATIONS, int(before.number), text_of_version(version + 1) .. TAB .. TAB)
  changed_at(now_ms)
  return outcome("WITHDRAWN", before.number, version + 1, "", 0, "", draw.epoch)
end

local function close(_, now_ms)
  local config = known(now_ms)
  if not config then return outcome("UNKNOWN_DRAW") end
  if now_ms < config.closes_at_ms then return outcome("STILL_OPEN", 0, 0, "", config.closes_at_ms) end
  if draw.closed then return outcome("DONE", 0, 0, "p") end
  draw.closed = true
  changed_at(now_ms)
  return outcome("DONE")
end

-- fields: name, office, day, quotas
local function offer_day(fields, now_ms)
  local config = known(now_ms)
  if not config then return outcome("UNKNOWN_DRAW") end
  if not draw.closed then return outcome("NOT_CLOSED") end
  local place, day = fields[2] .. "/" .. fields[3], tonumber(fields[3])
  local number = call("HGET", OFFERED, "=" .. place)
  if number then return outcome("DONE", 0, 0, "p", 0, split(call("HGET", OFFERED, number), TAB)[2]) end
  if draw.frozen ~= "" then return outcome("FROZEN") end
  if day < config.first_day or day > config.last_day then return outcome("NOT_IN_DRAW") end
  if draw.offered >= OFFERED_DAYS_MAX then return outcome("DRAW_FULL") end
  draw.offered = draw.offered + 1
  call("HSET", OFFERED, int(draw.offered), place .. TAB .. fields[4], "=" .. place, int(draw.offered))
  changed_at(now_ms)
  return outcome("DONE", 0, 0, "", 0, fields[4])
end

-- Return the outcome of a command that names another epoch than the draw's, or nil. text: the epoch, "0" for the first one
local function refusal_by_epoch(text)
  local epoch = tonumber(text)
  if draw.epoch == (epoch > 0 and epoch or EPOCH_FIRST) then return nil end
  return outcome("EPOCH_CHANGED", 0, 0, "", 0, "", draw.epoch)
end

-- fields: name, epoch, applications, their digest, digest of the capacities
local function freeze(fields, now_ms)
  if not known(now_ms) then return outcome("UNKNOWN_DRAW") end
  if not draw.closed then return outcome("NOT_CLOSED") end
  local frozen = concat(fields, COMMA, 3)
  if draw.frozen ~= "" then
    if draw.frozen == frozen then return outcome("DONE", 0, 0, "p") end
    return outcome("CONFLICT")
  end
  if tonumber(fields[3]) ~= draw.active then return outcome("CONFLICT") end
  local refusal = refusal_by_epoch(fields[2])
  if refusal then return refusal end
  draw.frozen, draw.frozen_epoch = frozen, draw.epoch
  changed_at(now_ms)
  return outcome("DONE")
end

-- fields: name, seed, the seed's commitment (the server has no SHA-256), epoch, entropy
local function reveal(fields, now_ms)
  local config = known(now_ms)
  if not config then return outcome("UNKNOWN_DRAW") end
  if draw.frozen == "" then return outcome("NOT_FROZEN") end
  if fields[3] ~= config.commitment or (fields[5] == "") ~= (config.entropy_source == "") then return outcome("CONFLICT") end
  if draw.seed ~= "" then
    if draw.entropy == fields[5] then return outcome("DONE", 0, 0, "p") end
    return outcome("CONFLICT")
  end
  local refusal = refusal_by_epoch(fields[4])
  if refusal then return refusal end
  draw.seed, draw.entropy, draw.revealed_epoch = fields[2], fields[5], draw.epoch
  changed_at(now_ms)
  return outcome("DONE")
end

-- fields: name, epoch_min. The time of the last change stays.
local function advance_epoch(fields, now_ms)
  if not known(now_ms) then return outcome("UNKNOWN_DRAW") end
  draw.epoch = math.max(draw.epoch, tonumber(fields[2])) + 1
  draw.changed = true
  return outcome("DONE")
end

local HANDLERS = {
  create = create, apply = apply, withdraw = withdraw, close = close, offer_day = offer_day, freeze = freeze, reveal = reveal,
  advance_epoch = advance_epoch,
}

-- The form of each command's fields. All lines are checked before the first command is applied: an error halfway through a
-- script leaves its earlier writes in place. Fields are checked one by one, because a pattern for a whole line would take
-- very long to fail.
local NAME, APPLICANT, DIGEST, PRINTABLE = "^[%w_%-]+$", "^[%w_%-%.]+$", "^" .. string.rep("[%da-f]", 64) .. "$", "^[ -~]*$"
local NUMBER = "^%d+$"
local FORMS = {
  create = { NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, DIGEST, PRINTABLE },
  apply = { "^[%w_%-%.,]+$", NUMBER, NUMBER, "^[%w_%-/,|;]+$" },
  withdraw = { APPLICANT, NUMBER, NUMBER },
  close = {},
  offer_day = { NAME, NUMBER, "^[%w_%-:,]*$" },
  freeze = { NUMBER, NUMBER, DIGEST, DIGEST },
  reveal = { DIGEST, DIGEST, NUMBER, PRINTABLE },
  advance_epoch = { NUMBER },
}

local function fits(text, pattern)
  return string.match(text, pattern) and (pattern ~= NUMBER or #text <= DIGITS_MAX)
end

local function is_preference(text)
  local fields = split(text, "/")
  if #fields ~= 8 or not fits(fields[1], NAME) or not fits(fields[2], NUMBER) then return false end
  for index = 3, 7 do
    if fields[index] ~= "" and not fits(fields[index], NAME) then return false end
  end
  return string.match(fields[8], "^[%w_%-][%w_%-,|]*$")
end

-- Return true if no text is empty or repeated, and there are at most `most`.
local function are_different(texts, most)
  local seen = {}
  for _, text in ipairs(texts) do
    if text == "" or seen[text] then return false end
    seen[text] = true
  end
  return #texts <= most
end

-- Return the fields of a command, or nil if the line is not one.
local function parse(line)
  local fields = split(line, TAB)
  local form = FORMS[fields[1]]
  if not form or #fields ~= #form + 1 then return nil end
  for index, pattern in ipairs(form) do
    if not fits(fields[index + 1], pattern) then return nil end
  end
  if fields[1] == "apply" then
    local preferences = split(fields[5], ";")
    if not are_different(names(fields[2]), APPLICANTS_MAX) or not are_different(preferences, CHOICES_MAX) then return nil end
    for _, preference in ipairs(preferences) do
      if not is_preference(preference) then return nil end
    end
  end
  return fields
end

local function write_back()
  if not draw.changed then return end
  call("HSET", HEAD, "now_ms", int(draw.now_ms), "closed", draw.closed and "1" or "0", "frozen", draw.frozen, "seed", draw.seed,
    "entropy", draw.entropy, "last_number", int(draw.last_number), "active", int(draw.active), "applicants", int(draw.applicants),
    "preferences", int(draw.preferences), "offered", int(draw.offered), "epoch", int(draw.epoch),
    "frozen_epoch", int(draw.frozen_epoch), "revealed_epoch", int(draw.revealed_epoch))
end

local now_ms, touches, checks_fence, seen = call_time()
local fences, fence
if checks_fence == "@" then
  fences = load_fence()
  fence = fences.check(seen, now_ms)
  if fence.problem then return redis.error_reply(fence.problem) end
end
local commands, error_reply = parse_commands(parse)
if not commands then return error_reply end
load_draw()
check_leap(now_ms, draw.now_ms)
local lines = {}
for index, fields in ipairs(commands) do
  lines[index] = HANDLERS[fields[1]](fields, math.max(now_ms, draw.now_ms))
end
write_back()
if touches == "+" and draw.config then call("HSET", HEAD, "~", "") end
if fence then lines[#lines + 1] = fences.write(fence) end
return lines
