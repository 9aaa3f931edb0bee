-- reads: looking at one office's ledger without changing it. Mirrors domain/reading.py: what time has decided counts, whether or not a
-- command has settled it yet.
--
-- ARGV  1 now_ms, or "" for the server's own time; 2 ... "lookup" id, or "view" day, set apart by tabs
-- reply a line for each, "" for what is not known. Of a lookup: the reservation as commands.lua has it. Of a view: opens_at_ms,
--       starts_at_ms, ends_at_ms, closed, waiting; then for each quota its name, capacity, free, held, confirmed, cooling, parked

local function lookup(id, now_ms)
  local record = record_of(id)
  if not record or day_of(record.day).forget_at_ms <= now_ms then return "" end
  if record.state == "HELD" and record.deadline_ms <= now_ms then record = changed(record, { state = "EXPIRED" }) end
  return concat({ record.id, choice_of(record.choice).text, text_of_record(record) }, TAB)
end

-- Let time pass on the day's counters, which are not written back: the same as settling, but for the events.
local function project(day, now_ms)
  for _, quotas in ipairs(in_order(day)) do
    local prefix = int(day.number) .. SLASH .. quotas .. SLASH
    for _, member in ipairs(call("ZRANGEBYLEX", DUE, "[" .. prefix, "(" .. prefix .. padded(now_ms + 1))) do
      local id = string.sub(member, #prefix + 17)
      local record = record_of_text(id, call("HGET", RECORDS, id))
      local expired = changed(record, {})
      for _, name in ipairs(names(quotas)) do
        local quota = day.quotas[name]
        quota.held = quota.held - record.units
        local free, cooling, parked, due_at_ms = returned(quota, record.units, expired, record.deadline_ms)
        if cooling > parked and due_at_ms <= now_ms then free, cooling = free + cooling, 0 end
        quota.free, quota.cooling, quota.parked = quota.free + free, quota.cooling + cooling, quota.parked + parked
      end
    end
  end
  for _, quota in ipairs(day.order) do
    local prefix = int(day.number) .. SLASH .. quota.name .. SLASH
    for _, member in ipairs(call("ZRANGEBYLEX", COOLING, "[" .. prefix, "(" .. prefix .. padded(now_ms + 1))) do
      local units = tonumber(string.match(member, "^%d+/(%d+)/", #prefix + 1))
      quota.cooling, quota.free = quota.cooling - units, quota.free + units
    end
  end
  for _, quota in ipairs(day.order) do
    if quota.pass_to ~= "" and quota.pass_at_ms <= now_ms and quota.free > 0 then
      local target, units = day.quotas[quota.pass_to], quota.free
      quota.free, quota.capacity = quota.free - units, quota.capacity - units
      target.free, target.capacity = target.free + units, target.capacity + units
    end
  end
end

local function view(number, now_ms)
  local text = call("HGET", DAYS, int(number))
  local day = text and day_of_text(number, text)
  if not day or day.forget_at_ms <= now_ms then return "" end
  if now_ms >= day.next_due_ms then project(day, now_ms) end
  local parts = {
    int(day.opens_at_ms), int(day.starts_at_ms), int(day.ends_at_ms), day.closed and "1" or "0", int(day.waiting),
  }
  for _, quota in ipairs(day.order) do
    parts[#parts + 1] = concat({
      quota.name, int(quota.capacity), int(quota.free), int(quota.held), int(quota.confirmed), int(quota.cooling),
      int(quota.parked),
    }, COMMA)
  end
  return concat(parts, TAB)
end

load_head()
local now_ms = tonumber(ARGV[1])
if not now_ms then
  local time = call("TIME")
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
end
now_ms = math.max(now_ms, ledger.now_ms)
local lines = {}
for index = 2, #ARGV do
  local fields = split(ARGV[index], TAB)
  lines[index - 1] = fields[1] == "lookup" and lookup(fields[2], now_ms) or fields[1] == "view" and view(tonumber(fields[2]), now_ms)
    or ""
end
return lines
