-- draw commands: the script's way in. Applies commands to one draw, one after the other, at one time.
--
-- ARGV  1 now_ms, or "" for the server's own time, and "+" behind it to leave a small write in any case; 2 ... a command each: its
--         name and its fields, set apart by tabs
-- reply a line for each command: status, number, version, flags ("p": replayed), retry_at_ms, quotas, set apart by tabs

local WISHES_MAX, OFFERED_DAYS_MAX = 200000, 100000
local RETENTION_MARGIN_MS = 30 * 86400000

local function outcome(status, number, version, flags, retry_at_ms, quotas)
  return concat({ status, int(number or 0), int(version or 0), flags or "", int(retry_at_ms or 0), quotas or "" }, TAB)
end

-- The draw has changed: at the end its head is written back.
local function changed_at(now_ms)
  draw.now_ms = now_ms
  draw.changed = true
end

local function write_standing(applicant, standing)
  if standing.home == 0 and standing.active == 0 then
    call("HDEL", APPLICANTS, applicant)
  elseif standing.home == standing.active then
    call("HSET", APPLICANTS, applicant, int(standing.home))
  else
    call("HSET", APPLICANTS, applicant, int(standing.home) .. COMMA .. int(standing.active))
  end
end

-- fields: name, terms (10 of them)
local function create(fields, now_ms)
  local text = concat(fields, TAB, 2)
  if known(now_ms) then
    if draw.terms.text == text then return outcome("DONE", 0, 0, "p") end
    return outcome("CONFLICT")
  end
  local terms = terms_of_text(text)
  if terms.forget_at_ms <= now_ms then return outcome("DRAW_OVER") end
  for _, key in ipairs(KEYS) do
    call("PEXPIRE", key, 0) -- which deletes, and needs no right besides
    call("HSET", key, "~", "")
    call("PEXPIRE", key, int(terms.forget_at_ms - now_ms + RETENTION_MARGIN_MS))
  end
  call("HSET", HEAD, "terms", text)
  load_draw()
  changed_at(now_ms)
  return outcome("DONE")
end

-- Why nobody can apply or withdraw now, or nil.
local function refusal_by_time(terms, now_ms)
  if not terms then return outcome("UNKNOWN_DRAW") end
  if now_ms < terms.opens_at_ms then return outcome("NOT_OPEN", 0, 0, "", terms.opens_at_ms) end
  if now_ms >= terms.closes_at_ms then return outcome("APPLICATIONS_CLOSED") end
  return nil
end

-- Nobody is in this application any more. The standings of those in it are in the table, to be written by the caller.
local function leave(before, standings)
  if not before or before.party == "" then return end
  local party = names(before.party)
  draw.active = draw.active - 1
  draw.people = draw.people - #party
  local texts = call("HMGET", APPLICANTS, unpack(party))
  for index, applicant in ipairs(party) do
    if not standings[applicant] then standings[applicant] = standing_of_text(texts[index]) end
    standings[applicant].active = 0
  end
end

-- fields: name, applicants, version, wishes
local function apply(fields, now_ms)
  local terms = known(now_ms)
  local refusal = refusal_by_time(terms, now_ms)
  if refusal then return refusal end
  local party, wishes = names(fields[2]), split(fields[4], ";")
  if #party > terms.party_max then return outcome("PARTY_TOO_LARGE") end
  if #wishes > terms.choices_max then return outcome("TOO_MANY_CHOICES") end
  for _, wish in ipairs(wishes) do
    local day = tonumber(string.match(wish, "/(%d+)/"))
    if day < terms.first_day or day > terms.last_day then return outcome("NOT_IN_DRAW") end
  end
  local standings = {}
  for index, text in ipairs(call("HMGET", APPLICANTS, unpack(party))) do standings[party[index]] = standing_of_text(text) end
  local number = standings[party[1]].home
  for _, applicant in ipairs(party) do
    local active = standings[applicant].active
    if active ~= 0 and active ~= number then return outcome("ALREADY_APPLIED") end
  end
  local before = application_of(number)
  local version = before and before.version or 0
  local keys = {}
  for index, wish in ipairs(wishes) do keys[index] = "=" .. wish end
  local numbers = call("HMGET", WISHES, unpack(keys))
  local new = 0
  for _, found in ipairs(numbers) do
    if not found then new = new + 1 end
  end
  if new == 0 and before and before.party == fields[2] and before.wishes == concat(numbers, COMMA) then
    return outcome("APPLIED", number, version, "p")
  end
  if tonumber(fields[3]) ~= version then return outcome("STALE", number, version) end
  if (number == 0 and draw.last_number >= terms.applications_max) or draw.wishes + new > WISHES_MAX then
    return outcome("DRAW_FULL")
  end
  -- From here on nothing can fail.
  if number == 0 then
    draw.last_number = draw.last_number + 1
    number = draw.last_number
    standings[party[1]].home = number
  end
  leave(before, standings)
  for _, applicant in ipairs(party) do standings[applicant].active = number end
  for applicant, standing in pairs(standings) do write_standing(applicant, standing) end
  for index, wish in ipairs(wishes) do
    if not numbers[index] then
      draw.wishes = draw.wishes + 1
      numbers[index] = int(draw.wishes)
      call("HSET", WISHES, numbers[index], wish, "=" .. wish, numbers[index])
    end
  end
  call("HSET", APPLICATIONS, int(number), concat({ int(version + 1), fields[2], concat(numbers, COMMA) }, TAB))
  draw.active = draw.active + 1
  draw.people = draw.people + #party
  changed_at(now_ms)
  return outcome("APPLIED", number, version + 1)
