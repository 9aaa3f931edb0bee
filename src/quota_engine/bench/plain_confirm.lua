-- The yardstick "by hand" of a confirm; see plain_reserve.lua for the keys, and for what both scripts leave out.
--
-- KEYS: as in plain_reserve.lua.
-- ARGV: ids of reservations.
-- Reply: a status for each.
local replies = {}
for i = 1, #ARGV do
  local state, identity = string.match(redis.call('HGET', KEYS[2], ARGV[i]) or '', '^(%a+) %S+ (%S+)$')
  if state == 'held' then
    redis.call('HSET', KEYS[2], ARGV[i], 'confirmed - ' .. identity)
    redis.call('ZREM', KEYS[4], ARGV[i])
    redis.call('XADD', KEYS[5], '*', 'confirmed', ARGV[i])
  end
  replies[#replies + 1] = state and 'CONFIRMED' or 'UNKNOWN'
end
return replies
