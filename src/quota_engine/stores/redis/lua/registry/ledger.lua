-- ledger: one shard of the registry that spans offices. Mirrors domain/cross_office_registry.py function by function.
--
-- KEYS  1 head        hash  now_ms (of the last change), number (of changes), last_ms (when the last entry is forgotten); and the
--                           fields of shared/fence.lua
--       2 claims      hash  applicant -> reference, number, lease_until_ms, forget_at_ms, secondary_reference
--       3 claims_due  zset  applicant, by forget_at_ms
--       4 moves       hash  source -> target, version, number, lease_until_ms, forget_at_ms, "1" if the move is done
--       5 moves_due   zset  source, by forget_at_ms
--       6 moves_open  zset  source, by lease_until_ms
--
-- Tabs separate fields. All keys always exist: each has a "~" without a meaning. Applicants are not in a short form here, so
-- that a sweep of entries of one millisecond has the same order on every backend.

local HEAD, CLAIMS, CLAIMS_DUE, MOVES, MOVES_DUE, MOVES_OPEN = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local call = redis.call

local registry = {}

local function load_head()
  local head = call("HMGET", HEAD, "now_ms", "number", "last_ms")
  registry.now_ms = tonumber(head[1] or "0")
  registry.number = tonumber(head[2] or "0")
  registry.last_ms = tonumber(head[3] or "0")
  registry.is_new = not head[1]
end

local function claim_of_text(text)
  local fields = split(text, TAB)
  return {
    reference = fields[1], number = tonumber(fields[2]), lease_until_ms = tonumber(fields[3]), forget_at_ms = tonumber(fields[4]),
    secondary_reference = fields[5],
  }
end

local function move_of_text(source, text)
  local fields = split(text, TAB)
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

-- An entry ends at its time, whether or not a sweep has deleted it.
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

-- Return a reply line with the entry as it is now, if there is one.
local function result(status, entry, now_ms, renewed)
  if not entry then return status .. "\t\t0\t0\t" .. int(now_ms) .. "\t0\t0\t" end
  return concat({
    status, entry.reference, int(entry.number), int(entry.lease_until_ms), int(now_ms), entry.done and "1" or "0",
    renewed and "1" or "0", entry.secondary_reference or "",
  }, TAB)
end
