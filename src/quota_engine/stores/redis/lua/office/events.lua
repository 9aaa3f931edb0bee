-- events: reads an office's events.
--
-- KEYS  1 head; 2 events; 3 choices
-- ARGV  1 see shared/call.lua; 2 the number after which they begin; 3 how many at most
-- reply the events as XRANGE has them, the choices. If the fence is checked, one more element: see line_of_fence() of
--       shared/fence.lua
-- error FENCED, BEHIND: see shared/fence.lua

local now_ms, _, checks_fence, seen = call_time()
local fences, fence
if checks_fence == "@" then
  fences = load_fence()
  fence = fences.check(seen, now_ms)
  if fence.problem then return redis.error_reply(fence.problem) end
end
local reply = {
  redis.call("XRANGE", KEYS[2], "(" .. ARGV[2] .. "-0", "+", "COUNT", ARGV[3]), redis.call("HGETALL", KEYS[3]),
}
if fence then reply[3] = fences.line(fence) end
return reply
