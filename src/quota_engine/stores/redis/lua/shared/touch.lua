-- touch: writes something of no meaning into the head of a ledger. WAIT waits only for writes of its own connection, and so
-- for the state that the answer before it has shown.
--
-- KEYS  1 the head; the ledger may not exist
-- reply 1 if it exists

if redis.call("HLEN", KEYS[1]) == 0 then return 0 end
redis.call("HSET", KEYS[1], "~touched", "")
return 1
