-- queries: read one waiting room without changing it.
--
-- KEYS  see room.lua
-- ARGV  see shared/call.lua. Each line is "view", or "ticket", a tab and an applicant.
-- reply a line for each. NOT_FOUND without a room. Of a view: the room as room.lua's view() writes it. Of a ticket, separated by
--       tabs: JOINED, the epoch of the room, and number and epoch of the ticket; or NOT_JOINED and the epoch of the room.
--       If the fence is checked, one more line: see line() of shared/fence.lua
-- error FENCED, BEHIND: see shared/fence.lua

local function ticket_of(room, applicant)
  local number = call("HGET", IDENTITIES, applicant)
  if not number then return "NOT_JOINED" .. TAB .. int(room.epoch) end
  return concat({ "JOINED", int(room.epoch), number, int(epoch_of(room, tonumber(number))) }, TAB)
end

local now_ms, _, checks_fence, seen = call_time()
local fences, fence
if checks_fence == "@" then
  fences = load_fence()
  fence = fences.check(seen, now_ms)
  if fence.problem then return redis.error_reply(fence.problem) end
end
local room = load_room()
check_leap(now_ms, room and room.now_ms or 0)
if room then now_ms = math.max(now_ms, room.now_ms) end
local lines = {}
for index = 2, #ARGV do
  local applicant = string.match(ARGV[index], "^ticket\t(.+)$")
  if not room or now_ms >= room.config.forget_at_ms then
    lines[index - 1] = "NOT_FOUND"
  else
    lines[index - 1] = applicant and ticket_of(room, applicant) or view(room, now_ms)
  end
end
if fence then lines[#lines + 1] = fences.line(fence) end
return lines
