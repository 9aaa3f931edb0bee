-- draw reads: looking at one draw without changing it. Mirrors ask() of admission/draw_ledger.py.
--
-- ARGV  1 now_ms, or "" for the server's own time; 2 ... a question each: its name and its fields, set apart by tabs
-- reply a line for each, "" for what is not known. Of the draw: the time of the question, closed, frozen, seed, entropy, last_number,
--       active, people, wishes, offered, then its terms, set apart by tabs. Of an application: number, version, applicants, numbers of
--       wishes, and a row for each wish. Of a page, a row each: applications the same without their wishes, wishes as they are, days as
--       office/day and quotas.

-- Rows number after + 1 to after + limit of a hash, of which there are count.
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
      int(draw.people), int(draw.wishes), int(draw.offered), draw.terms.text,
    }, TAB)
  end,
  find = function(fields)
    local standing = standing_of_text(call("HGET", APPLICANTS, fields[2]) or nil)
    local found = application_of(standing.active ~= 0 and standing.active or standing.home)
    if not found then return "" end
    local rows = { int(found.number) .. TAB .. found.text }
    local numbers = names(found.wishes)
    if #numbers > 0 then
      for _, wish in ipairs(call("HMGET", WISHES, unpack(numbers))) do rows[#rows + 1] = wish end
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
  wishes = function(fields)
    local _, texts = page(WISHES, fields, draw.wishes)
    return concat(texts, NEWLINE)
  end,
  offered = function(fields)
    local _, texts = page(OFFERED, fields, draw.offered)
    return concat(texts, NEWLINE)
  end,
}

local now_ms = tonumber(ARGV[1])
if not now_ms then
  local time = call("TIME")
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
end
load_draw()
now_ms = math.max(now_ms, draw.now_ms)
local lines = {}
for index = 2, #ARGV do
  local fields = split(ARGV[index], TAB)
  lines[index - 1] = known(now_ms) and READERS[fields[1]](fields, now_ms) or ""
end
return lines