end

-- fields: name, applicant, version
local function withdraw(fields, now_ms)
  local refusal = refusal_by_time(known(now_ms), now_ms)
  if refusal then return refusal end
  local standing, version = standing_of_text(call("HGET", APPLICANTS, fields[2]) or nil), tonumber(fields[3])
  local before = application_of(standing.active)
  if not before then
    before = application_of(standing.home)
    if before and before.party == "" and before.version == version + 1 then
      return outcome("WITHDRAWN", before.number, before.version, "p")
    end
    return outcome("NOT_FOUND")
  end
  if before.version ~= version then return outcome("STALE", before.number, before.version) end
  local standings = {}
  leave(before, standings)
  for applicant, one in pairs(standings) do write_standing(applicant, one) end
  call("HSET", APPLICATIONS, int(before.number), int(version + 1) .. TAB .. TAB)
  changed_at(now_ms)
  return outcome("WITHDRAWN", before.number, version + 1)
end

local function close(_, now_ms)
  local terms = known(now_ms)
  if not terms then return outcome("UNKNOWN_DRAW") end
  if now_ms < terms.closes_at_ms then return outcome("STILL_OPEN", 0, 0, "", terms.closes_at_ms) end
  if draw.closed then return outcome("DONE", 0, 0, "p") end
  draw.closed = true
  changed_at(now_ms)
  return outcome("DONE")
end

-- fields: name, office, day, quotas
local function offer_day(fields, now_ms)
  local terms = known(now_ms)
  if not terms then return outcome("UNKNOWN_DRAW") end
  if not draw.closed then return outcome("NOT_CLOSED") end
  local place, day = fields[2] .. "/" .. fields[3], tonumber(fields[3])
  local number = call("HGET", OFFERED, "=" .. place)
  if number then return outcome("DONE", 0, 0, "p", 0, split(call("HGET", OFFERED, number), TAB)[2]) end
  if draw.frozen ~= "" then return outcome("FROZEN") end
  if day < terms.first_day or day > terms.last_day then return outcome("NOT_IN_DRAW") end
  if draw.offered >= OFFERED_DAYS_MAX then return outcome("DRAW_FULL") end
  draw.offered = draw.offered + 1
  call("HSET", OFFERED, int(draw.offered), place .. TAB .. fields[4], "=" .. place, int(draw.offered))
  changed_at(now_ms)
  return outcome("DONE", 0, 0, "", 0, fields[4])
end

-- fields: name, applications, their digest, digest of the capacities
local function freeze(fields, now_ms)
  if not known(now_ms) then return outcome("UNKNOWN_DRAW") end
  if not draw.closed then return outcome("NOT_CLOSED") end
  local frozen = concat(fields, COMMA, 2)
  if draw.frozen ~= "" then
    if draw.frozen == frozen then return outcome("DONE", 0, 0, "p") end
    return outcome("CONFLICT")
  end
  if tonumber(fields[2]) ~= draw.active then return outcome("CONFLICT") end
  draw.frozen = frozen
  changed_at(now_ms)
  return outcome("DONE")
end

