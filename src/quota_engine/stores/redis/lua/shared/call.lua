-- call: the arguments that every script takes in the same form.
--
-- ARGV  1     the time and flags, in one text: now_ms in decimal, or "" for the server's time.
--             Then "+" if the script must write in any case, because WAIT waits only for writes.
--             Then "<" and the last moment at which the script may run, in milliseconds by the server's own clock.
--             Then "=", the time of the caller's own clock, ":", and by how much it may differ, to check a clock that leaps.
--             Then "@" and what shared/fence.lua calls seen, if the script must check the ledger's fence.
--       2 ... one line for each command or question.

-- Digits of the longest number in a line: integers below 2^53 have at most 16.
local DIGITS_MAX = 15

-- The second of the server's time that was read last, as text and in milliseconds.
local second, second_ms

-- Return now_ms, "+" or "", "@" or "", and the fence as the caller saw it last. The server's time is read once:
-- it stands still within a script on Valkey, but not on Redis 7.0.
--
-- Ends the script with the error LATE and the server's time if its last moment has passed: the network has delivered it
-- late, and its caller may have another answer. So a script calls this before its first write.
local function call_time()
  local header = ARGV[1]
  local given_ms, touches, valid_until_ms, rest = match(header, "^(%d*)(%+?)<?(%d*)()")
  local at = find(header, "@", rest, true)
  local now_ms = given_ms ~= "" and tonumber(given_ms) or nil
  if not now_ms or valid_until_ms ~= "" then
    local time = redis.call("TIME")
    if time[1] ~= second then second, second_ms = time[1], tonumber(time[1]) * 1000 end
    local server_ms = tonumber(time[2])
    server_ms = second_ms + (server_ms - server_ms % 1000) / 1000
    if valid_until_ms ~= "" and server_ms > tonumber(valid_until_ms) then
      error(redis.error_reply("LATE " .. string.format("%.0f", server_ms)))
    end
    now_ms = now_ms or server_ms
  end
  return now_ms, touches, at and "@" or "", at and string.sub(header, at + 1) or ""
end

-- End the script with the error LEAP, before its first write, if the server's clock leaps. It must be near the caller's own
-- clock, or else near the ledger's last event without making a ledger forget a day. Mirrors domain/clock_check.py.
--
-- last_ms         time of the ledger's last event, 0 if it has none
-- next_forget_ms  the earliest time at which it forgets a day, or nil
--
-- The loader defines LEAP_MS_MIN: within this time of the last event nothing is parsed.
local function check_leap(now_ms, last_ms, next_forget_ms)
  local away_ms = math.abs(now_ms - last_ms)
  local forgets = next_forget_ms and now_ms >= next_forget_ms
  if away_ms < LEAP_MS_MIN and not forgets then return end
  local caller_ms, leap_max_ms = string.match(ARGV[1], "=(%d+):(%d+)")
  if not caller_ms or math.abs(now_ms - tonumber(caller_ms)) <= tonumber(leap_max_ms) then return end
  if last_ms == 0 or away_ms > tonumber(leap_max_ms) or forgets then
    error(redis.error_reply(string.format("LEAP %.0f %s %.0f", now_ms, caller_ms, last_ms)))
  end
end

-- Return the error reply for a line that is not a command. The caller returns it before the first write.
local function ill_formed(number)
  return redis.error_reply("ILLFORMED command " .. number .. " of the call: no command was applied")
end

-- Parse every line before the first command is applied: an error halfway through a script leaves its earlier writes in
-- place. Returns the commands; or nil and an error reply.
local function parse_commands(parse)
  local commands = {}
  for index = 2, #ARGV do
    local command = parse(ARGV[index])
    if not command then return nil, ill_formed(index - 1) end
    commands[index - 1] = command
  end
  return commands
end
