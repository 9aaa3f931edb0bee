-- snapshot: reads an office in parts. Each part is a separate script, so that the server answers others in between: a server
-- that is silent for long counts as dead for Sentinels and for a cluster. Nothing may write the office meanwhile.
--
-- The loader defines ENTRIES_MAX, the entries that one script reads.

local SNAPSHOT_READERS = {}

function SNAPSHOT_READERS.fields(key, cursor, count)
  local scanned = redis.call("HSCAN", key, cursor, "COUNT", count)
  return scanned[1], scanned[2], #scanned[2] / 2
end

local function read_members(key, cursor, count, ...)
  local first = tonumber(cursor)
  local members = redis.call("ZRANGE", key, first, first + count - 1, ...)
  local read = ... and #members / 2 or #members
  return read == count and int(first + count) or "0", members, read
end

function SNAPSHOT_READERS.members(key, cursor, count)
  return read_members(key, cursor, count)
end

function SNAPSHOT_READERS.scores(key, cursor, count)
  return read_members(key, cursor, count, "WITHSCORES")
end

function SNAPSHOT_READERS.events(key, cursor, count)
  local entries = redis.call("XRANGE", key, cursor == "0" and "-" or "(" .. cursor, "+", "COUNT", count)
  local texts = {}
  for index, entry in ipairs(entries) do texts[index] = entry[2][2] end
  return #entries == count and entries[count][1] or "0", texts, #entries
end

-- Each part: how it is read, and the number of its key. stores/redis/office_reader.py has the same order.
local SNAPSHOT_PARTS = {
  { "fields", 1 }, { "fields", 2 }, { "fields", 3 }, { "fields", 4 }, { "fields", 5 }, { "members", 7 }, { "scores", 8 },
  { "members", 11 }, { "fields", 10 }, { "events", 9 }, { "members", 6 },
}

-- Append the next entries to a reply, from a cursor within a part: "0" is its beginning. First comes where to continue, the
-- number of a part and its cursor; part "0" if everything has been read. Then for each part: its number and its entries.
local function read_snapshot(reply, part, cursor)
  local at, left = #reply + 1, ENTRIES_MAX
  reply[at], reply[at + 1] = "0", "0"
  repeat
    local how, key = SNAPSHOT_PARTS[part][1], KEYS[SNAPSHOT_PARTS[part][2]]
    local following, entries, count = SNAPSHOT_READERS[how](key, cursor, left)
    reply[#reply + 1], reply[#reply + 2] = part, entries
    left, cursor = left - count, following
    if cursor == "0" then part = part + 1 end
  -- A scan that is not at its end has looked at as many fields as it was allowed to.
  until cursor ~= "0" or left <= 0 or part > #SNAPSHOT_PARTS
  reply[at], reply[at + 1] = part > #SNAPSHOT_PARTS and "0" or int(part), cursor
  return reply
end
