-- guards: the names of quotas in a choice, completed with the guards that count it, or changed. Mirrors domain/guards.py.
-- The body of load_guards(); see ledger.lua.

-- Return the guards of the day that count bookings of this choice, in the order of its quotas.
local function matching_guards(day, choice)
  local found = {}
  for name, service, unit, session in string.gmatch(day.guards, "([^,/]+)/([^,/]*)/([^,/]*)/([^,/]*)") do
    if (service == "" or service == choice.service) and (unit == "" or unit == choice.service_unit)
        and (session == "" or session == choice.session) then
      found[#found + 1] = name
    end
  end
  return found
end

-- Return an option as text, with new names, each once, and with the matching guards at its end.
local function rewrite_option(renamed, matching, quotas)
  local is_used, result = {}, {}
  for _, name in ipairs(matching) do is_used[name] = true end
  for _, name in ipairs(quotas) do
    name = renamed[name] or name
    if not is_used[name] then
      is_used[name] = true
      result[#result + 1] = name
    end
  end
  for _, name in ipairs(matching) do result[#result + 1] = name end
  return concat(result, COMMA)
end

-- Return the choice with new names of quotas, and then with all guards that count it. Equal options become one.
local function rewrite_choice(renamed, day, choice)
  local matching = matching_guards(day, choice)
  if not next(renamed) then
    local tail, is_complete = concat(matching, COMMA), true
    for _, option in ipairs(choice.options) do
      is_complete = is_complete and string.sub(COMMA .. option.text, -#tail - 1) == COMMA .. tail
    end
    if #matching == 0 or is_complete then return choice end
  end
  local options, is_known = {}, {}
  for _, option in ipairs(choice.options) do
    local text = rewrite_option(renamed, matching, option.quotas)
    if not is_known[text] then
      is_known[text] = true
      options[#options + 1] = text
    end
  end
  return choice_by_text(string.match(choice.text, "^.*\t") .. concat(options, "|"))
end

return { matching = matching_guards, rewrite_option = rewrite_option, rewrite_choice = rewrite_choice }
