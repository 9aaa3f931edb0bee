-- token_bucket: token buckets that are not full, and used passes. Mirrors admission/token_bucket.py, which has the formulas
-- and their bounds: no number here is above 2^52 + 10^9.
--
-- KEYS  the last two keys of a ledger that has buckets:
--       gate       zset    bucket -> the first whole millisecond in which it is full; "/" .. pass -> when its use is forgotten;
--                          window "." number -> when this place of a sliding window is free again
--       ticks      hash    bucket -> "early@full_at_ms": the bucket is full that many ticks before full_at_ms, as long as gate
--                          has the same full_at_ms; "~" -> the time of the last step that took tokens
--
-- In a ledger that has only buckets, ticks also has the fields of shared/fence.lua, with "~" in front: "~server", "~epoch" and
-- "~ends", which is ends_at_ms.
--
-- The loader defines BUCKETS_MAX, CHARGES_MAX, CAPACITY_TICKS_MAX and WINDOW_UNITS_MAX.

local SWEPT_PER_CALL_MAX = 64
local CHARGE = "^([%w_%-]+):(%d%d?%d?%d?%d?%d?%d?%d?%d?%d?):(%d+):(%d%d?%d?%d?%d?%d?%d?%d?%d?%d?):(%d+):([0-3])$"

local GATE, TICKS, gate

