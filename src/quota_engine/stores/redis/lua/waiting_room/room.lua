-- room: the state of one waiting room, read from its keys once for each call. Mirrors waiting_room/machine.py.
--
-- KEYS  1 head        hash    the room's config and all of its counters: see NUMBERS and TEXTS; and the fields of
--                             shared/fence.lua
--       2 identities  hash    applicant -> number of their ticket
--
-- Both keys always exist once the room is created; the second one has a "~" without a meaning. A cluster that moves a slot
-- refuses commands when only some of their keys exist. Questions store nothing.
--
-- The loader defines CONFIG_FIELDS, the fields of RoomConfig in order, and TEXT_FIELDS, those of them that are not numbers.

local call = redis.call
local HEAD, IDENTITIES = KEYS[1], KEYS[2]

-- All lists below have the numbers in this order. The last window has window and window_first; without one, window is -1.
-- Before the first count, places_left is -1. Times are 0 until they come.
local NUMBERS = {
  "now_ms", "tickets", "window", "window_first", "opened_at_ms", "called_count", "turns_ended", "tokens", "per_minute",
  "last_step_at_ms", "places_left", "closed_at_ms", "pace_min", "pace_max",
}
local TEXTS = { "seed", "entropy", "closing_seed" }

local function config_of_text(text)
  local config = { text = text }
  for index, value in ipairs(split(text, TAB)) do
    local name = CONFIG_FIELDS[index]
    config[name] = TEXT_FIELDS[name] and value or tonumber(value)
  end
  return config
end

-- Return the room, or nil if it was never created.
local function load_room()
  local names = { "config" }
  for _, name in ipairs(TEXTS) do names[#names + 1] = name end
  for _, name in ipairs(NUMBERS) do names[#names + 1] = name end
  local values = call("HMGET", HEAD, unpack(names))
  if not values[1] then return nil end
  local room = { config = config_of_text(values[1]) }
  for index, name in ipairs(TEXTS) do room[name] = values[1 + index] end
  -- Rooms of an earlier version have no pace_min and no pace_max.
  for index, name in ipairs(NUMBERS) do room[name] = tonumber(values[1 + #TEXTS + index] or "0") end
  return room
end

-- Return a list that only some commands need: "number:first index" of each window, or "time:called_count:places_left" of
-- each call.
local function list_of(room, name)
  if not room[name] then room[name] = call("HGET", HEAD, name) end
  return room[name]
end

local function is_over(room, now_ms)
  return room.closed_at_ms > 0 or now_ms >= room.config.closes_at_ms
end

local function window_at(config, now_ms)
  if now_ms < config.opens_at_ms then return 0 end
  return 1 + math.floor((now_ms - config.opens_at_ms) / config.window_ms)
end

-- Return the number of tickets in windows that have ended.
local function tickets_ordered(room, changed_at_ms)
  if room.window < 0 or room.closed_at_ms > 0 or room.window < window_at(room.config, changed_at_ms) then
    return room.tickets
  end
  return room.window_first
end

-- Return the room as a line: DONE, "p" if replayed, the time, the numbers, the texts, windows, calls and config.
local function view(room, now_ms, flags)
  local parts = { "DONE", flags or "", int(math.max(now_ms, room.now_ms)) }
  for _, name in ipairs(NUMBERS) do parts[#parts + 1] = int(room[name]) end
  for _, name in ipairs(TEXTS) do parts[#parts + 1] = room[name] end
  parts[#parts + 1] = list_of(room, "windows")
  parts[#parts + 1] = list_of(room, "calls")
  parts[#parts + 1] = room.config.text
  return concat(parts, TAB)
end
