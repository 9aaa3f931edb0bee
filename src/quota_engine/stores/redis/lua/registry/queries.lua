-- queries: reads one shard of the registry without changing it.
--
-- KEYS  see ledger.lua
-- ARGV  see shared/call.lua; each line is a question: "find_claims" applicants, "find_move" source, or "open_moves" limit and
--       over_for_ms, separated by tabs
-- reply a line for each. Of claims: now_ms, then for each applicant the reference and the secondary reference, "" for none.
--       Of moves, one after the other: source, target, version, number, lease_until_ms, forget_at_ms, "1" if done.
--       If the fence is checked, one more line: see line() of shared/fence.lua
-- error FENCED, BEHIND: see shared/fence.lua

local function fields_of(moves)
  local parts = {}
  for index, move in ipairs(moves) do parts[index] = move.source .. TAB .. text_of_move(move) end
  return concat(parts, TAB)
end

local ANSWERS = {
  find_claims = function(fields, now_ms)
    local references = { int(now_ms) }
    for index = 2, #fields do
      local claim = live_claim(fields[index], now_ms)
      references[2 * index - 2] = claim and claim.reference or ""
      references[2 * index - 1] = claim and claim.secondary_reference or ""
    end
    return concat(references, TAB)
  end,
  find_move = function(fields, now_ms)
    return fields_of({ live_move(fields[2], now_ms) })
  end,
  -- The oldest leases come first. "~" has the score 0, which no lease has.
  open_moves = function(fields, now_ms)
    local limit, over_until_ms = tonumber(fields[2]), now_ms - tonumber(fields[3])
    local sources = call("ZRANGEBYSCORE", MOVES_OPEN, "(0", int(math.max(over_until_ms, 0)), "LIMIT", 0, limit)
    local moves = {}
    for index, source in ipairs(sources) do moves[index] = move_of_text(source, call("HGET", MOVES, source)) end
    return fields_of(moves)
  end,
}

load_head()
local now_ms, _, checks_fence, seen = call_time()
local fences, fence
if checks_fence == "@" then
  fences = load_fence()
  fence = fences.check(seen, now_ms)
  if fence.problem then return redis.error_reply(fence.problem) end
end
check_leap(now_ms, registry.now_ms)
now_ms = math.max(now_ms, registry.now_ms)
local lines = {}
for index = 2, #ARGV do
  local fields = split(ARGV[index], TAB)
  lines[index - 1] = ANSWERS[fields[1]](fields, now_ms)
end
if fence then lines[#lines + 1] = fences.line(fence) end
return lines
