-- room: the state of one waiting room, read from its keys once for each call. Mirrors waiting_room/machine.py.
--
-- KEYS  1 head        hash    the room's config and all of its counters: see NUMBERS and TEXTS; and the fields of
--                             shared/fence.lua
--       2 identities  hash    applicant -> number of their ticket
--
-- Both keys always exist once the room is created; the second one has a "~" without a meaning. A cluster that moves a slot
-- refuses commands when only some of their keys exist. Questions store nothing.
--
-- The loader defines CONFIG_FIELDS, the fields of RoomConfig in order, TEXT_FIELDS, those of them that are not numbers,
-- EPOCH_FIRST and EPOCH_STARTS_MAX.

local call = redis.call
local HEAD, IDENTITIES = KEYS[1], KEYS[2]

-- All lists below have the numbers in this order. The last window has window and window_first; without one, window is -1.
-- Before the first count, places_left is -1. Times are 0 until they come. A store that takes the room over raises the epoch,
-- and only that; load_room() adds its start to epoch_starts, a list of "epoch:tickets".
local NUMBERS = {
  "now_ms", "tickets", "window", "window_first", "opened_at_ms", "called_count", "turns_ended", "tokens", "per_minute",
  "last_step_at_ms", "places_left", "closed_at_ms", "pace_min", "pace_max", "epoch",
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

-- Return a list that only some commands need: "number:first index" of each window, or "time:called_count:places_left" of
-- each call.
local function list_of(room, name)
  if not room[name] then room[name] = call("HGET", HEAD, name) end
  return room[name]
end

-- Begin an epoch of the room: add it to epoch_starts. Mirrors domain/epochs.py.
local function add_epoch(room, epoch)
  local starts, kept = {}, {}
  for known, first in string.gmatch(list_of(room, "epoch_starts"), "(%d+):(%d+)") do
    if tonumber(first) < room.tickets then starts[#starts + 1] = known .. ":" .. first end
  end
  starts[#starts + 1] = int(epoch) .. ":" .. int(room.tickets)
  for index = math.max(1, #starts - EPOCH_STARTS_MAX + 1), #starts do kept[#kept + 1] = starts[index] end
  room.epoch, room.epoch_starts = epoch, concat(kept, ",")
end

-- Return the epoch in which the room gave a ticket.
local function epoch_of(room, index)
  local epoch = EPOCH_FIRST
  if room.epoch > EPOCH_FIRST then
    for known, first in string.gmatch(list_of(room, "epoch_starts"), "(%d+):(%d+)") do
      if index >= tonumber(first) then epoch = tonumber(known) end
    end
  end
  return epoch
end

-- Return the room, or nil if it was never created; then true if its epoch has just begun.
local function load_room()
  local names = { "config" }
  for _, name in ipairs(TEXTS) do names[#names + 1] = name end
  for _, name in ipairs(NUMBERS) do names[#names + 1] = name end
  local values = call("HMGET", HEAD, unpack(names))
  if not values[1] then return nil end
  local room = { config = config_of_text(values[1]) }
  for index, name in ipairs(TEXTS) do room[name] = values[1 + index] end
  for index, name in ipairs(NUMBERS) do room[name] = tonumber(values[1 + #TEXTS + index]) end
  if room.epoch == EPOCH_FIRST or string.match(list_of(room, "epoch_starts"), "(%d+):%d+$") == int(room.epoch) then
    return room
  end
  add_epoch(room, room.epoch)
  return room, true
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

-- Return the room as a line: DONE, "p" if replayed, the time, the numbers, the texts, windows, calls, epoch_starts and config.
local function view(room, now_ms, flags)
  local parts = { "DONE", flags or "", int(math.max(now_ms, room.now_ms)) }
  for _, name in ipairs(NUMBERS) do parts[#parts + 1] = int(room[name]) end
  for _, name in ipairs(TEXTS) do parts[#parts + 1] = room[name] end
  parts[#parts + 1] = list_of(room, "windows")
  parts[#parts + 1] = list_of(room, "calls")
  parts[#parts + 1] = list_of(room, "epoch_starts")
  parts[#parts + 1] = room.config.text
  return concat(parts, TAB)
end
