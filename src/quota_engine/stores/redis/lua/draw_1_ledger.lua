-- draw ledger: the applications of one draw, and what is looked up in them. Mirrors admission/draw_ledger.py.
--
-- KEYS  1 head          hash  now_ms, terms, closed ("1"), frozen, seed, entropy, last_number, active, people, wishes, offered (counts)
--       2 applications  hash  number -> version, applicants, numbers of wishes, set apart by tabs; the last two empty: withdrawn
--       3 applicants    hash  applicant -> their number for good, if that is also the application they are in; else
--                             "home,active", with 0 for none
--       4 wishes        hash  number -> wish, "=" .. wish -> number
--       5 offered       hash  number -> office/day, tab, quota:units and commas between; "=" .. office/day -> number
--
-- A wish is office/day/service/service_unit/session/channel/group/options, where options are as in a choice: "a,b|c".
-- All keys always exist (each has a "~" that means nothing) once the draw has been announced, and end some time after it is forgotten.

local HEAD, APPLICATIONS, APPLICANTS, WISHES, OFFERED = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local call = redis.call

local draw

local function terms_of_text(text)
  local fields = split(text, TAB)
  return {
    text = text,
    opens_at_ms = tonumber(fields[1]),
    closes_at_ms = tonumber(fields[2]),
    forget_at_ms = tonumber(fields[3]),
    first_day = tonumber(fields[4]),
    last_day = tonumber(fields[5]),
    party_max = tonumber(fields[6]),
    choices_max = tonumber(fields[7]),
    applications_max = tonumber(fields[8]),
    commitment = fields[9],
    entropy_source = fields[10],
  }
end

local function load_draw()
  local head = call("HMGET", HEAD, "now_ms", "terms", "closed", "frozen", "seed", "entropy", "last_number", "active", "people",
    "wishes", "offered")
  draw = {
    now_ms = tonumber(head[1] or "0"),
    terms = head[2] and terms_of_text(head[2]),
    closed = head[3] == "1",
    frozen = head[4] or "",
    seed = head[5] or "",
    entropy = head[6] or "",
    last_number = tonumber(head[7] or "0"),
    active = tonumber(head[8] or "0"),
    people = tonumber(head[9] or "0"),
    wishes = tonumber(head[10] or "0"),
    offered = tonumber(head[11] or "0"),
  }
end

local function known(now_ms)
  local terms = draw.terms
  if not terms or terms.forget_at_ms <= now_ms then return nil end
  return terms
end

-- The application of this number, or nil.
local function application_of(number)
  local text = number > 0 and call("HGET", APPLICATIONS, int(number))
  if not text then return nil end
  local fields = split(text, TAB)
  return { number = number, version = tonumber(fields[1]), party = fields[2], wishes = fields[3], text = text }
end

-- What an applicant has: the number that is theirs for good, and the application that they are in; 0: none.
local function standing_of_text(text)
  if not text then return { home = 0, active = 0 } end
  local home, active = string.match(text, "^(%d+),?(%d*)$")
  return { home = tonumber(home), active = tonumber(active ~= "" and active or home) }
end
