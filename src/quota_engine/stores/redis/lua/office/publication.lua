-- publication: publishes a day, and changes the quotas of a day that is booked already. Mirrors
-- domain/publication.py and domain/quota_replacement.py. The body of load_publication(); see state_machine.lua.

-- Return true if publishing the day again changes nothing. Capacities do not count, because operators may set them.
local function is_published(day, new)
  if day.times ~= new.times or #quotas_of(day) ~= #quotas_of(new) then return false end
  for _, quota in ipairs(quotas_of(new)) do
    local old = day.quotas[quota.name]
    if not old or old.terms ~= quota.terms then return false end
  end
  return true
end

-- Return new names of the day's quotas by their old ones. The text has "old:new" for each, separated by commas.
local function renamed_quotas(day, text)
  local renamed = {}
  for old, name in string.gmatch(text, "([^:,]+):([^:,]+)") do
    if day.quotas[old] then renamed[old] = name end
  end
  return renamed
end

-- Return the units of people on quotas that the new day neither has nor renames: held, confirmed and waiting.
local function people_on_lacking_quotas(day, new, renamed)
  local lacking, people = {}, 0
  for _, quota in ipairs(quotas_of(day)) do
    if not new.quotas[quota.name] and not renamed[quota.name] then
      lacking[quota.name] = true
      people = people + quota.held + quota.confirmed
    end
  end
  if not next(lacking) or day.waiting == 0 then return people end
  local first = day.number * EVENT_NUMBERS
  for _, id in ipairs(call("ZRANGEBYSCORE", WAITING, int(first), int(first + EVENT_NUMBERS - 1))) do
    local record, named = record_of_text(id, record_text(id)), {}
    for _, option in ipairs(choice_of(record.choice).options) do
      for _, name in ipairs(option.quotas) do
        if lacking[name] and not named[name] then
          named[name] = true
          people = people + record.units
        end
      end
    end
  end
  return people
end

local function overbooked_units(day)
  local units = 0
  for _, quota in ipairs(quotas_of(day)) do units = units + math.max(0, -quota.free) end
  return units
end

-- Call visit(id, text) for each record of a day. Scans the office.
local function visit_records(day, visit)
  flush()
  local cursor, seen = "0", {}
  repeat
    local scanned = call("HSCAN", RECORDS, cursor, "COUNT", 1000)
    cursor = scanned[1]
    for index = 1, #scanned[2], 2 do
      local id, text = scanned[2][index], scanned[2][index + 1]
      if not seen[id] and string.match(text, "^%u%d+%.?%w*\t(%d+)\t") == day.text then
        seen[id] = text
      end
    end
  until cursor == "0"
  for id, text in pairs(seen) do visit(id, text) end
end

-- Give the day's reservations the new names of their quotas and all guards that count them, and count again.
local function rewrite_reservations(day, renamed, now_ms)
  for _, quota in ipairs(quotas_of(day)) do quota.held, quota.confirmed = 0, 0 end
  visit_records(day, function(id, text)
    local record = record_of_text(id, text)
    if not ACTIVE[record.state] and record.state ~= "EXPIRED" then return end
    local old_choice = choice_of(record.choice)
    local choice = guards().rewrite_choice(renamed, day, old_choice)
    if choice.text ~= old_choice.text then
      if record.state == "HELD" then due_changes[due_member(record)] = false end
      if record.option ~= "" then
        record.quotas = guards().rewrite_option(renamed, guards().matching(day, choice), names(record.quotas))
        for _, option in ipairs(choice.options) do
          if option.text == record.quotas then record.option = option.letter end
        end
      end
      if record.state == "WAITING" then wait_list().leave(record) end
      record.choice = index_of(choice, day.number)
      write_record(id, text_of_record(record))
      if record.state == "HELD" then push_due(day, record) end
      if record.state == "WAITING" then wait_list().join(record) end
    end
    local bucket = CONSUMING[record.state]
    for _, name in ipairs(bucket and names(record.quotas) or NOTHING) do
      local quota = day.quotas[name]
      quota[bucket] = quota[bucket] + record.units
    end
  end)
  for _, quota in ipairs(quotas_of(day)) do
    add_free(quota, quota.capacity - quota.held - quota.confirmed - quota.cooling - quota.free, now_ms)
  end
end