-- fields: name, seed, what the seed's commitment is (there is no SHA-256 here), entropy
local function reveal(fields, now_ms)
  local terms = known(now_ms)
  if not terms then return outcome("UNKNOWN_DRAW") end
  if draw.frozen == "" then return outcome("NOT_FROZEN") end
  if fields[3] ~= terms.commitment or (fields[4] == "") ~= (terms.entropy_source == "") then return outcome("CONFLICT") end
  if draw.seed ~= "" then
    if draw.entropy == fields[4] then return outcome("DONE", 0, 0, "p") end
    return outcome("CONFLICT")
  end
  draw.seed, draw.entropy = fields[2], fields[4]
  changed_at(now_ms)
  return outcome("DONE")
end

local HANDLERS = {
  create = create, apply = apply, withdraw = withdraw, close = close, offer_day = offer_day, freeze = freeze, reveal = reveal,
}

-- What the fields of each command have to look like. Every command of a call is held against this before the first of them is carried
-- out: an error half way through a script would leave what it wrote before. Field by field, because a pattern for a whole line would
-- try for ages before it fails.
local NAME, APPLICANT, DIGEST, PRINTABLE = "^[%w_%-]+$", "^[%w_%-%.]+$", "^" .. string.rep("[%da-f]", 64) .. "$", "^[ -~]*$"
local NUMBER = "^%d+$"
local NUMBER_LENGTH_MAX, APPLICANTS_MAX, CHOICES_MAX = 15, 100, 50
local FORMS = {
  create = { NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, DIGEST, PRINTABLE },
  apply = { "^[%w_%-%.,]+$", NUMBER, "^[%w_%-/,|;]+$" },
  withdraw = { APPLICANT, NUMBER },
  close = {},
  offer_day = { NAME, NUMBER, "^[%w_%-:,]*$" },
  freeze = { NUMBER, DIGEST, DIGEST },
  reveal = { DIGEST, DIGEST, PRINTABLE },
}

local function fits(text, pattern)
  return string.match(text, pattern) and (pattern ~= NUMBER or #text <= NUMBER_LENGTH_MAX)
end

local function is_wish(text)
  local fields = split(text, "/")
  if #fields ~= 8 or not fits(fields[1], NAME) or not fits(fields[2], NUMBER) then return false end
  for index = 3, 7 do
    if fields[index] ~= "" and not fits(fields[index], NAME) then return false end
  end
  return string.match(fields[8], "^[%w_%-][%w_%-,|]*$")
end

-- Whether all are there, each once, and no more than may be.
local function are_different(texts, most)
  local seen = {}
  for _, text in ipairs(texts) do
    if text == "" or seen[text] then return false end
    seen[text] = true
  end
  return #texts <= most
end

-- The fields of a command, or nil if it is none.
local function parse(line)
  local fields = split(line, TAB)
  local form = FORMS[fields[1]]
  if not form or #fields ~= #form + 1 then return nil end
  for index, pattern in ipairs(form) do
    if not fits(fields[index + 1], pattern) then return nil end
  end
  if fields[1] == "apply" then
    local wishes = split(fields[4], ";")
    if not are_different(names(fields[2]), APPLICANTS_MAX) or not are_different(wishes, CHOICES_MAX) then return nil end
    for _, wish in ipairs(wishes) do
      if not is_wish(wish) then return nil end
    end
  end
  return fields
end

local function write_back()
  if not draw.changed then return end
  call("HSET", HEAD, "now_ms", int(draw.now_ms), "closed", draw.closed and "1" or "0", "frozen", draw.frozen, "seed", draw.seed,
    "entropy", draw.entropy, "last_number", int(draw.last_number), "active", int(draw.active), "people", int(draw.people),
    "wishes", int(draw.wishes), "offered", int(draw.offered))
end

local given_ms, touches = string.match(ARGV[1], "^(%d*)(%+?)$")
local now_ms = tonumber(given_ms)
if not now_ms then
  local time = call("TIME")
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
end
local commands = {}
for index = 2, #ARGV do
  commands[index - 1] = parse(ARGV[index])
  if not commands[index - 1] then return redis.error_reply("ILLFORMED command " .. (index - 1) .. " of the call: none was carried out") end
end
load_draw()
local lines = {}
for index, fields in ipairs(commands) do
  lines[index] = HANDLERS[fields[1]](fields, math.max(now_ms, draw.now_ms))
end
write_back()
if touches == "+" and draw.terms then call("HSET", HEAD, "~", "") end
return lines
