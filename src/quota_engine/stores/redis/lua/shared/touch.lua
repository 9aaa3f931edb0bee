-- touch: writes a field without a meaning into the head of a ledger. WAIT waits only for a write of the same connection, and
-- with it for all changes before it: those that the answer to a question has shown.
--
-- KEYS  1 the head; the ledger may not exist
-- reply 1 if it exists

if redis.call("HLEN", KEYS[1]) == 0 then return 0 end
redis.call("HSET", KEYS[1], "~touched", "")
return 1
