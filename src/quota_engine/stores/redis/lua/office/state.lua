-- state: reads a whole office, for audits and descriptions.
--
-- KEYS  see ledger.lua
-- reply see snapshot.lua

return snapshot()
