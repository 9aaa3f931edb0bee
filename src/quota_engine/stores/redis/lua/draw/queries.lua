-- queries: reads one draw without changing it. Mirrors answer_query() of draws/ledger.py.
--
-- KEYS  see ledger.lua
-- ARGV  see shared/call.lua; each line is a question: its name and its fields, separated by tabs
-- reply a line for each, "" for what is not known. Of the draw: the time, closed, frozen, seed, entropy, last_number, active,
--       applicants, preferences, offered, epoch, frozen_epoch, revealed_epoch, then its config, separated by tabs. Of an application: number, version, applicants,
--       numbers of preferences, and a row for each preference. Of a page, a row each: applications without the rows of their
--       preferences, preferences, or days as office/day and quotas. If the fence is checked, one more line: see
--       line() of shared/fence.lua
-- error FENCED, BEHIND: see shared/fence.lua

-- Return the numbers after + 1 to after + limit of a hash that has `count`, and their texts.
local function page(key, fields, count)
  local after, wanted = tonumber(fields[2]), {}
  for number = after + 1, math.min(after + tonumber(fields[3]), count) do wanted[#wanted + 1] = int(number) end
  if #wanted == 0 then return {}, {} end
  return wanted, call("HMGET", key, unpack(wanted))
end

local READERS = {
  draw = function(_, now_ms)
    return concat({
      int(now_ms), draw.closed and "1" or "0", draw.frozen, draw.seed, draw.entropy, int(draw.last_number), int(draw.active),
      int(draw.applicants), int(draw.preferences), int(draw.offered), int(draw.epoch), int(draw.frozen_epoch), int(draw.revealed_epoch),
      draw.config.text,
    }, TAB)
  end,
  find = function(fields)
    local membership = membership_of_text(call("HGET", APPLICANTS, fields[2]) or nil)
    local found = application_of(membership.active ~= 0 and membership.active or membership.assigned_number)
    if not found then return "" end
    local rows = { int(found.number) .. TAB .. found.text }
    local numbers = names(found.preferences)
    if #numbers > 0 then
      for _, preference in ipairs(call("HMGET", PREFERENCES, unpack(numbers))) do rows[#rows + 1] = preference end
    end
    return concat(rows, NEWLINE)
  end,
  applications = function(fields)
    local wanted, texts = page(APPLICATIONS, fields, draw.last_number)
    local rows = {}
    for index, number in ipairs(wanted) do
      local text = texts[index]
      if text and string.sub(text, -2) ~= TAB .. TAB then rows[#rows + 1] = number .. TAB .. text end
    end
    return concat(rows, NEWLINE)
  end,
  preferences = function(fields)
    local _, texts = page(PREFERENCES, fields, draw.preferences)
    return concat(texts, NEWLINE)
  end,
  offered = function(fields)
    local _, texts = page(OFFERED, fields, draw.offered)
    return concat(texts, NEWLINE)
  end,
}

local now_ms, _, checks_fence, seen = call_time()
local fences, fence
if checks_fence == "@" then
  fences = load_fence()
  fence = fences.check(seen, now_ms)
  if fence.problem then return redis.error_reply(fence.problem) end
end
load_draw()
check_leap(now_ms, draw.now_ms)
now_ms = math.max(now_ms, draw.now_ms)
local lines = {}
for index = 2, #ARGV do
  local fields = split(ARGV[index], TAB)
  lines[index - 1] = known(now_ms) and READERS[fields[1]](fields, now_ms) or ""
end
if fence then lines[#lines + 1] = fences.line(fence) end
return lines
