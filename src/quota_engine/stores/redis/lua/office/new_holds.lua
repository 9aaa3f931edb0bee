-- new_holds: the fast path of reserves of one applicant that take a free place. At an opening nearly all commands are such.
-- It does the same as reserve() and reservation_held(), on a day that this server knows from an earlier call. Everything else
-- takes the general path, which is these functions. Body of load_new_holds(), which only functions that outlive a call need (IS_KEPT).

local SINGLE = "^reserve\t(" .. NAME .. ")\t(%d+)\t([%w_%-%.]+)\t()"
local HOLDS_MAX = ARGUMENTS_MAX / 2 -- written together

-- The commands of a call, and the parts of reserves of one applicant, by their position. All tables here stay from call to
-- call, because making and growing them costs as much as a server call.
local commands, ids, numbers, parties, options_of = {}, {}, {}, {}, {}
local record_pairs, claim_pairs, due_pairs, held_days = {}, {}, {}, {} -- arguments of server calls; days to write
local holders, holders_count, write_number = {}, 0, 0 -- id or party of a hold -> the number of its write

-- Parse every line before the first command is applied, as parse_commands() does. Returns the commands, an error
-- reply or nil, and how many of the first commands are reserves of one applicant: these are false among the commands.
local function parse_call()
  local singles = 0
  for index = 1, #ARGV - 1 do
    local line, options, id, number, party, options_from = ARGV[index + 1], nil, nil, nil, nil, nil
    if singles == index - 1 then
      id, number, party, options_from = match(line, SINGLE)
      options = id and #number <= DIGITS_MAX and known_options(sub(line, options_from))
    end
    if options then
      ids[index], numbers[index], parties[index], options_of[index], commands[index] = id, number, party, options, false
      singles = index
    else
      commands[index] = parse(line)
      if not commands[index] then return nil, ill_formed(index) end
    end
  end
  return commands, nil, singles
end

-- Return the day of a reserve, the first option of its choice and the index of the choice. Return nil if anything else needs to
-- be done on the day, before the hold or because of it.
local function usable_day(number, choice, now_ms, deadline_at_ms)
  local day = office.days[known_number(number)]
  if not day or day.reads ~= office.reads or day.text ~= number then return nil end
  local valid, option = day.valid[choice], choice.options[1]
  if not valid or not valid.index or now_ms >= valid.until_ms or now_ms >= day.next_due_ms
      or deadline_at_ms < day.next_due_ms or not day.front or not day.due[option.text] or day.waiting > 0 or day.closed then
    return nil
  end
  return day, option, valid.index
end

local function has_free_unit(day, option)
  local quotas, needed = day.quotas, option.quotas
  for index = 1, #needed do
    if quotas[needed[index]].free < 1 then return false end
  end
  return true
end

local function is_penalized(party)
  if office.has_penalties == nil then office.has_penalties = call("HLEN", PENALTIES) > 1 end
  return office.has_penalties and call("HGET", PENALTIES, party)
end

local function take_unit(day, option)
  local quotas, needed, newly_held = day.quotas, option.quotas, day.newly_held
  for index = 1, #needed do
    local name = needed[index]
    local quota = quotas[name]
    quota.free, quota.held, newly_held[name] = quota.free - 1, quota.held + 1, true
  end
end

-- Write a day after a hold on its only quota, whose row is remembered. The new row is not, so the quota stays in newly_held.
local function write_only_row(day, row, quota)
  day.written = day.front .. row[2] .. format(COUNTS, quota.free, quota.held) .. row[3]
  call("HSET", DAYS, day.text, day.written)
end

-- Note the last event in the head.
local function end_write(now_ms, now_text, number, number_text)
  call("HSET", HEAD, "now_ms", now_text, "number", number_text, "write_id", new_write_id())
  office.now_ms, office.number = now_ms, number
end

