-- The yardstick "by hand": reservations as a team would write them in an evening, without this library.
--
-- It checks the id and the identity, takes a place, and keeps a record, a deadline and an event.
-- It leaves out several quotas, parties, opening times, rules per office, and admission.
-- It leaves out the expiry of holds, the wait list, cooling times, rescheduling and retention.
-- It checks neither the last moment of a call nor the form of its arguments.
--
-- KEYS: counters (a hash, with the free places), records by id, ids by identity, deadlines, events.
-- ARGV: duration of a hold in milliseconds, then id and identity of each reservation.
-- Reply: a status for each reservation.
local now = redis.call('TIME')
local deadline = now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[1]
local replies = {}
for i = 2, #ARGV, 2 do
  local id, identity = ARGV[i], ARGV[i + 1]
  local status = 'HELD'
  if redis.call('HEXISTS', KEYS[2], id) == 0 then
    if redis.call('HEXISTS', KEYS[3], identity) == 1 then
      status = 'IDENTITY_LIMIT'
    elseif tonumber(redis.call('HGET', KEYS[1], 'free')) < 1 then
      status = 'SOLD_OUT'
    else
      redis.call('HINCRBY', KEYS[1], 'free', -1)
      redis.call('HSET', KEYS[2], id, 'held ' .. deadline .. ' ' .. identity)
      redis.call('HSET', KEYS[3], identity, id)
      redis.call('ZADD', KEYS[4], deadline, id)
      redis.call('XADD', KEYS[5], '*', 'held', id)
    end
  end
  replies[#replies + 1] = status
end
return replies
