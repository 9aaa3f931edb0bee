-- deadline_commands: commands with a last moment by the store's clock, after which a late copy from the network has no
-- effect. Part of the body of rare_commands(); see state_machine.lua.

-- fields: name, valid_until_ms, then those of a reserve (the choice as six fields)
local function reserve_until(fields, now_ms)
  if now_ms > tonumber(fields[2]) and not record_of(fields[3]) then return outcome("COMMAND_EXPIRED") end
  return reserve(reserve_fields(fields[3], fields[4], fields[5], known_options(concat(fields, TAB, 6))), now_ms)
end

-- fields: name, valid_until_ms, id, owner, version
local function reacquire_until(fields, now_ms)
  return step({ "confirm", fields[3], fields[4], fields[5], "1", fields[2] }, now_ms)
end

handlers.reserve_until, handlers.reacquire_until = reserve_until, reacquire_until
forms.reserve_until = concat({ NUMBER, NAME, NUMBER, PARTY, "[01]", NUMBER, CHOICE }, TAB)
forms.reacquire_until = NUMBER .. "\t" .. STEP
