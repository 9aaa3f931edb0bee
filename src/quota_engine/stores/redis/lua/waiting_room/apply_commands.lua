-- apply_commands: applies commands to one waiting room, one after the other, at one time. Mirrors waiting_room/machine.py
-- function by function.
--
-- KEYS  see room.lua
-- ARGV  see shared/call.lua. Each line is a command: its name and its fields, separated by tabs.
-- reply a line for each command. Of a join that has a ticket: its number; then ":epoch" unless that is the first one; then "p"
--       if replayed. Of a command that returns the room: what view() writes. Otherwise the status, then a tab and the time to
--       retry at or the epoch of the room, if there is one. If the fence is checked, one more line: see line() of
--       shared/fence.lua
-- error ILLFORMED, FENCED, BEHIND: no command was applied
--
-- The loader defines RETENTION_MARGIN_MS and MINUTE_MS.

local room -- nil if it was never created
local changed = {} -- the names of the fields to write back

local function set(name, value)
  room[name], changed[name] = value, true
end

-- text: the fields of RoomConfig, separated by tabs
local function create(text, now_ms)
  if room then
    if room.config.text == text then return view(room, now_ms, "p") end
    return "CONFLICT"
  end
  local config = config_of_text(text)
  if now_ms >= config.opens_at_ms then return "ROOM_CLOSED" end

  -- From here on it must succeed.
  room = { config = config, windows = "", calls = "", epoch_starts = "", seed = "", entropy = "", closing_seed = "" }
  changed = { config = true, windows = true, calls = true, epoch_starts = true, seed = true, entropy = true, closing_seed = true }
  for _, name in ipairs(NUMBERS) do set(name, 0) end
  set("now_ms", now_ms)
  set("window", -1)
  set("places_left", -1)
  set("epoch", EPOCH_FIRST)
  -- The epoch is later if the store has lost the room and an operator has opened its address again: see take_over.lua.
  local epoch = tonumber(call("HGET", HEAD, "epoch") or "") or EPOCH_FIRST
  if epoch > EPOCH_FIRST then add_epoch(room, epoch) end
  return view(room, now_ms)
end

-- Return a ticket as text: its number, and ":epoch" behind it unless that is the first one.
local function text_of_ticket(number)
  local epoch = room.epoch > EPOCH_FIRST and epoch_of(room, tonumber(number)) or EPOCH_FIRST
  return epoch == EPOCH_FIRST and number or number .. ":" .. int(epoch)
end

-- replaces_ticket: a ticket in the form of text_of_ticket, or ""
local function join(applicant, replaces_ticket, now_ms)
  if not room then return "NOT_FOUND" end
  local config, refusal = room.config, nil
  if is_over(room, now_ms) then
    refusal = "ROOM_CLOSED"
  elseif now_ms < config.join_opens_at_ms then
    refusal = "NOT_OPEN\t" .. int(config.join_opens_at_ms)
  elseif room.tickets >= config.tickets_max then
    refusal = "FULL"
  end
  local index = int(room.tickets)
  -- At an opening nearly all applicants are new, so one server call both checks and writes.
  if refusal or call("HSETNX", IDENTITIES, applicant, index) == 0 then
    local known = call("HGET", IDENTITIES, applicant)
    local known_ticket = known and text_of_ticket(known)
    if known and known_ticket ~= replaces_ticket then return known_ticket .. "p" end
    if refusal then return refusal end
    call("HSET", IDENTITIES, applicant, index)
  end

  -- From here on it must succeed; nothing above could fail once it had written.
  if not room.window_now then room.window_now = window_at(config, now_ms) end
  if room.window < room.window_now then
    local windows = list_of(room, "windows")
    set("windows", windows .. (windows == "" and "" or ",") .. int(room.window_now) .. ":" .. index)
    set("window", room.window_now)
    set("window_first", room.tickets)
  end
  room.tickets, changed.tickets = room.tickets + 1, true
  room.now_ms, changed.now_ms = now_ms, true
  return room.epoch == EPOCH_FIRST and index or text_of_ticket(index)
end

