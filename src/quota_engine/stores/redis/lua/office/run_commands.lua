-- run_commands: one call of a command script. Body of main(), which apply_commands.lua describes.

begin_call()
local now_ms, touches, checks_fence, seen = call_time()
local fences, fence
if checks_fence == "@" then
  fences = load_fence()
  fence = fences.check(seen, now_ms)
  if fence.problem then return redis.error_reply(fence.problem) end
end
check_leap(now_ms, office.now_ms, office.next_forget_ms)
local commands, error_reply, singles
if IS_KEPT then
  if not parse_call then parse_call, hold_first = load_new_holds() end
  commands, error_reply, singles = parse_call()
else
  commands, error_reply = parse_commands(parse)
end
if not commands then return error_reply end
local count, done = #ARGV - 1, 0
local lines = count == 1 and {} or { nil, nil, nil, nil, nil, nil, nil, nil } -- makes room for a few lines at once
if IS_KEPT and singles > 0 then
  done = hold_first(singles, now_ms, lines)
  if done == count then
    offices[HEAD] = office -- not before: the other commands may fail, and leave its days half changed
    if touches == "+" then call("HSET", HEAD, "~", "") end
    if fence then lines[count + 1] = fences.line(fence) end
    return lines
  end
end
begin_commands()
if count > done + 1 then -- a lone command reads its record and claims itself
  local read_ids, applicants = {}, {}
  for index = done + 1, count do
    local fields = commands[index]
    fields = fields.command or fields -- of a guarded one: the command itself
    if fields[1] == "reserve" then
      for _, applicant in ipairs(fields.applicants) do applicants[#applicants + 1] = applicant end
    end
    if fields[1] == "reserve" or FROM[fields[1]] then read_ids[#read_ids + 1] = fields[2] end
  end
  read_ahead(RECORDS, records, read_ids)
  read_ahead(CLAIMS, claims, applicants)
end
local number_before, cursor_before = ledger.number, ledger.cursor
local clock_ms = now_ms
if ledger.now_ms > now_ms then now_ms = ledger.now_ms end
for index = done + 1, count do
  local fields = commands[index]
  if clock_ms >= ledger.next_forget_ms then
    forget(clock_ms, now_ms)
    ledger.next_forget_ms = next_forget_ms()
  end
  if ledger.cursor ~= "" then purge() end
  local result, before = HANDLERS[fields[1]](fields, now_ms)
  lines[index] = before and before .. line_of(result) or line_of(result)
end
write_back(number_before, cursor_before, now_ms)
if ledger.write_back_more then ledger.write_back_more() end
if touches == "+" and ledger.number > 0 then call("HSET", HEAD, "~", "") end
if fence then lines[#lines + 1] = number_before == 0 and fences.write(fence) or fences.line(fence) end
return lines
