-- room_commands: the script's way in. Applies commands to one waiting room, one after the other, at one time. Mirrors admission/room.py,
-- function by function.
--
-- ARGV  1 now_ms, or "" for the server's own time, and "+" behind it to leave a small write in any case; 2 ... a command each: its name and its
--       fields, set apart by tabs
-- reply a line for each command: of a join that has a ticket its number, and "p" behind it if it was so before; of what asks for the whole
--       room what `seen` says; otherwise the status, and when to come again after a tab

local room -- the room, nil if there is none
local changed = {} -- the names of what has to be written back

local function set(name, value)
  room[name], changed[name] = value, true
end

-- fields: "create", commitment ... terms as one text
local function create(text, now_ms)
  if room then
    if room.terms.text == text then return seen(room, now_ms, "p") end
    return "CONFLICT"
  end
  local terms = terms_of_text(text)
  if now_ms >= terms.opens_at_ms then return "ROOM_CLOSED" end

  -- From here on it must succeed.
  room = { terms = terms, windows = "", calls = "", seed = "", entropy = "", closing_seed = "" }
  changed = { terms = true, windows = true, calls = true, seed = true, entropy = true, closing_seed = true }
  for _, name in ipairs(NUMBERS) do set(name, 0) end
  set("now_ms", now_ms)
  set("window", -1)
  set("places_left", -1)
  return seen(room, now_ms)
end

-- applicant; instead_of is a number's text, or ""
local function join(applicant, instead_of, now_ms)
  if not room then return "NOT_FOUND" end
  local terms, refusal = room.terms, nil
  if is_over(room, now_ms) then
    refusal = "ROOM_CLOSED"
  elseif now_ms < terms.join_opens_at_ms then
    refusal = "NOT_OPEN\t" .. int(terms.join_opens_at_ms)
  elseif room.tickets >= terms.tickets_max then
    refusal = "FULL"
  end
  local index = int(room.tickets)
  -- In a rush nearly everybody is new: asked and written in one step.
  if refusal or call("HSETNX", IDENTITIES, applicant, index) == 0 then
    local known = call("HGET", IDENTITIES, applicant)
    if known and known ~= instead_of then return known .. "p" end
    if refusal then return refusal end
    call("HSET", IDENTITIES, applicant, index)
  end

  -- From here on it must succeed; nothing above could fail once it had written.
  if not room.window_now then room.window_now = window_at(terms, now_ms) end -- all of a call happens at one time
  if room.window < room.window_now then
    local windows = list_of(room, "windows")
    set("windows", windows .. (windows == "" and "" or ",") .. int(room.window_now) .. ":" .. index)
    set("window", room.window_now)
    set("window_first", room.tickets)
  end
  room.tickets, changed.tickets = room.tickets + 1, true
  room.now_ms, changed.now_ms = now_ms, true
  return index
end

-- commitment is the one that the seed opens: hashing it is Python's, comparing is enough here
local function open(seed, commitment, entropy, now_ms)
  if not room then return "NOT_FOUND" end
  local terms = room.terms
  if commitment ~= terms.commitment or (entropy == "") ~= (terms.entropy_source == "") then return "CONFLICT" end
  if room.seed ~= "" then
    if entropy == room.entropy then return seen(room, now_ms, "p") end
    return "CONFLICT"
  end
  if is_over(room, now_ms) then return "ROOM_CLOSED" end
  if now_ms < terms.opens_at_ms then return "NOT_OPEN\t" .. int(terms.opens_at_ms) end -- by this clock, whatever the caller's says

  -- From here on it must succeed.
  set("seed", seed)
  set("entropy", entropy)
  set("opened_at_ms", now_ms)
  set("now_ms", now_ms)
  -- One step's worth is there at once, so that the first are called at the opening.
  set("last_step_at_ms", now_ms - terms.step_ms)
  set("per_minute", room.pace_max > 0 and room.pace_max or terms.per_minute_max)
  return seen(room, now_ms)
end

local MINUTE_MS = 60000

-- The least and the highest pace: an operator's, or else the terms'.
local function bounds()
  local terms = room.terms
  return room.pace_min > 0 and room.pace_min or terms.per_minute_min, room.pace_max > 0 and room.pace_max or terms.per_minute_max
end

-- The most that are called at a time: with less than this, a pace that was raised could not be kept.
local function burst_at(per_minute_max)
  return math.max(room.terms.burst, math.ceil(per_minute_max * room.terms.step_ms / MINUTE_MS))
end