-- commitment: what the seed hashes to. Python computes it, because the server has no SHA-256.
-- epoch: the epoch that the sender has seen, 0 for the first one
local function open(seed, commitment, entropy, epoch, now_ms)
  if not room then return "NOT_FOUND" end
  local config = room.config
  if commitment ~= config.commitment or (entropy == "") ~= (config.entropy_source == "") then return "CONFLICT" end
  if room.seed ~= "" then
    if entropy == room.entropy then return view(room, now_ms, "p") end
    return "CONFLICT"
  end
  if is_over(room, now_ms) then return "ROOM_CLOSED" end
  -- By the store's clock: the caller's may be ahead.
  if now_ms < config.opens_at_ms then return "NOT_OPEN\t" .. int(config.opens_at_ms) end
  if config.entropy_source ~= "" and room.epoch ~= (epoch > 0 and epoch or EPOCH_FIRST) then
    return "EPOCH_CHANGED\t" .. int(room.epoch)
  end

  -- From here on it must succeed.
  set("seed", seed)
  set("entropy", entropy)
  set("opened_at_ms", now_ms)
  set("now_ms", now_ms)
  -- The tokens of one step are available at once, so that the first tickets are called at the opening.
  set("last_step_at_ms", now_ms - config.step_ms)
  set("per_minute", room.pace_max > 0 and room.pace_max or config.per_minute_max)
  return view(room, now_ms)
end

-- Return the lowest and the highest pace: the operator's, or the config's.
local function bounds()
  local config = room.config
  return room.pace_min > 0 and room.pace_min or config.per_minute_min, room.pace_max > 0 and room.pace_max or config.per_minute_max
end

-- Return the most tickets that one call takes. With fewer, the room could not keep a raised pace.
local function burst_at(per_minute_max)
  return math.max(room.config.burst, math.ceil(per_minute_max * room.config.step_ms / MINUTE_MS))
end

