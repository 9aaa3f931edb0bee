-- queries: read one waiting room without changing it.
--
-- KEYS  see room.lua
-- ARGV  see shared/call.lua; each line is "view"
-- reply a line for each: the room as room.lua's view() writes it, or NOT_FOUND. If the fence is checked, one more line: see
--       line_of_fence() of shared/fence.lua
-- error FENCED, BEHIND: see shared/fence.lua

local now_ms, _, checks_fence, seen = call_time()
local fence
if checks_fence == "@" then
  fence = check_fence(seen, now_ms)
  if fence.problem then return redis.error_reply(fence.problem) end
end
local room = load_room()
if room then now_ms = math.max(now_ms, room.now_ms) end
local lines = {}
for index = 2, #ARGV do
  lines[index - 1] = room and now_ms < room.config.forget_at_ms and view(room, now_ms) or "NOT_FOUND"
end
if fence then lines[#lines + 1] = line_of_fence(fence) end
return lines
