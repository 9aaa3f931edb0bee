-- penalties: blocks of applicants, and the cap on abandoned holds. Mirrors domain/penalties.py and domain/abandonment.py.
-- Body of load_penalties(), so that the functions are created only when one of them is needed; see state_machine.lua.
--
-- A penalty is text: blocked_until_ms and the times of the cancellations, separated by commas. If holds were abandoned, a
-- semicolon and the ends of them follow, ascending and separated by commas. If no-shows block the applicant and can still
-- be undone, another semicolon follows, and the end of the block without them. Then come three fields for each of them: the
-- id of the reservation, undo_until_ms and the end of its block.
--
-- The loader defines CANCELLATIONS_MAX and ABANDONED_HOLDS_MAX.

local ABANDONING = { release = true, expire = true }

local function numbers_of(text)
  local numbers = names(text)
  for index = 1, #numbers do numbers[index] = tonumber(numbers[index]) end
  return numbers
end

-- Return the end of the block, the times of cancellations, the ends of abandoned holds, and what follows them.
local function penalty_of(applicant)
  local first, ends, undoable = string.match(penalty_text(applicant) or "0", "^([%d,]+);?([%d,]*);?(.*)$")
  local cancelled = numbers_of(first)
  return table.remove(cancelled, 1), cancelled, numbers_of(ends), undoable
end

