-- draw state: everything that is known of a draw, as it is written down, at one moment.
--
-- reply head, applications, applicants, wishes, offered (hashes, flat)

local replies = {}
for index, key in ipairs(KEYS) do replies[index] = redis.call("HGETALL", key) end
return replies
