-- room_reads: looking at one waiting room without changing it.
--
-- ARGV  1 now_ms, or "" for the server's own time; 2 ... "look"
-- reply a line for each: what `seen` says, or NOT_FOUND

local now_ms = time_given()
local room = load_room()
if room then now_ms = math.max(now_ms, room.now_ms) end
local lines = {}
for index = 2, #ARGV do
  lines[index - 1] = room and now_ms < room.terms.forget_at_ms and seen(room, now_ms) or "NOT_FOUND"
end
return lines