-- Begin a call: nothing of an earlier one may remain.
local function begin_gate()
  GATE, TICKS = KEYS[#KEYS - 1], KEYS[#KEYS]
  gate = { added = 0 }
end

-- Return the charges of a text, name:amount:per_ms:burst:cost:flags with commas between; nil if one is invalid. A sliding
-- window has the burst 0. The flags are 1 for a charge in shadow, plus 2 if it counts refusals.
local function charges_of_text(text)
  local charges = {}
  for index, part in ipairs(names(text)) do
    local name, amount, per_ms, burst, cost, flags = string.match(part, CHARGE)
    if not name or #per_ms > 11 or #cost > 10 or index > CHARGES_MAX then return nil end
    local charge = {
      name = name, amount = tonumber(amount), per_ms = tonumber(per_ms), burst = tonumber(burst), cost = tonumber(cost),
      in_shadow = flags == "1" or flags == "3", counts_refusals = flags >= "2", index = index - 1,
    }
    if charge.burst == 0 then
      if charge.amount > WINDOW_UNITS_MAX then return nil end
      charge.burst, charge.is_window = charge.amount, true
    end
    if charge.amount < 1 or charge.per_ms < 1 or charge.cost < 1 or charge.cost > charge.burst
        or charge.burst * charge.per_ms > CAPACITY_TICKS_MAX then
      return nil
    end
    charges[index] = charge
  end
  return charges
end

-- Return the time of this ledger, which never runs backwards behind the last step that took tokens.
local function gate_time(now_ms)
  if not gate.now_ms then gate.now_ms = tonumber(redis.call("HGET", TICKS, "~") or "") or 0 end
  return math.max(now_ms, gate.now_ms)
end

-- Return when a charge's bucket is full, and how many ticks earlier exactly; nil and 0 if it is full.
local function bucket_of(charge, now_ms)
  local full_at_ms = tonumber(redis.call("ZSCORE", GATE, charge.name) or "0")
  if full_at_ms <= now_ms then return nil, 0 end
  local early, at_ms
  if charge.amount > 1 then
    early, at_ms = string.match(redis.call("HGET", TICKS, charge.name) or "", "^(%d+)@(%d+)$")
  end
  if not early or tonumber(at_ms) ~= full_at_ms then return full_at_ms, 0 end
  return full_at_ms, math.min(tonumber(early), charge.amount - 1)
end

-- Find the free places of a sliding window. Returns the time from which the charge fits; 0: it fits.
local function find_places(charge, now_ms)
  charge.free_places = {}
  local taken = {}
  for number = 0, charge.amount - 1 do
    local place = charge.name .. "." .. int(number)
    local until_ms = tonumber(redis.call("ZSCORE", GATE, place) or "0")
    if until_ms <= now_ms then
      charge.free_places[#charge.free_places + 1] = place
    else
      taken[#taken + 1] = until_ms
    end
  end
  table.sort(taken)
  charge.free_at_ms = taken[#taken]
  local missing = charge.cost - #charge.free_places
  return missing > 0 and taken[missing] or 0
end

local function ready_at_ms(charge)
  local spare = (charge.burst - charge.cost) * charge.per_ms + charge.early
  return charge.full_at_ms - math.floor(spare / charge.amount)
end

-- Take tokens from all buckets, or from none. Returns the index of the first charge that was refused, or -1; and the time to
-- retry at.
local function take(charges, now_ms)
  local refused_by, retry_at_ms, new = -1, 0, 0
  for _, charge in ipairs(charges) do
    local at_ms = 0
    if charge.is_window then
      at_ms = find_places(charge, now_ms)
      new = new + math.min(charge.cost, #charge.free_places)
    else
      charge.full_at_ms, charge.early = bucket_of(charge, now_ms)
      if charge.full_at_ms then at_ms = ready_at_ms(charge) else new = new + 1 end
    end
    if at_ms > now_ms then
      if refused_by < 0 then refused_by = charge.index end
      retry_at_ms = math.max(retry_at_ms, at_ms)
    end
  end
  if refused_by >= 0 then return refused_by, retry_at_ms end
  if new > 0 then
    if not gate.size then gate.size = redis.call("ZCARD", GATE) end
    if gate.size + new > BUCKETS_MAX then -- full buckets may still be stored
      local after = "(" .. int(now_ms)
      if redis.call("ZCOUNT", GATE, after, "+inf") + new > BUCKETS_MAX then
        gate.now_ms, gate.changed = now_ms, true
        local first = redis.call("ZRANGEBYSCORE", GATE, after, "+inf", "LIMIT", 0, 1)[1]
        return charges[1].index, first and tonumber(redis.call("ZSCORE", GATE, first)) or now_ms + 1
      end
    end
  end

  -- From here on it must succeed.
  gate.now_ms, gate.changed = now_ms, true
  gate.added = gate.added + new
  if new > 0 then
    if gate.size == 0 then redis.call("ZADD", GATE, 0, "~") end
    gate.size = gate.size + new
  end
  for _, charge in ipairs(charges) do
    local full_at_ms
    if charge.is_window then
      full_at_ms = now_ms + charge.per_ms
      for number = 1, charge.cost do redis.call("ZADD", GATE, int(full_at_ms), charge.free_places[number]) end
    else
      local ticks = charge.cost * charge.per_ms
      if charge.full_at_ms then ticks = ticks + (charge.full_at_ms - now_ms) * charge.amount - charge.early end
      local full_in_ms = math.floor((ticks + charge.amount - 1) / charge.amount)
      local early = full_in_ms * charge.amount - ticks
      full_at_ms = now_ms + full_in_ms
      redis.call("ZADD", GATE, int(full_at_ms), charge.name)
      if early > 0 then
        redis.call("HSET", TICKS, charge.name, int(early) .. "@" .. int(full_at_ms))
      elseif charge.amount > 1 then
        redis.call("HDEL", TICKS, charge.name)
      end
    end
    if full_at_ms > (gate.last_ms or 0) then gate.last_ms = full_at_ms end
  end
  return -1, 0
end

-- Store the time of the step. Delete full buckets and expired passes, more of them than one call can add.
local function gate_write_back()
  if not gate.changed then return end
  redis.call("HSET", TICKS, "~", int(gate.now_ms))
  local over = redis.call("ZRANGEBYSCORE", GATE, "(0", int(gate.now_ms), "LIMIT", 0, SWEPT_PER_CALL_MAX + 2 * gate.added)
  for _, name in ipairs(over) do
    redis.call("ZREM", GATE, name)
    redis.call("HDEL", TICKS, name)
  end
end
