-- take_over: opens a ledger on this server at the next epoch. Serves the kinds of ledgers without events: they have nothing
-- that could be reconciled. The office's counterpart is office/reconcile.lua.
--
-- KEYS  those of the ledger
-- ARGV  1     see shared/call.lua
--       2     "epoch:server:ends_at_ms" as the caller saw them last
--       3     "1": even if the caller has seen a later epoch
-- reply "DONE", the fence's line, by how many milliseconds the ledger's time was brought back: the ledger is open here.
--       "EMPTY", the line, "0": there is no ledger; the next one begins at that epoch
--
-- The loader defines CLOCKS_DIFFER_MS.
-- error BEHIND: nothing was done

local now_ms = call_time()
check_leap(now_ms, 0)
local fences = load_fence()
local fence = fences.check(ARGV[2], now_ms)
local is_forced = ARGV[3] == "1"
if fence.is_behind and not is_forced then return redis.error_reply(fence.problem) end
if not fence.is_known then
  if fence.is_behind then fences.mark_lost(fence) end
  return { "EMPTY", fences.line(fence), "0" }
end
-- An open ledger stays as it is. A later epoch would make tickets of this one look like those of a lost server.
if fence.problem then fences.take_over(fence) end
local corrected_by_ms = fences.correct_time(now_ms, CLOCKS_DIFFER_MS)
return { "DONE", fences.write(fence), string.format("%.0f", corrected_by_ms) }
