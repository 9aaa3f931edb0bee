-- room: one waiting room, read from its keys once a call. Mirrors admission/room.py: its state, and what is told of it.
--
-- KEYS  1 head        hash    the room's terms, and all that is counted: see FIELDS
--       2 identities  hash    applicant -> number of their ticket
--
-- Both keys always exist once the room has been made (the second has a "~" that means nothing), so that a slot on the move never refuses
-- half of them. Nothing is kept for whoever only asks.

local TAB = "\t"
local call, format, concat = redis.call, string.format, table.concat
local HEAD, IDENTITIES = KEYS[1], KEYS[2]

-- Numbers stand in the order of FIELDS in every list below. window and window_first are those of the last window (window -1: there is none), left is
-- -1 as long as nobody has counted, moments are 0 until they have come.
local NUMBERS = {
  "now_ms", "tickets", "window", "window_first", "opened_at_ms", "called_count", "turns_ended", "tokens", "per_minute", "last_step_at_ms", "places_left",
  "closed_at_ms", "pace_min", "pace_max",
}
local TEXTS = { "seed", "entropy", "closing_seed" }
-- What stands in terms, in the order of the text, set apart by tabs.
local TERMS = {
  "office", "first_day", "last_day", "join_opens_at_ms", "opens_at_ms", "closes_at_ms", "forget_at_ms", "commitment", "key_id", "nonce",
  "entropy_source", "channel", "group", "tickets_max", "window_ms", "step_ms", "turn_ms", "pass_grace_ms", "per_minute_min", "per_minute_max", "burst",
  "latency_max_ms", "calls_per_100_places", "units_max",
}
local WORDS = {
  office = true, commitment = true, key_id = true, nonce = true, entropy_source = true, channel = true, group = true,
}

-- An integer as text. (tostring would write 1e+15 for a large one.)
local function int(number)
  return format("%.0f", number)
end

local function split(text)
  local parts, count, from = {}, 0, 1
  while true do
    local at = string.find(text, TAB, from, true)
    count = count + 1
    if not at then
      parts[count] = string.sub(text, from)
      return parts
    end
    parts[count] = string.sub(text, from, at - 1)
    from = at + 1
  end
end

local function terms_of_text(text)
  local terms = { text = text }
  for index, value in ipairs(split(text)) do
    local name = TERMS[index]
    terms[name] = WORDS[name] and value or tonumber(value)
  end
  return terms
end

-- The room, or nil if it was never made.
local function load_room()
  local names = { "terms" }
  for _, name in ipairs(TEXTS) do names[#names + 1] = name end
  for _, name in ipairs(NUMBERS) do names[#names + 1] = name end
  local values = call("HMGET", HEAD, unpack(names))
  if not values[1] then return nil end
  local room = { terms = terms_of_text(values[1]) }
  for index, name in ipairs(TEXTS) do room[name] = values[1 + index] end
  for index, name in ipairs(NUMBERS) do room[name] = tonumber(values[1 + #TEXTS + index] or "0") end -- a room of an earlier version has no pace_min
  return room
end

-- The lists that only some commands need: "number:first index" of each window, "moment:mark:places left" of each call.
local function list_of(room, name)
  if not room[name] then room[name] = call("HGET", HEAD, name) end
  return room[name]
end

local function is_over(room, now_ms)
  return room.closed_at_ms > 0 or now_ms >= room.terms.closes_at_ms
end

local function window_at(terms, now_ms)
  if now_ms < terms.opens_at_ms then return 0 end
  return 1 + math.floor((now_ms - terms.opens_at_ms) / terms.window_ms)
end

-- How many tickets are in windows that have ended.
local function tickets_ordered(room, changed_at_ms)
  if room.window < 0 or room.closed_at_ms > 0 or room.window < window_at(room.terms, changed_at_ms) then return room.tickets end
  return room.window_first
end

-- What is told of the room, as a line: DONE, "p" if it was so before, the time, and all that there is.
local function seen(room, now_ms, flags)
  local parts = { "DONE", flags or "", int(math.max(now_ms, room.now_ms)) }
  for _, name in ipairs(NUMBERS) do parts[#parts + 1] = int(room[name]) end
  for _, name in ipairs(TEXTS) do parts[#parts + 1] = room[name] end
  parts[#parts + 1] = list_of(room, "windows")
  parts[#parts + 1] = list_of(room, "calls")
  parts[#parts + 1] = room.terms.text
  return concat(parts, TAB)
end

local function time_given()
  local given_ms, touches = string.match(ARGV[1], "^(%d*)(%+?)$")
  local now_ms = tonumber(given_ms)
  if not now_ms then
    local time = call("TIME")
    now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return now_ms, touches == "+"
end
