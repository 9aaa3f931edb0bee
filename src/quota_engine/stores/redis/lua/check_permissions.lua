-- check_permissions: which commands of the scripts the server's ACL denies to this user. Writes nothing: the script's flags
-- forbid writes, and the server checks the ACL before the flags.
--
-- KEYS  1 any key of the namespace
-- ARGV  one command each, its words separated by tabs; "~" stands for the key
-- reply the names of the denied commands

local missing = {}
for index = 1, #ARGV do
  local words = {}
  for word in string.gmatch(ARGV[index], "[^\t]+") do words[#words + 1] = word == "~" and KEYS[1] or word end
  local reply = redis.pcall(unpack(words))
  local problem = type(reply) == "table" and reply.err or ""
  if string.find(problem, "ACL failure", 1, true) or string.find(problem, "can't run this command", 1, true) then
    missing[#missing + 1] = words[1]
  end
end
return missing
