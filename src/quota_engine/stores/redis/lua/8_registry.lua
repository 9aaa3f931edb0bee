-- registry: one shard of what is known over all offices. Mirrors domain/registry.py, function by function.
--
-- KEYS  1 head        hash  now_ms (of the last change), number (of changes), last_ms (when the last entry is forgotten)
--       2 claims      hash  applicant -> reference, number, lease_until_ms, forget_at_ms, also
--       3 claims_due  zset  applicant, by forget_at_ms
--       4 moves       hash  source -> target, version, number, lease_until_ms, forget_at_ms, "1" if it is done
--       5 moves_due   zset  source, by forget_at_ms
--       6 moves_open  zset  source, by lease_until_ms
--
-- Fields are set apart by tabs. All keys always exist (each has a "~" that means nothing). Applicants are as they are, and not in a
-- shorter form: which of those that end in one millisecond is swept first is then the same on every backend.
--
-- ARGV  1 now_ms, or "" for the server's own time, and "+" behind it to leave a small write in any case; 2 ... a command each: its name
--         and its fields, set apart by tabs
-- reply a line for each: status, reference, number, lease_until_ms, now_ms, "1" if the move is done, "1" if it had been there before,
--       also

local HEAD, CLAIMS, CLAIMS_DUE, MOVES, MOVES_DUE, MOVES_OPEN = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local TAB = "\t"
local call, format, concat = redis.call, string.format, table.concat

local SWEEP_MAX = 16
local RETENTION_MARGIN_MS = 30 * 86400000

local registry = {}

-- An integer as text. (tostring would write 1e+15 for a large one.)
local function int(number)
  return format("%.0f", number)
end

local function split(text)
  local parts = {}
  for part in string.gmatch(text .. TAB, "([^\t]*)\t") do parts[#parts + 1] = part end
  return parts
end

local function load_head()
  local head = call("HMGET", HEAD, "now_ms", "number", "last_ms")
  registry.now_ms = tonumber(head[1] or "0")
  registry.number = tonumber(head[2] or "0")
  registry.last_ms = tonumber(head[3] or "0")
  registry.is_new = not head[1]
end

local function claim_of_text(text)
  local fields = split(text)
  return {
    reference = fields[1], number = tonumber(fields[2]), lease_until_ms = tonumber(fields[3]), forget_at_ms = tonumber(fields[4]),
    also = fields[5],
  }
end

local function move_of_text(source, text)
  local fields = split(text)
  return {
    source = source, reference = fields[1], version = tonumber(fields[2]), number = tonumber(fields[3]),
    lease_until_ms = tonumber(fields[4]), forget_at_ms = tonumber(fields[5]), done = fields[6] == "1",
  }
end

local function text_of_move(move)
  return concat({
    move.reference, int(move.version), int(move.number), int(move.lease_until_ms), int(move.forget_at_ms), move.done and "1" or "0",
  }, TAB)
end

-- Nothing is there once its time is over: whether or not a sweep has seen it.
local function live_claim(applicant, now_ms)
  local text = call("HGET", CLAIMS, applicant)
  local claim = text and claim_of_text(text)
  return claim and claim.forget_at_ms > now_ms and claim or nil
end

local function live_move(source, now_ms)
  local text = call("HGET", MOVES, source)
  local move = text and move_of_text(source, text)
  return move and move.forget_at_ms > now_ms and move or nil
end

-- A line: what is there now, if anything is.
local function told(status, entry, now_ms, renewed)
  if not entry then return status .. "\t\t0\t0\t" .. int(now_ms) .. "\t0\t0\t" end
  return concat({
    status, entry.reference, int(entry.number), int(entry.lease_until_ms), int(now_ms), entry.done and "1" or "0",
    renewed and "1" or "0", entry.also or "",
  }, TAB)
end
