-- queries: read one waiting room without changing it.
--
-- KEYS  see room.lua
-- ARGV  see shared/call.lua; each line is "view"
-- reply a line for each: the room as room.lua's view() writes it, or NOT_FOUND

local now_ms = call_time()
local room = load_room()
if room then now_ms = math.max(now_ms, room.now_ms) end
local lines = {}
for index = 2, #ARGV do
  lines[index - 1] = room and now_ms < room.config.forget_at_ms and view(room, now_ms) or "NOT_FOUND"
end
return lines