-- Give the cooling units of a quota to another one, or delete them if there is none.
local function move_cooling(day, old, name)
  local prefix = day.text .. SLASH .. old .. SLASH
  for _, member in ipairs(call("ZRANGEBYLEX", COOLING, "[" .. prefix, "(" .. prefix .. ":")) do
    call("ZREM", COOLING, member)
    if name then call("ZADD", COOLING, 0, day.text .. SLASH .. name .. SLASH .. string.sub(member, #prefix + 1)) end
  end
end

-- Give a known day the quotas of new terms. Known ones keep their capacity, and renamed ones their people.
local function replace_quotas(day, new, renamed, now_ms)
  local order, by_name, old_quotas, old_guards = {}, {}, day.quotas, COMMA .. day.guards .. COMMA
  local old_order = quotas_of(day)
  for _, quota in ipairs(old_order) do
    local old = quota.name
    local name = renamed[old] or old
    local joins_another = name ~= old and old_quotas[name]
    if new.quotas[name] and not joins_another then
      order[#order + 1], by_name[name] = quota, quota
    end
    if name ~= old or not new.quotas[name] then move_cooling(day, old, new.quotas[name] and name) end
  end
  for _, quota in ipairs(quotas_of(new)) do
    local known = by_name[quota.name]
    if known then
      known.terms, known.guard = quota.terms, quota.guard
      known.rule, known.cooling_ms, known.jitter_ms = quota.rule, quota.cooling_ms, quota.jitter_ms
      known.reallocate_to, known.reallocate_at_ms = quota.reallocate_to, quota.reallocate_at_ms
      known.blocks_ms = quota.blocks_ms
    else
      order[#order + 1], by_name[quota.name] = quota, quota
    end
  end
  for _, old in ipairs(old_order) do
    local target = by_name[renamed[old.name]]
    if target and target ~= old then
      target.parked, target.cooling = target.parked + old.parked, target.cooling + old.cooling
    end
  end
  for name, quota in pairs(by_name) do quota.name = name end
  by_name[1] = "" -- no rows are left to parse
  day.quotas, day.order, day.row_texts = setmetatable(by_name, LAZY), order, nil
  local texts, is_rewritten = {}, next(renamed) ~= nil
  for _, quota in ipairs(order) do
    if quota.guard ~= "" then
      local guard = quota.name .. SLASH .. quota.guard
      texts[#texts + 1] = guard
      is_rewritten = is_rewritten or not string.find(old_guards, COMMA .. guard .. COMMA, 1, true)
    end
  end
  day.guards, day.completed, day.completed_count = concat(texts, COMMA), {}, 0
  if is_rewritten then rewrite_reservations(day, renamed, now_ms) end
end

-- fields: name, day, the day as text (tabs and newlines written as "\1" and "\2"), new names of quotas, its terms, which stay
-- opaque here
local function publish(fields, now_ms)
  local number, text = tonumber(fields[2]), string.gsub(string.gsub(fields[3], "\1", TAB), "\2", NEWLINE)
  local new = day_of_text(number, text)
  if new.forget_at_ms <= now_ms or number <= forgotten_day_max() then return outcome("DAY_OVER") end
  local day, renamed, overbooked = day_of(number), nil, 0
  if day then
    settle(day, now_ms, SETTLE_MAX)
    if is_published(day, new) then return outcome("DONE", nil, { flags = "p" }) end
    renamed = renamed_quotas(day, fields[4])
    local people = people_on_lacking_quotas(day, new, renamed)
    if people > 0 then return outcome("QUOTA_IN_USE", nil, { units = people }) end
    overbooked = overbooked_units(day)
  end

  -- From here on it must succeed.
  append(now_ms, concat({ "day_published", int(now_ms), int(number), fields[5] }, TAB))
  call("HSET", DAYS, "t" .. int(number), fields[5])
  if day then
    replace_quotas(day, new, renamed, now_ms)
    for _, field in ipairs({ "times", "opens_at_ms", "starts_at_ms", "ends_at_ms", "forget_at_ms", "sessions" }) do day[field] = new[field] end
    day.valid, day.valid_count = {}, 0
    day.revision = day.revision + 1
    day.next_due_ms = 0
    overbooked = math.max(0, overbooked_units(day) - overbooked)
    distribute_free_units(day, now_ms)
  else
    day, ledger.days[number] = new, new
  end
  mark_changed(day)
  ledger.renewed = true
  return outcome("DONE", nil, { overbooked = overbooked })
end

return publish
