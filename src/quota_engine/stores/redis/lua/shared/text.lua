-- text: integers and lists as text, for all scripts that read or write lines.
--
-- Tabs separate fields, newlines separate rows, commas separate the names of a list. None of these characters can occur
-- in an id, a name or a keyed hash.

local TAB, NEWLINE, COMMA = "\t", "\n", ","
local format, match, find, sub = string.format, string.match, string.find, string.sub
local concat, sort = table.concat, table.sort

-- Return an integer as text. (tostring writes 1e+15 for a large one.) Where integers of C have 64 bits, that is faster than
-- the text of a floating-point number. An argument of a server command may be an integer itself: servers write it whole.
local INT = format("%d", 2 ^ 52) == "4503599627370496" and "%d" or "%.0f"
local SMALL = {} -- integers of up to three characters are remembered: most counters are 0
local function int(number)
  local text = SMALL[number]
  if not text then
    text = format(INT, number)
    if #text <= 3 then SMALL[number] = text end
  end
  return text
end

-- Return the parts of a text between separators; an empty text has one empty part.
local function split(text, separator)
  local parts, count, from = {}, 0, 1
  while true do
    local at = string.find(text, separator, from, true)
    count = count + 1
    if not at then
      parts[count] = string.sub(text, from)
      return parts
    end
    parts[count] = string.sub(text, from, at - 1)
    from = at + 1
  end
end

-- Return a function that parses a text once and remembers the value, which must not be changed. A server that keeps the
-- functions remembers it from call to call, up to `values_max` values.
local function remembering(parse, values_max)
  local values, count = {}, 0
  return function(text)
    local value = values[text]
    if value == nil then
      value = parse(text)
      if count >= values_max then values, count = {}, 0 end
      values[text], count = value, count + 1
    end
    return value
  end
end

-- Return the names of a list; an empty text has none.
local function names(text)
  if text == "" then return {} end
  return split(text, COMMA)
end