-- Return the end of the block without no-shows that may still be undone, and the blocks of these.
local function blocks_of(blocked_until_ms, undoable)
  local fields, blocks = names(undoable), {}
  for at = 2, #fields, 3 do
    blocks[#blocks + 1] = { id = fields[at], undo_until_ms = tonumber(fields[at + 1]), until_ms = tonumber(fields[at + 2]) }
  end
  return tonumber(fields[1]) or blocked_until_ms, blocks
end

-- Return the end of the block, and the text of its no-shows that may still be undone at at_ms, or "".
local function join_blocks(other_until_ms, blocks, at_ms)
  local blocked_until_ms, texts = 0, {}
  for _, block in ipairs(blocks) do
    if block.undo_until_ms <= at_ms then
      other_until_ms = math.max(other_until_ms, block.until_ms)
    else
      blocked_until_ms = math.max(blocked_until_ms, block.until_ms)
      texts[#texts + 1] = concat({ block.id, int(block.undo_until_ms), int(block.until_ms) }, COMMA)
    end
  end
  if #texts == 0 then return other_until_ms, "" end
  return math.max(other_until_ms, blocked_until_ms), int(other_until_ms) .. COMMA .. concat(texts, COMMA)
end

local function numbers_after(numbers, from_ms)
  local kept = {}
  for _, number in ipairs(numbers) do
    if number > from_ms then kept[#kept + 1] = number end
  end
  return kept
end

local function text_of_numbers(numbers)
  local texts = {}
  for index, number in ipairs(numbers) do texts[index] = int(number) end
  return concat(texts, COMMA)
end

-- Return how long the end of an abandoned hold matters.
local function remembered_ms()
  return ledger.rules.abandoned_holds_window_ms + ledger.rules.abandoned_holds_block_ms
end

-- Return the end of the latest block that an end at from_ms or later leads to, or 0.
local function abandonment_block_ms(ends, from_ms)
  local rules = ledger.rules
  for index = #ends, rules.abandoned_holds_max + 1, -1 do
    if ends[index] < from_ms then return 0 end
    if ends[index - rules.abandoned_holds_max] > ends[index] - rules.abandoned_holds_window_ms then
      return ends[index] + rules.abandoned_holds_block_ms
    end
  end
  return 0
end

local function count_abandoned(released, expired, blocks)
  local counts = numbers_of(abandoned_counts())
  ledger.abandoned = text_of_numbers({ counts[1] + released, counts[2] + expired, counts[3] + blocks })
end

local function is_outdated(applicant, at_ms)
  local blocked_until_ms, cancelled, ends = penalty_of(applicant)
  return blocked_until_ms <= at_ms
    and (#cancelled == 0 or cancelled[#cancelled] <= at_ms - ledger.rules.cancellations_window_ms)
    and (#ends == 0 or ends[#ends] <= at_ms - remembered_ms())
end

local function delete_penalty(applicant)
  call("HDEL", PENALTIES, applicant)
  call("ZREM", UPDATED, applicant)
  penalties_read[applicant] = false
end

-- Update the penalties of a record's applicants after a step. ended_at_ms is the end of the hold.
local function update(record, verb, at_ms, ended_at_ms)
  local rules = ledger.rules
  for order, applicant in ipairs(record.applicants) do
    local before_ms, cancelled, ends, undoable = penalty_of(applicant)
    local other_until_ms, blocks = blocks_of(before_ms, undoable)
    if verb == "cancel" or verb == "mark_no_show" then
      cancelled = numbers_after(cancelled, at_ms - rules.cancellations_window_ms)
    end
    if verb == "cancel" then
      cancelled[#cancelled + 1] = at_ms
      if #cancelled > CANCELLATIONS_MAX + 1 then table.remove(cancelled, 1) end
      if rules.cancellations_max > 0 and #cancelled > rules.cancellations_max then
        other_until_ms = math.max(other_until_ms, at_ms + rules.cancellations_block_ms)
      end
    elseif verb == "mark_no_show" then
      if rules.no_show_block_ms > 0 then
        blocks[#blocks + 1] = { id = record.id, undo_until_ms = record.undo_until_ms, until_ms = at_ms + rules.no_show_block_ms }
      end
    elseif verb == "undo_attendance" then
      for index = #blocks, 1, -1 do
        if blocks[index].id == record.id then table.remove(blocks, index) end
      end
    elseif verb == "reacquire" then
      for index = 1, #ends do
        if ends[index] == ended_at_ms then
          table.remove(ends, index)
          break
        end
      end
    else
      ends = numbers_after(ends, at_ms - remembered_ms())
      ends[#ends + 1] = ended_at_ms
      sort(ends, function(one, other) return one < other end)
      if #ends > ABANDONED_HOLDS_MAX + 1 then table.remove(ends, 1) end
      other_until_ms = math.max(other_until_ms, abandonment_block_ms(ends, ended_at_ms))
      if other_until_ms > before_ms then count_abandoned(0, 0, 1) end
    end
    local blocked_until_ms
    blocked_until_ms, undoable = join_blocks(other_until_ms, blocks, at_ms)
    if blocked_until_ms > at_ms or #cancelled > 0 or #ends > 0 then
      table.insert(cancelled, 1, blocked_until_ms)
      local text = text_of_numbers(cancelled)
      if #ends > 0 or undoable ~= "" then text = text .. ";" .. text_of_numbers(ends) end
      if undoable ~= "" then text = text .. ";" .. undoable end
      ledger.has_penalties, penalties_read[applicant] = true, text
      call("HSET", PENALTIES, applicant, text)
      call("ZADD", UPDATED, ledger.number * 128 + order, applicant)
    else
      delete_penalty(applicant)
    end
  end
  for _ = 1, 2 * record.units do
    local oldest = call("ZRANGEBYSCORE", UPDATED, "(0", "+inf", "LIMIT", 0, 1)[1]
    if not oldest or not is_outdated(oldest, at_ms) then return end
    delete_penalty(oldest)
  end
end

-- Apply a step to the penalties of its applicants: a cancellation, a no-show, the end of a hold, or a late confirm.
local function apply_step(verb, old, new, at_ms)
  if verb == "cancel" or verb == "mark_no_show" then
    update(new, verb, at_ms, at_ms)
  elseif verb == "reacquire" then
    if ledger.rules.abandoned_holds_max > 0 then update(new, verb, at_ms, old.deadline_at_ms) end
  elseif old.state == "HELD" and ABANDONING[verb] then
    count_abandoned(verb == "release" and 1 or 0, verb == "expire" and 1 or 0, 0)
    if ledger.rules.abandoned_holds_max > 0 then
      update(new, verb, at_ms, verb == "expire" and old.deadline_at_ms or at_ms)
    end
  end
end

-- Expire all overdue holds of these applicants, on every day of the office.
local function expire_own_holds(applicants, now_ms)
  local overdue, order, days = {}, {}, {}
  for _, applicant in ipairs(applicants) do
    for _, id in ipairs(names(claims_text(applicant) or "")) do
      local record = record_of(id)
      if record and record.state == "HELD" and record.deadline_at_ms <= now_ms then
        local key = padded(record.deadline_at_ms) .. id
        if not overdue[key] then order[#order + 1] = key end
        overdue[key] = record
      end
    end
  end
  sort(order, before)
  for _, key in ipairs(order) do
    local number = overdue[key].day
    expire(overdue[key], now_ms)
    if not days[number] then
      days[number] = true
      days[#days + 1] = number
    end
  end
  sort(days)
  for _, number in ipairs(days) do distribute_free_units(day_of(number), now_ms) end
end

-- Return how many more holds the applicants may abandon, and the end of the block to announce. Return nil if none of them
-- has abandoned any within the window. deadline_at_ms is that of their hold, or nil after a release.
local function announcement(applicants, now_ms, deadline_at_ms)
  local rules, left, until_ms = ledger.rules, nil, 0
  local window_start_ms = now_ms - rules.abandoned_holds_window_ms
  for _, applicant in ipairs(applicants) do
    local blocked_until_ms, _, ends = penalty_of(applicant)
    until_ms = math.max(until_ms, blocked_until_ms)
    local count = 0
    for _, end_ms in ipairs(ends) do
      if window_start_ms < end_ms and end_ms <= now_ms then count = count + 1 end
    end
    if count > 0 then left = math.min(left or rules.abandoned_holds_max, math.max(0, rules.abandoned_holds_max - count)) end
  end
  if not left then return nil end
  if deadline_at_ms then return left, left == 0 and deadline_at_ms + rules.abandoned_holds_block_ms or 0 end
  return left, until_ms > now_ms and until_ms or 0
end

-- Add the announcement to the outcome of a hold or of its release.
local function announce(result, now_ms)
  local record = result.record
  local left, until_ms = announcement(record.applicants, now_ms, record.state == "HELD" and record.deadline_at_ms or nil)
  if left then result.announced = COMMA .. int(left) .. COMMA .. int(until_ms) end
  return result
end

return { update = update, apply_step = apply_step, expire_own_holds = expire_own_holds, announcement = announcement, announce = announce }