-- Apply the only command of a call. Returns its reply, or nil if it needs anything but a free place: then nothing is written.
local function hold_alone(now_ms)
  local number, options, party, id, rules = numbers[1], options_of[1], parties[1], ids[1], office.rules
  local ttl_ms = options.hold_ttl_ms > 0 and options.hold_ttl_ms or rules.hold_ttl_ms
  local at_ms = now_ms + ttl_ms
  local day, option, index = usable_day(number, options.choice, now_ms, at_ms)
  if not day or not has_free_unit(day, option) or call("HGET", RECORDS, id) or call("HGET", CLAIMS, party) or is_penalized(party) then
    return nil
  end

  -- From here on it must succeed.
  local now_text, at_text, number_text = format(INT, now_ms), format(INT, at_ms), format(INT, office.number + 1)
  local text = "H1\t" .. number .. TAB .. short(now_ms) .. TAB .. short_duration(ttl_ms) .. TAB .. index .. option.letter .. TAB .. party
  local digits = #at_text == 13 and "00" .. at_text or padded(at_ms) -- the same, but one is faster
  call("XADD", EVENTS, number_text, "e", "R\t" .. id .. TAB .. text)
  call("HSET", RECORDS, id, text)
  call("HSET", CLAIMS, party, id)
  call("ZADD", DUE, "0", number .. SLASH .. option.text .. SLASH .. digits .. SLASH .. id)
  take_unit(day, option)
  local only_row = not day.row_texts[2] and day.rows[option.text]
  if only_row then
    write_only_row(day, only_row, day.quotas[option.text])
  else
    day.is_changed = true
    write_day(day)
  end
  end_write(now_ms, now_text, office.number + 1, number_text)
  local line = "NEW\t" .. now_text .. TAB .. at_text .. TAB .. option.index
  return rules.extensions_max > 0 and line .. TAB .. int(rules.extensions_max) or line
end

-- Apply the commands at these positions up to the first one that needs anything but a free place, and write them. Their
-- replies go into lines. Returns how many were applied.
local function hold_together(first, last, now_ms, lines)
  local rules, now_text, count, days_count = office.rules, format(INT, now_ms), 0, 0
  local number, options, day, option, record_front, due_front, line, texts, claims_of
  write_number = write_number + 1
  for at = first, last do
    if numbers[at] ~= number or options_of[at] ~= options then
      number, options = numbers[at], options_of[at]
      local ttl_ms = options.hold_ttl_ms > 0 and options.hold_ttl_ms or rules.hold_ttl_ms
      local at_ms, index = now_ms + ttl_ms, nil
      day, option, index = usable_day(number, options.choice, now_ms, at_ms)
      if not day then break end
      record_front = "H1\t" .. number .. TAB .. short(now_ms) .. TAB .. short_duration(ttl_ms) .. TAB .. index .. option.letter .. TAB
      due_front = number .. SLASH .. option.text .. SLASH .. padded(at_ms) .. SLASH
      line = "NEW\t" .. now_text .. TAB .. int(at_ms) .. TAB .. option.index
      if rules.extensions_max > 0 then line = line .. TAB .. int(rules.extensions_max) end
    end
    if not has_free_unit(day, option) then break end
    if not texts then
      texts = call("HMGET", RECORDS, unpack(ids, first, last))
      claims_of = call("HMGET", CLAIMS, unpack(parties, first, last))
    end
    local id, party = ids[at], parties[at]
    if texts[count + 1] or claims_of[count + 1] or holders[id] == write_number or holders[party] == write_number
        or is_penalized(party) then
      break
    end

    -- From here on it must succeed.
    count = count + 1
    local text, pair = record_front .. party, 2 * count
    call("XADD", EVENTS, office.number + count, "e", "R\t" .. id .. TAB .. text)
    record_pairs[pair - 1], record_pairs[pair] = id, text
    claim_pairs[pair - 1], claim_pairs[pair] = party, id
    due_pairs[pair - 1], due_pairs[pair] = "0", due_front .. id
    holders[id], holders[party] = write_number, write_number
    take_unit(day, option)
    if not day.is_changed then day.is_changed, days_count, held_days[days_count + 1] = true, days_count + 1, day end
    lines[at] = line
  end
  if count == 0 then return 0 end
  call("HSET", RECORDS, unpack(record_pairs, 1, 2 * count))
  call("HSET", CLAIMS, unpack(claim_pairs, 1, 2 * count))
  call("ZADD", DUE, unpack(due_pairs, 1, 2 * count))
  for index = 1, days_count do write_day(held_days[index]) end
  end_write(now_ms, now_text, office.number + count, format(INT, office.number + count))
  holders_count = holders_count + 2 * count
  if holders_count > KNOWN_TEXTS_MAX then holders, holders_count = {}, 0 end
  return count
end

-- Apply the first commands of a call as long as they only take a free place. Their replies go into lines. Returns how many were
-- applied, and written.
--
-- singles  how many of the first commands are reserves of one applicant
local function hold_first(singles, now_ms, lines)
  local done = 0
  if now_ms >= office.now_ms and now_ms < office.next_forget_ms then
    if ARGV[3] then
      repeat
        local last = math.min(done + HOLDS_MAX, singles)
        done = done + hold_together(done + 1, last, now_ms, lines)
      until done < last or done == singles
    else
      lines[1] = hold_alone(now_ms)
      done = lines[1] and 1 or 0
    end
  end
  for index = done + 1, singles do
    commands[index] = reserve_fields(ids[index], numbers[index], parties[index], options_of[index])
  end
  return done
end

return parse_call, hold_first
