-- consumer_groups: consumers that share an office's events. Mirrors domain/consumer_groups.py.
--
-- The groups are fields of the head: "group:" .. name -> the highest delivered number, and a row for each lease (first,
-- last, consumer, since_ms). Leases are ranges of numbers, so a group is bounded. The server's own consumer groups keep an
-- entry for every open event, use a clock that no test can set, and do not stop XTRIM.
--
-- KEYS  1 head; 2 events; 3 choices
-- ARGV  1 see shared/call.lua; 2 the operation; 3 ... its arguments:
--         read group consumer limit min_idle_ms   reply "OK", the events as XRANGE has them, the choices if there are events
--         acknowledge group ranges                reply "OK", how many were open; ranges are first-last, sorted, with commas
--         create group after                      reply "OK", 1 if it is new
--         delete group                            reply "OK", 1 if it existed
--         list                                    reply "OK", number of the last event, then name and text of each group
--         trim through                            reply "OK", how many events are left
-- reply "FULL" instead of "OK" if the office has GROUPS_MAX groups. If the fence is checked, one more element: see
--       line() of shared/fence.lua
-- error FENCED, BEHIND: nothing was done
--
-- The loader defines GROUPS_MAX and PENDING_MAX.

local HEAD, EVENTS, CHOICES = KEYS[1], KEYS[2], KEYS[3]
local call = redis.call
local PREFIX = "group:"

local function group_of_text(text)
  local rows = split(text, NEWLINE)
  local leases = {}
  for row = 2, #rows do
    local fields = split(rows[row], TAB)
    leases[row - 1] = {
      first = tonumber(fields[1]), last = tonumber(fields[2]), consumer = fields[3], since_ms = tonumber(fields[4]),
    }
  end
  return { delivered = tonumber(rows[1]), leases = leases }
end

local function text_of_group(group)
  local rows = { int(group.delivered) }
  for index, lease in ipairs(group.leases) do
    rows[index + 1] = concat({ int(lease.first), int(lease.last), lease.consumer, int(lease.since_ms) }, TAB)
  end
  return concat(rows, NEWLINE)
end

local function acknowledged(group)
  return group.leases[1] and group.leases[1].first - 1 or group.delivered
end

local function open_events(group)
  local numbers = 0
  for _, lease in ipairs(group.leases) do numbers = numbers + lease.last - lease.first + 1 end
  return numbers
end

local function new_group(after, first, last)
  return { delivered = math.min(math.max(after, first - 1), last), leases = {} }
end

local function drop_trimmed(group, first)
  local leases = {}
  for _, lease in ipairs(group.leases) do
    if lease.last >= first then
      leases[#leases + 1] = {
        first = math.max(lease.first, first), last = lease.last, consumer = lease.consumer, since_ms = lease.since_ms,
      }
    end
  end
  return { delivered = math.max(group.delivered, first - 1), leases = leases }
end

local function by_first(one, other)
  return one.first < other.first
end

