-- trial: which of the commands that the scripts use this user may not use. Writes nothing: a script that only looks may not write, and
-- the server looks at the user's rights before it says so.
--
-- KEYS  1 any key of the namespace
-- ARGV  commands with as many arguments as they take, set apart by tabs; "~" stands for the key
-- reply the names of those that are not allowed

local missing = {}
for index = 1, #ARGV do
  local words = {}
  for word in string.gmatch(ARGV[index], "[^\t]+") do words[#words + 1] = word == "~" and KEYS[1] or word end
  local answer = redis.pcall(unpack(words))
  local problem = type(answer) == "table" and answer.err or ""
  if string.find(problem, "ACL failure", 1, true) or string.find(problem, "can't run this command", 1, true) then
    missing[#missing + 1] = words[1]
  end
end
return missing