-- left is -1 if it is not known
local function serve(per_minute, call_max, places_left, now_ms)
  if not room then return "NOT_FOUND" end
  local terms = room.terms
  local elapsed_ms = now_ms - room.last_step_at_ms
  if room.seed == "" or is_over(room, now_ms) or elapsed_ms < terms.step_ms then return seen(room, now_ms) end

  -- From here on it must succeed.
  local low, high = bounds()
  local tokens = math.min(burst_at(high) * MINUTE_MS, room.tokens + elapsed_ms * room.per_minute)
  local calls = math.min(math.floor(tokens / MINUTE_MS), tickets_ordered(room, now_ms) - room.called_count, call_max)
  set("tokens", tokens - calls * MINUTE_MS)
  set("per_minute", math.min(math.max(per_minute, low), high))
  set("last_step_at_ms", now_ms)
  set("now_ms", now_ms)
  if places_left >= 0 then set("places_left", places_left) end
  local kept = {}
  for at_ms, mark, of_places_left in string.gmatch(list_of(room, "calls"), "(%d+):(%d+):(%-?%d+)") do
    if tonumber(at_ms) + terms.turn_ms <= now_ms then
      set("turns_ended", tonumber(mark))
    else
      kept[#kept + 1] = at_ms .. ":" .. mark .. ":" .. of_places_left
    end
  end
  if calls > 0 then
    set("called_count", room.called_count + calls)
    kept[#kept + 1] = int(now_ms) .. ":" .. int(room.called_count) .. ":" .. int(room.places_left)
  end
  set("calls", concat(kept, ","))
  return seen(room, now_ms)
end

local function set_pace(low, high, now_ms)
  if not room then return "NOT_FOUND" end
  if is_over(room, now_ms) then return "ROOM_CLOSED" end
  local low_now, high_now = bounds()
  if low == low_now and high == high_now then return seen(room, now_ms, "p") end

  -- From here on it must succeed.
  set("pace_min", low)
  set("pace_max", high)
  set("now_ms", now_ms)
  set("tokens", math.min(room.tokens, burst_at(high) * MINUTE_MS))
  if room.seed ~= "" then set("per_minute", math.min(math.max(room.per_minute, low), high)) end
  return seen(room, now_ms)
end

-- commitment is the one that the late seed leads to
local function close(closing_seed, commitment, now_ms)
  if not room then return "NOT_FOUND" end
  if commitment ~= room.terms.commitment then return "CONFLICT" end
  if room.closed_at_ms > 0 then return seen(room, now_ms, "p") end

  -- From here on it must succeed.
  set("closed_at_ms", now_ms)
  set("now_ms", now_ms)
  set("closing_seed", closing_seed)
  return seen(room, now_ms)
end

-- A line that is no join, taken apart and checked: a function that carries it out, or nil if it is ill-formed.
local function parse(line)
  local per_minute, call_max, left = string.match(line, "^serve\t(%d+)\t(%d+)\t(%d*)$")
  if per_minute then
    return function(now_ms) return serve(tonumber(per_minute), tonumber(call_max), tonumber(left) or -1, now_ms) end
  end
  local seed, commitment, entropy = string.match(line, "^open\t(%x+)\t(%x+)\t([^\t]*)$")
  if seed then return function(now_ms) return open(seed, commitment, entropy, now_ms) end end
  local low, high = string.match(line, "^pace\t(%d+)\t(%d+)$")
  if low then return function(now_ms) return set_pace(tonumber(low), tonumber(high), now_ms) end end
  local closing_seed, committed = string.match(line, "^close\t(%x+)\t(%x+)$")
  if closing_seed then return function(now_ms) return close(closing_seed, committed, now_ms) end end
  local terms = string.match(line, "^create\t(.+)$")
  if not terms then return nil end
  local fields = split(terms)
  if #fields ~= #TERMS then return nil end
  for index, name in ipairs(TERMS) do
    if not WORDS[name] and not string.find(fields[index], "^%d+$") then return nil end
  end
  return function(now_ms) return create(terms, now_ms) end
end

local FORGET_MARGIN_MS = 86400000

-- Write back what has changed. The keys themselves end a day after the room is forgotten.
local function write_back(now_ms)
  local pairs_of_head = {}
  for name in pairs(changed) do
    pairs_of_head[#pairs_of_head + 1] = name
    local value = room[name]
    pairs_of_head[#pairs_of_head + 1] = name == "terms" and value.text or type(value) == "number" and int(value) or value
  end
  if #pairs_of_head == 0 then return end
  call("HSET", HEAD, unpack(pairs_of_head))
  if changed.terms then
    call("HSET", IDENTITIES, "~", "")
    for _, key in ipairs(KEYS) do call("PEXPIRE", key, int(room.terms.forget_at_ms - now_ms + FORGET_MARGIN_MS)) end
  end
end

local now_ms, touches = time_given()
-- Joins are most of all lines by far: they have no function of their own each.
local commands, applicants, instead = {}, {}, {}
for index = 2, #ARGV do
  local applicant, instead_of = string.match(ARGV[index], "^join\t([%w_-]+)\t(%d*)$")
  applicants[index - 1], instead[index - 1] = applicant or false, instead_of or false
  commands[index - 1] = applicant or parse(ARGV[index])
  if not commands[index - 1] then return redis.error_reply("ILLFORMED command " .. (index - 1) .. " of the call: none was carried out") end
end
room = load_room()
if room then now_ms = math.max(now_ms, room.now_ms) end
if room and now_ms >= room.terms.forget_at_ms then
  for _, key in ipairs(KEYS) do call("PEXPIRE", key, 0) end -- which deletes, and needs no right besides
  room = nil
end
local lines = {}
for index, command in ipairs(commands) do
  lines[index] = applicants[index] and join(applicants[index], instead[index], now_ms) or command(now_ms)
end
write_back(now_ms)
if touches and room then call("HSET", HEAD, "~", "") end
return lines