-- places_left: -1 if it is not known
local function call_tickets(per_minute, call_max, places_left, now_ms)
  if not room then return "NOT_FOUND" end
  local config = room.config
  local elapsed_ms = now_ms - room.last_step_at_ms
  if room.seed == "" or is_over(room, now_ms) or elapsed_ms < config.step_ms then return view(room, now_ms) end

  -- From here on it must succeed.
  local low, high = bounds()
  local tokens = math.min(burst_at(high) * MINUTE_MS, room.tokens + elapsed_ms * room.per_minute)
  -- After the time was corrected back, more tickets may be called already than are ordered.
  local ordered = math.max(tickets_ordered(room, now_ms) - room.called_count, 0)
  local calls = math.min(math.floor(tokens / MINUTE_MS), ordered, call_max)
  set("tokens", tokens - calls * MINUTE_MS)
  set("per_minute", math.min(math.max(per_minute, low), high))
  set("last_step_at_ms", now_ms)
  set("now_ms", now_ms)
  if places_left >= 0 then set("places_left", places_left) end
  local kept = {}
  for at_ms, mark, of_places_left in string.gmatch(list_of(room, "calls"), "(%d+):(%d+):(%-?%d+)") do
    -- A later time is of a clock that was corrected back since: these turns begin now.
    local called_at_ms = math.min(tonumber(at_ms), now_ms)
    if called_at_ms + config.turn_ms <= now_ms then
      set("turns_ended", tonumber(mark))
    else
      kept[#kept + 1] = int(called_at_ms) .. ":" .. mark .. ":" .. of_places_left
    end
  end
  if calls > 0 then
    set("called_count", room.called_count + calls)
    kept[#kept + 1] = int(now_ms) .. ":" .. int(room.called_count) .. ":" .. int(room.places_left)
  end
  set("calls", concat(kept, ","))
  return view(room, now_ms)
end

local function set_pace(low, high, now_ms)
  if not room then return "NOT_FOUND" end
  if is_over(room, now_ms) then return "ROOM_CLOSED" end
  local low_now, high_now = bounds()
  if low == low_now and high == high_now then return view(room, now_ms, "p") end

  -- From here on it must succeed.
  set("pace_min", low)
  set("pace_max", high)
  set("now_ms", now_ms)
  set("tokens", math.min(room.tokens, burst_at(high) * MINUTE_MS))
  if room.seed ~= "" then set("per_minute", math.min(math.max(room.per_minute, low), high)) end
  return view(room, now_ms)
end

-- commitment: what the late seed leads to, as Python computes it
local function close(closing_seed, commitment, now_ms)
  if not room then return "NOT_FOUND" end
  if commitment ~= room.config.commitment then return "CONFLICT" end
  if room.closed_at_ms > 0 then return view(room, now_ms, "p") end

  -- From here on it must succeed.
  set("closed_at_ms", now_ms)
  set("now_ms", now_ms)
  set("closing_seed", closing_seed)
  return view(room, now_ms)
end

local function advance_epoch(epoch_min, now_ms)
  if not room then return "NOT_FOUND" end
  add_epoch(room, math.max(room.epoch, epoch_min) + 1)
  changed.epoch, changed.epoch_starts = true, true
  return view(room, now_ms)
end

-- Parse a line that is not a join. Returns a function that applies the command, or nil if the line is ill-formed.
local function parse(line)
  local per_minute, call_max, left = string.match(line, "^call_tickets\t(%d+)\t(%d+)\t(%d*)$")
  if per_minute then
    return function(now_ms) return call_tickets(tonumber(per_minute), tonumber(call_max), tonumber(left) or -1, now_ms) end
  end
  local seed, commitment, epoch, entropy = string.match(line, "^open\t(%x+)\t(%x+)\t(%d+)\t([^\t]*)$")
  if seed then return function(now_ms) return open(seed, commitment, entropy, tonumber(epoch), now_ms) end end
  local low, high = string.match(line, "^set_pace\t(%d+)\t(%d+)$")
  if low then return function(now_ms) return set_pace(tonumber(low), tonumber(high), now_ms) end end
  local closing_seed, committed = string.match(line, "^close\t(%x+)\t(%x+)$")
  if closing_seed then return function(now_ms) return close(closing_seed, committed, now_ms) end end
  local epoch_min = string.match(line, "^advance_epoch\t(%d+)$")
  if epoch_min then return function(now_ms) return advance_epoch(tonumber(epoch_min), now_ms) end end
  local text = string.match(line, "^create\t(.+)$")
  if not text then return nil end
  local fields = split(text, TAB)
  if #fields ~= #CONFIG_FIELDS then return nil end
  for index, name in ipairs(CONFIG_FIELDS) do
    if not TEXT_FIELDS[name] and not string.find(fields[index], "^%d+$") then return nil end
  end
  return function(now_ms) return create(text, now_ms) end
end

-- Write back the changed fields. The keys expire some time after the room is forgotten.
local function write_back(now_ms)
  local pairs_of_head = {}
  for name in pairs(changed) do
    pairs_of_head[#pairs_of_head + 1] = name
    local value = room[name]
    pairs_of_head[#pairs_of_head + 1] = name == "config" and value.text or type(value) == "number" and int(value) or value
  end
  if #pairs_of_head == 0 then return end
  call("HSET", HEAD, unpack(pairs_of_head))
  if changed.config then
    call("HSET", HEAD, "ends_at_ms", int(room.config.forget_at_ms))
    call("HSET", IDENTITIES, "~", "")
    for _, key in ipairs(KEYS) do call("PEXPIRE", key, int(room.config.forget_at_ms - now_ms + RETENTION_MARGIN_MS)) end
  end
end

local now_ms, touches, checks_fence, seen = call_time()
local fences, fence
if checks_fence == "@" then
  fences = load_fence()
  fence = fences.check(seen, now_ms)
  if fence.problem then return redis.error_reply(fence.problem) end
end
-- Nearly all lines are joins, so no function is created for them.
local commands, applicants, replaced = {}, {}, {}
for index = 2, #ARGV do
  local applicant, replaces_ticket = string.match(ARGV[index], "^join\t([%w_-]+)\t([%d:]*)$")
  applicants[index - 1], replaced[index - 1] = applicant or false, replaces_ticket or false
  commands[index - 1] = applicant or parse(ARGV[index])
  if not commands[index - 1] then return ill_formed(index - 1) end
end
local begins_epoch
room, begins_epoch = load_room()
if begins_epoch then changed.epoch_starts = true end
check_leap(now_ms, room and room.now_ms or 0)
if room then now_ms = math.max(now_ms, room.now_ms) end
if room and now_ms >= room.config.forget_at_ms then
  for _, key in ipairs(KEYS) do call("PEXPIRE", key, 0) end -- deletes, and needs no further permission
  room, changed = nil, {}
end
local lines = {}
for index, command in ipairs(commands) do
  lines[index] = applicants[index] and join(applicants[index], replaced[index], now_ms) or command(now_ms)
end
write_back(now_ms)
if touches == "+" and room then call("HSET", HEAD, "~", "") end
if fence then
  local may_be_new = changed.config or not room or not fence.server
  lines[#lines + 1] = may_be_new and fences.write(fence) or fences.line(fence)
end
return lines