-- Join adjacent leases of one consumer and one moment.
local function joined(leases)
  local found = {}
  for _, lease in ipairs(leases) do
    local before = found[#found]
    if before and before.last + 1 == lease.first and before.consumer == lease.consumer and before.since_ms == lease.since_ms then
      found[#found] = { first = before.first, last = lease.last, consumer = lease.consumer, since_ms = lease.since_ms }
    else
      found[#found + 1] = lease
    end
  end
  return found
end

local function take(group, consumer, limit, min_idle_ms, now_ms, last)
  local wanted, taken, left = limit, {}, {}
  local in_turn = {}
  for _, lease in ipairs(group.leases) do
    if lease.consumer == consumer then in_turn[#in_turn + 1] = lease end
  end
  for _, lease in ipairs(group.leases) do
    if lease.consumer ~= consumer then in_turn[#in_turn + 1] = lease end
  end
  for _, lease in ipairs(in_turn) do
    local may_have = lease.consumer == consumer or now_ms - lease.since_ms >= min_idle_ms
    local units = may_have and math.min(wanted, lease.last - lease.first + 1) or 0
    wanted = wanted - units
    if units > 0 then
      taken[#taken + 1] = { first = lease.first, last = lease.first + units - 1, consumer = consumer, since_ms = now_ms }
    end
    if lease.first + units <= lease.last then
      left[#left + 1] = {
        first = lease.first + units, last = lease.last, consumer = lease.consumer, since_ms = lease.since_ms,
      }
    end
  end
  local new = math.max(0, math.min(wanted, PENDING_MAX - open_events(group), last - group.delivered))
  if new > 0 then
    taken[#taken + 1] = { first = group.delivered + 1, last = group.delivered + new, consumer = consumer, since_ms = now_ms }
  end
  sort(taken, by_first)
  local given = joined(taken)
  local leases = left
  for _, lease in ipairs(given) do leases[#leases + 1] = lease end
  sort(leases, by_first)
  return { delivered = group.delivered + new, leases = joined(leases) }, given
end

local function acknowledge(group, ranges)
  local leases, at = {}, 1
  for _, lease in ipairs(group.leases) do
    local first = lease.first
    while ranges[at] and ranges[at].last < first do at = at + 1 end
    local next_at = at -- the last range of this lease may extend into the next lease
    while ranges[next_at] and ranges[next_at].first <= lease.last do
      if ranges[next_at].first > first then
        leases[#leases + 1] = { first = first, last = ranges[next_at].first - 1, consumer = lease.consumer, since_ms = lease.since_ms }
      end
      first = math.max(first, ranges[next_at].last + 1)
      at, next_at = next_at, next_at + 1
    end
    if first <= lease.last then
      leases[#leases + 1] = { first = first, last = lease.last, consumer = lease.consumer, since_ms = lease.since_ms }
    end
  end
  local after = { delivered = group.delivered, leases = leases }
  return after, open_events(group) - open_events(after)
end

local function ranges_of_text(text)
  local ranges = {}
  for index, range in ipairs(names(text)) do
    local first, last = string.match(range, "^(%d+)-(%d+)$")
    ranges[index] = { first = tonumber(first), last = tonumber(last) }
  end
  return ranges
end

local now_ms, touches, checks_fence, seen = call_time()
local fences, fence
if checks_fence == "@" then
  fences = load_fence()
  fence = fences.check(seen, now_ms)
  if fence.problem then return redis.error_reply(fence.problem) end
end

-- The stored groups; the numbers of the first kept event and of the last one; and the time of the last event, before which
-- no command happens.
local texts, order = {}, {}
local number, now_ms_min = 0, 0
local head = call("HGETALL", HEAD)
for index = 1, #head, 2 do
  local field, value = head[index], head[index + 1]
  if field == "number" then number = tonumber(value) end
  if field == "now_ms" then now_ms_min = tonumber(value) end
  if string.sub(field, 1, #PREFIX) == PREFIX then
    local name = string.sub(field, #PREFIX + 1)
    texts[name], order[#order + 1] = value, name
  end
end
check_leap(now_ms, now_ms_min)
local oldest = call("XRANGE", EVENTS, "-", "+", "COUNT", 1)[1]
local first_number = oldest and tonumber(string.match(oldest[1], "^%d+")) or number + 1
now_ms = math.max(now_ms, now_ms_min)

local function group_of(name)
  return texts[name] and drop_trimmed(group_of_text(texts[name]), first_number) or nil
end

local function store_group(name, group)
  local text = text_of_group(group)
  if text ~= texts[name] then call("HSET", HEAD, PREFIX .. name, text) end
end

local HANDLERS = {}

function HANDLERS.read(name, consumer, limit, min_idle_ms)
  local group = group_of(name)
  if not group and #order >= GROUPS_MAX then return { "FULL" } end
  local after, given = take(
    group or new_group(0, first_number, number), consumer, tonumber(limit), tonumber(min_idle_ms), now_ms, number
  )
  store_group(name, after)
  local entries = {}
  for _, lease in ipairs(given) do
    for _, entry in ipairs(call("XRANGE", EVENTS, int(lease.first) .. "-0", int(lease.last) .. "-0")) do
      entries[#entries + 1] = entry
    end
  end
  return { "OK", entries, #entries > 0 and call("HGETALL", CHOICES) or {} }
end

function HANDLERS.acknowledge(name, ranges)
  local group = group_of(name)
  if not group then return { "OK", 0 } end
  local after, closed = acknowledge(group, ranges_of_text(ranges))
  store_group(name, after)
  return { "OK", closed }
end

function HANDLERS.create(name, after)
  if texts[name] then return { "OK", 0 } end
  if #order >= GROUPS_MAX then return { "FULL" } end
  store_group(name, new_group(tonumber(after), first_number, number))
  return { "OK", 1 }
end

function HANDLERS.delete(name)
  return { "OK", call("HDEL", HEAD, PREFIX .. name) }
end

function HANDLERS.list()
  local reply = { "OK", int(number) }
  for _, name in ipairs(order) do
    reply[#reply + 1], reply[#reply + 2] = name, text_of_group(group_of(name))
  end
  return reply
end

function HANDLERS.trim(through)
  local last = tonumber(through)
  for _, name in ipairs(order) do last = math.min(last, acknowledged(group_of(name))) end
  call("XTRIM", EVENTS, "MINID", int(last + 1) .. "-0")
  return { "OK", call("XLEN", EVENTS) }
end

-- An office without a ledger has no groups, and a request creates none.
local NOTHING = { read = { "OK", {}, {} }, list = { "OK", "0" } }
local reply
if number == 0 then
  reply = NOTHING[ARGV[2]] or { "OK", 0 }
else
  reply = HANDLERS[ARGV[2]](ARGV[3], ARGV[4], ARGV[5], ARGV[6])
  if touches == "+" then call("HSET", HEAD, "~", "") end
end
if fence then reply[#reply + 1] = fences.line(fence) end
return reply
