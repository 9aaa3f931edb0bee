-- ledger: the applications of one draw. Mirrors draws/ledger.py.
--
-- KEYS  1 head          hash  now_ms, config, closed ("1"), frozen, seed, entropy, frozen_epoch, revealed_epoch, last_number,
--                             and counters: active, applicants, preferences, offered; and the fields of shared/fence.lua,
--                             of which the rules use epoch
--       2 applications  hash  number -> version, applicants, numbers of preferences, separated by tabs; the last two are
--                             empty if it is withdrawn. ":epoch" is behind the version unless that is the first one
--       3 applicants    hash  applicant -> their permanent number, if they are active in that application; otherwise
--                             "assigned_number,active", with 0 for none
--       4 preferences   hash  number -> preference; "=" .. preference -> number
--       5 offered       hash  number -> office/day, a tab, and quota:units with commas between; "=" .. office/day -> number
--
-- A preference is office/day/service/service_unit/session/channel/group/options, with options as in a choice: "a,b|c".
-- All keys always exist once the draw is created: each has a "~" without a meaning. They expire some time after the draw is
-- forgotten. The loader defines EPOCH_FIRST.

local HEAD, APPLICATIONS, APPLICANTS, PREFERENCES, OFFERED = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local call = redis.call

local draw

local function config_of_text(text)
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
  local head = call("HMGET", HEAD, "now_ms", "config", "closed", "frozen", "seed", "entropy", "last_number", "active", "applicants",
    "preferences", "offered", "epoch", "frozen_epoch", "revealed_epoch")
  draw = {
    now_ms = tonumber(head[1] or "0"),
    config = head[2] and config_of_text(head[2]),
    closed = head[3] == "1",
    frozen = head[4] or "",
    seed = head[5] or "",
    entropy = head[6] or "",
    last_number = tonumber(head[7] or "0"),
    active = tonumber(head[8] or "0"),
    applicants = tonumber(head[9] or "0"),
    preferences = tonumber(head[10] or "0"),
    offered = tonumber(head[11] or "0"),
    epoch = tonumber(head[12] or int(EPOCH_FIRST)),
    frozen_epoch = tonumber(head[13] or "0"),
    revealed_epoch = tonumber(head[14] or "0"),
  }
end

local function known(now_ms)
  local config = draw.config
  if not config or config.forget_at_ms <= now_ms then return nil end
  return config
end

-- Return the application of this number, or nil.
local function application_of(number)
  local text = number > 0 and call("HGET", APPLICATIONS, int(number))
  if not text then return nil end
  local fields = split(text, TAB)
  local version, epoch = string.match(fields[1], "^(%d+):?(%d*)$")
  return {
    number = number, version = tonumber(version), epoch = tonumber(epoch) or EPOCH_FIRST, party = fields[2],
    preferences = fields[3], text = text,
  }
end

-- Return an applicant's permanent number and the number of the application they are active in; 0 stands for none.
local function membership_of_text(text)
  if not text then return { assigned_number = 0, active = 0 } end
  local assigned_number, active = string.match(text, "^(%d+),?(%d*)$")
  return { assigned_number = tonumber(assigned_number), active = tonumber(active ~= "" and active or assigned_number) }
end
