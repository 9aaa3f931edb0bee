-- take_over: opens a ledger on this server at the next epoch. Serves the kinds of ledgers without events: they have nothing
-- that could be reconciled. The office's counterpart is office/reconcile.lua.
--
-- KEYS  those of the ledger
-- ARGV  1 see shared/call.lua; 2 "epoch:server:ends_at_ms" as the caller saw them last; 3 "1": even if it is open or behind
-- reply "DONE", the fence's line: the ledger is open here. "EMPTY", the line: there is no ledger; the next one begins at that
--       epoch
-- error BEHIND: nothing was done
--
-- The loader defines RETENTION_MARGIN_MS.

local now_ms = call_time()
local fence = check_fence(ARGV[2], now_ms)
local is_forced = ARGV[3] == "1"
if fence.is_behind and not is_forced then return redis.error_reply(fence.problem) end
if not fence.is_known then
  -- Other clients may have seen the epoch, too. A later one shows them that the loss is known.
  if fence.is_behind then
    take_over(fence)
    redis.call("PEXPIRE", FENCE_HEAD, RETENTION_MARGIN_MS)
  end
  return { "EMPTY", line_of_fence(fence) }
end
if fence.problem or is_forced then take_over(fence) end
return { "DONE", line_of_fence(fence) }
