"""The planted bugs, as text and its replacement. :mod:`tests.fuzz.planted_bugs` plants and hunts them."""

from __future__ import annotations

__all__ = ["BUGS", "Bug"]

from typing import Final, NamedTuple


class Bug(NamedTuple):
    """A planted bug.

    Attributes:
        name: its name.
        area: the part of the system.
        what: the effect, in a few words.
        path: the file, below the package.
        right: the text that is there, once.
        wrong: the text that replaces it.
        store: the store of the seeds; ``""`` lets each seed choose.
    """

    name: str
    area: str
    what: str
    path: str
    right: str
    wrong: str
    store: str = "memory"


_RESERVE: Final = "domain/reserve_command.py"
_STEPS: Final = "domain/reservation_steps.py"
_OPERATOR_COMMANDS: Final = "domain/operator_commands.py"
_INVENTORY: Final = "domain/inventory.py"
_EVENT_HANDLERS: Final = "domain/event_handlers.py"
_LUA: Final = "stores/redis/lua/office/"
_SQL: Final = "stores/sql/transactions.py"
_MOVES: Final = "workflows/office_moves.py"
_CLAIMS: Final = "workflows/national_claims.py"

BUGS: Final = (
    # ------------------------------------------------------------------ the machine
    Bug(
        "overdue-too-late",
        "machine",
        "a hold is overdue one millisecond late, so its units are missing at its deadline",
        "domain/due_queue.py",
        "        if deadline_ms is None or deadline_ms > now_ms:\n            return None\n",
        "        if deadline_ms is None or deadline_ms >= now_ms:\n            return None\n",
    ),
    Bug(
        "oversell-by-one",
        "machine",
        "a reserve finds a unit when one is missing",
        _INVENTORY,
        "            if quotas[name].free < units and name not in kept:",
        "            if quotas[name].free < units - 1 and name not in kept:",
    ),
    Bug(
        "units-lost-at-release",
        "machine",
        "a removed applicant returns one unit too few",
        _EVENT_HANDLERS,
        "        returned = old_units - units if name in kept else old_units\n",
        "        returned = old_units - units if name in kept else old_units - (old_units > 1)\n",
    ),
    Bug(
        "day-opens-early",
        "machine",
        "a day takes bookings before the server's clock says so (BC Parks #414)",
        "domain/checks.py",
        "    if now_ms < terms.opens_at_ms:\n",
        "    if now_ms < terms.opens_at_ms - 2:\n",
    ),
    Bug(
        "closed-day-sells",
        "machine",
        "a day that an operator has closed takes bookings",
        "domain/checks.py",
        "    if day.closed:\n        return REFUSED[Status.DAY_CLOSED]\n",
        "",
    ),
    Bug(
        "double-click",
        "machine",
        "the same party gets a second hold on the same day (ZMS)",
        _RESERVE,
        "            and is_same_party(record.applicants, command.applicants)\n        ):\n            return record",
        "            and record.id == command.id\n        ):\n            return record",
    ),
    Bug(
        "identity-not-checked-at-hold",
        "machine",
        "a hold is given although the applicant has reached the limit (ZMS, BC Parks)",
        _RESERVE,
        "    return refuse_identity(ledger, command.applicants, command.day, now_ms)\n",
        "    return None\n",
    ),
    Bug(
        "key-reused-with-another-body",
        "machine",
        "a key answers another party with a stranger's record",
        _RESERVE,
        "    if not is_party_of(record, command.applicants) or (",
        "    if (",
    ),
    Bug(
        "late-confirm-checks-no-limit",
        "machine",
        "a late confirm does not ask whether the party has another place meanwhile",
        _STEPS,
        "        and conflicting_claim(ledger, record.applicants, record.day, now_ms) is None\n    ):\n",
        "    ):\n",
    ),
    Bug(
        "queue-number-twice",
        "machine",
        "two parties get the same queue number",
        _STEPS,
        "version=record.version + 1, queue_number=day.last_queue_number + 1)\n    if verb is _VERB_DECLINE",
        "version=record.version + 1, queue_number=max(day.last_queue_number, 1))\n    if verb is _VERB_DECLINE",
    ),
    Bug(
        "moves-without-end",
        "machine",
        "the limit of moves counts one move too few",
        "domain/moves.py",
        "record.moves - record.forced_moves >= rules.reschedules_max",
        "record.moves - record.forced_moves > rules.reschedules_max",
    ),
    Bug(
        "stale-version-accepted",
        "machine",
        "an expected version is not compared",
        "domain/checks.py",
        "    if expected_version and expected_version != record.version:\n",
        "    if expected_version and expected_version > record.version:\n",
    ),
    Bug(
        "cooling-forgotten",
        "machine",
        "cooled units never become free",
        _INVENTORY,
        "    if not cooling_due or cooling_due[0][0] > now_ms:\n",
        "    if not cooling_due or cooling_due[0][0] >= 0:\n",
    ),
    Bug(
        "reallocation-keeps-units",
        "machine",
        "units that move to another quota stay in the first one, too",
        _EVENT_HANDLERS,
        "    for name, units in ((event.from_quota, -event.units), (event.to_quota, event.units)):\n",
        "    for name, units in ((event.to_quota, event.units),):\n",
    ),
    Bug(
        "move-overtakes-the-wait-list",
        "machine",
        "a newcomer takes what the wait list could use",
        _INVENTORY,
        "    if day.waiting:\n        return _find_option_behind_wait_list",
        "    if day.waiting and now_ms < 0:\n        return _find_option_behind_wait_list",
    ),
    Bug(
        "sweep-forgets-the-wait-list",
        "machine",
        "units of expired holds are not offered to the wait list",
        _INVENTORY,
        "    if day.waiting:\n        serve_wait_list(ledger, day, now_ms)\n",
        "",
    ),
    Bug(
        "no-show-too-early",
        "machine",
        "a party is a no-show before the day has begun",
        "domain/checks.py",
        "    return Status.TOO_EARLY if now_ms < day.terms.starts_at_ms else None",
        "    return None",
    ),
    Bug(
        "undo-without-end",
        "machine",
        "a check-in or no-show can be undone after its window",
        "domain/checks.py",
        "    return Status.TOO_LATE if record.undo_until_ms <= now_ms else None",
        "    return None",
    ),
    Bug(
        "capacity-raised-marks-overbooked",
        "machine",
        "a raised capacity frees nothing (BC Parks #167)",
        _EVENT_HANDLERS,
        "    quota.add_free(event.capacity - quota.capacity, event.at_ms)\n",
        "    quota.add_free(min(event.capacity - quota.capacity, 0), event.at_ms)\n",
    ),
    Bug(
        "expired-holds-keep-their-units",
        "machine",
        "an expired hold gives its units back to nobody (BC Parks)",
        _EVENT_HANDLERS,
        "        if returned:\n            _give_back(ledger, old_day, name, returned, new, ended_at_ms)\n",
        "        if returned and event.verb is not Verb.EXPIRE:\n"
        "            _give_back(ledger, old_day, name, returned, new, ended_at_ms)\n",
    ),
    Bug(
        "name-swap",
        "machine",
        "a second reserve with the same key overwrites the names of a hold (BC Parks)",
        _RESERVE,
        "    if not is_party_of(record, command.applicants) or (\n",
        "    if record.state is _HELD and len(record.applicants) == len(command.applicants):\n"
        "        from msgspec.structs import replace\n"
        "        record = replace(record, applicants=command.applicants, version=record.version + 1)\n"
        "        evolve(ledger, ReservationChanged(now_ms, Verb.REPLACE_APPLICANT, record))\n"
        "    if (\n",
    ),
    Bug(
        "closed-day-serves-the-wait-list",
        "machine",
        "units of a day that an operator has closed go to the wait list (pretix #1238)",
        "domain/offers.py",
        "    return not day.closed and day.terms.opens_at_ms <= now_ms",
        "    return day.terms.opens_at_ms <= now_ms",
    ),
    # ------------------------------------------------------------------ Lua
    Bug(
        "lua-sweep-looks-at-the-id-only",
        "Lua",
        "a sweep expires what its list names, also a place that was just confirmed (ZMS)",
        _LUA + "ledger.lua",
        '    if old.state == "HELD" then due_changes[due_member(old)] = false end\n',
        "",
        "lua",
    ),
    Bug(
        "lua-deadline-off-by-one",
        "Lua",
        "the script expires a hold one millisecond late",
        _LUA + "inventory.lua",
        "due_holds(day, quotas, padded(now_ms + 1),",
        "due_holds(day, quotas, padded(now_ms),",
        "lua",
    ),
    Bug(
        "lua-party-too-large",
        "Lua",
        "the script accepts a party of one applicant more",
        _LUA + "state_machine.lua",
        "if units > rules.party_max then",
        "if units > rules.party_max + 1 then",
        "lua",
    ),
    Bug(
        "lua-late-copies-run",
        "Lua",
        "a copy that the network delivers after its last moment is carried out",
        "stores/redis/lua/shared/call.lua",
        'if valid_until_ms ~= "" and server_ms > tonumber(valid_until_ms) then',
        'if valid_until_ms ~= "" and server_ms > tonumber(valid_until_ms) + 60000 then',
        "lua",
    ),
    Bug(
        "lua-cancel-after-the-day",
        "Lua",
        "the script cancels a place of a day that is over",
        _LUA + "state_machine.lua",
        'if now_ms >= day.ends_at_ms and not day.closed then return "DAY_OVER" end',
        "",
        "lua",
    ),
    Bug(
        "lua-reallocation-leaks",
        "Lua",
        "the script moves units to another quota and keeps them",
        _LUA + "inventory.lua",
        "quota.capacity, quota.free = quota.capacity - units, quota.free - units",
        "quota.free = quota.free - units",
        "lua",
    ),
    Bug(
        "lua-identity-limit-of-others",
        "Lua",
        "the script shows a stranger the record that reaches their limit",
        _LUA + "state_machine.lua",
        'return outcome("IDENTITY_LIMIT", same_party(conflicting, command) and conflicting or nil)',
        'return outcome("IDENTITY_LIMIT", conflicting)',
        "lua",
    ),
    Bug(
        "lua-wait-list-number-skips",
        "Lua",
        "the script leaves numbers of the wait list out",
        _LUA + "state_machine.lua",
        "wait_list_number = day.last_wait_list_number + 1,",
        "wait_list_number = day.last_wait_list_number + 2,",
        "lua",
    ),
    Bug(
        "lua-stale-version-accepted",
        "Lua",
        "the script does not compare an expected version",
        _LUA + "state_machine.lua",
        '  if version > 0 and version ~= record.version then return outcome("STALE", record) end\n',
        "",
        "lua",
    ),
    # ------------------------------------------------------------------ passes and buckets
    Bug(
        "pass-used-twice",
        "passes",
        "a used pass is not remembered",
        _LUA + "guarded_command.lua",
        "  if usable and has_succeeded(result) then\n",
        '  if usable and has_succeeded(result) and fields.pass == "" then\n',
        "lua",
    ),
    Bug(
        "pass-after-its-end",
        "passes",
        "a pass is accepted at the moment at which it ends",
        _LUA + "guarded_command.lua",
        "usable = gate_ms < fields.pass_until_ms and",
        "usable = gate_ms <= fields.pass_until_ms and",
        "lua",
    ),
    Bug(
        "bucket-refills-twice",
        "buckets",
        "a charge takes half of its tokens",
        "stores/redis/lua/buckets/token_bucket.lua",
        "local ticks = charge.cost * charge.per_ms",
        "local ticks = math.ceil(charge.cost / 2) * charge.per_ms",
        "lua",
    ),
    # ------------------------------------------------------------------ rooms
    Bug(
        "room-opens-early",
        "room",
        "a room opens before the server's clock says so",
        "stores/redis/lua/waiting_room/apply_commands.lua",
        "  if now_ms < config.opens_at_ms then return",
        "  if now_ms < config.opens_at_ms - 600000 then return",
        "lua",
    ),
    Bug(
        "room-jams",
        "room",
        "turns never end, so abandoned tickets jam the room (AWS #154)",
        "stores/redis/lua/waiting_room/apply_commands.lua",
        "if called_at_ms + config.turn_ms <= now_ms then",
        "if called_at_ms + config.turn_ms < 0 then",
        "lua",
    ),
    Bug(
        "room-second-ticket",
        "room",
        "an applicant who joins again gets a second ticket",
        "stores/redis/lua/waiting_room/apply_commands.lua",
        '    if known and known_ticket ~= replaces_ticket then return known_ticket .. "p" end\n',
        "",
        "lua",
    ),
    # ------------------------------------------------------------------ draws
    Bug(
        "draw-accepts-late-applications",
        "draw",
        "an application is accepted after the draw has closed",
        "stores/redis/lua/draw/apply_commands.lua",
        'if now_ms >= config.closes_at_ms then return outcome("APPLICATIONS_CLOSED") end',
        'if now_ms >= config.closes_at_ms + 5000 then return outcome("APPLICATIONS_CLOSED") end',
        "lua",
    ),
    # ------------------------------------------------------------------ the registry and moves
    Bug(
        "claim-of-another-reservation",
        "registry",
        "a claim is dropped by a call that holds an older one",
        "stores/redis/lua/registry/apply_commands.lua",
        '  if not may_drop then return result("TAKEN", known, now_ms) end\n',
        "",
        "lua",
    ),
    Bug(
        "completed-move-reopened",
        "registry",
        "a completed move is undone by a late cancellation",
        "stores/redis/lua/registry/apply_commands.lua",
        '  if known.done then return result(done and "DONE" or "TAKEN", known, now_ms) end\n',
        "",
        "lua",
    ),
    Bug(
        "move-keeps-both-places",
        "workflows",
        "a move does not release the old place",
        _MOVES,
        "    released: Outcome = yield Apply(office, MoveOut(source_id, expected_version=version))\n",
        "    released: Outcome = yield Apply(office, PrepareMove(source_id, expected_version=version))\n"
        "    released = replace(released, status=Status.MOVED)\n",
    ),
    Bug(
        "move-loses-both-places",
        "workflows",
        "a move releases the old place before it has the new one",
        _MOVES,
        "    if not moved.ok or moved.reservation is None:\n        yield from _forget_attempt",
        "    if not moved.ok or moved.reservation is None:\n"
        '        yield Apply(record.office, MoveOut(source.partition("~")[2]))\n'
        "        yield from _forget_attempt",
    ),
    Bug(
        "broken-moves-are-not-finished",
        "workflows",
        "moves whose client died stay half done",
        _MOVES,
        "            if (yield from _finish(requests, move)):\n",
        "            if move.done:\n",
    ),
    # ------------------------------------------------------------------ the SQL stores
    Bug(
        "sql-lost-answer-applied-again",
        "SQL",
        "a commit whose answer was lost is applied a second time",
        _SQL,
        "            if not rows or bytes(rows[0][0]) == checksum:\n",
        "            if not rows:\n",
        "sql",
    ),
    Bug(
        "sql-cache-survives-a-rollback",
        "SQL",
        "a ledger in memory keeps what its transaction did not commit",
        _SQL,
        "            except BaseException:\n                self.cache.drop(address)\n                raise\n"
        '        raise RolledBack("the ledger',
        '            except BaseException:\n                raise\n        raise RolledBack("the ledger',
        "sql",
    ),
    Bug(
        "sql-stale-cache",
        "SQL",
        "a process does not read what others have committed since",
        _SQL,
        "        return ledger.is_of(row) and self.loader.add(ledger, row, entry_rows) and ledger.number "
        "== row.last_number\n",
        "        return ledger.is_of(row)\n",
        "sql",
    ),
    Bug(
        "sql-pause-forgotten",
        "SQL",
        "a process that replays a decline offers no place at the end of the pause",
        "stores/sql/ledger_state.py",
        "        let_wait_lists_be_served(ledger)\n",
        "",
        "sql",
    ),
    Bug(
        "sql-settles-with-the-wrong-results",
        "SQL",
        "after a lost answer each caller gets the results of the first attempt, whether it was committed or not",
        _SQL,
        "        if row is not None and row.last_number >= number:\n",
        "        if row is not None:\n            return results\n"
        "        if row is not None and row.last_number >= number:\n",
        "sql",
    ),
    # ------------------------------------------------------------------ batching and calls
    Bug(
        "batch-answers-swapped",
        "batching",
        "callers of one batch get each other's answers",
        "stores/redis/store_base.py",
        "        for call, reply in zip(batch, replies, strict=True):\n            call.take_reply(decode, reply)",
        "        for call, reply in zip(batch, [*replies[1:], *replies[:1]], strict=True):\n"
        "            call.take_reply(decode, reply)",
        "lua",
    ),
    Bug(
        "call-does-not-wait",
        "batching",
        "a call ends, or sends another copy, while one may still run",
        "stores/redis/server_clock.py",
        "    def wait_ms(self) -> int:\n",
        "    def wait_ms(self) -> int:\n        return 0\n\n    def _wait_ms(self) -> int:\n",
        "lua",
    ),
    Bug(
        "attempt-valid-for-an-hour",
        "batching",
        "the last moment of an attempt ignores attempt_valid_ms, and the call does not wait for it",
        "stores/redis/server_clock.py",
        "self.clocks.of(node).at(now_ms) + valid_ms",
        "self.clocks.of(node).at(now_ms) + 3_600_000",
        "lua",
    ),
    Bug(
        "attempt-outlives-its-call",
        "batching",
        "the last moment of an attempt is later than the end of its call",
        "stores/redis/server_clock.py",
        "                valid_ms = max(left_ms, -USABLE_MS)\n",
        "                pass\n",
        "lua",
    ),
    Bug(
        "retry-before-the-last-moment",
        "batching",
        "a call forgets its lost attempts: it retries and ends while they may still run",
        "stores/redis/server_clock.py",
        "self.lost_until_ms = max(self.lost_until_ms, self._passes_at_ms + MARGIN_MS)",
        "self.lost_until_ms = max(self.lost_until_ms, self.clocks.now_ms())",
        "lua",
    ),
    Bug(
        "unknown-called-unavailable",
        "batching",
        "a lost reply is reported as if nothing had been done",
        "stores/redis/retrying_calls.py",
        "    if unknown is not None:\n        raise OutcomeUnknown(_explain_unknown(unknown, reason)) from reason\n",
        "",
        "lua",
    ),
    # ------------------------------------------------------------------ the sold-out cache
    Bug(
        "sold-out-flag-stays",
        "sold-out cache",
        "a sold-out answer is remembered for a minute (miaosha)",
        "stores/redis/sold_out_cache.py",
        "self._bound_s = bound_ms / 1000",
        "self._bound_s = bound_ms and 60.0",
        "lua",
    ),
    # ------------------------------------------------------------------ faults that were fixed here
    Bug(
        "session-over-sells",
        "machine",
        "a session that is over can be booked until the end of its day",
        "domain/checks.py",
        "    if now_ms >= day.book_until_ms(choice.session):\n        return REFUSED[Status.SESSION_OVER]\n",
        "",
    ),
    Bug(
        "capacity-after-reallocation",
        "machine",
        "a capacity that is set after the reallocation time is given away, again with each repetition",
        _OPERATOR_COMMANDS,
        "    if quota.reallocation is not None and quota.reallocation.at_ms <= now_ms:\n"
        "        return REFUSED[Status.WRONG_STATE]\n",
        "",
    ),
    Bug(
        "operators-undo-each-other",
        "machine",
        "an operator's command does not compare the revision that the operator saw",
        _OPERATOR_COMMANDS,
        "    if expected_revision in (0, day.revision):\n",
        "    if expected_revision <= day.revision:\n",
    ),
    Bug(
        "abandoned-holds-of-other-days",
        "machine",
        "overdue holds on other days are not counted as abandoned",
        "domain/abandonment.py",
        "    for applicant in applicants:\n        ids = ledger.claims.get(applicant, ())\n",
        "    for applicant in applicants[:0]:\n        ids = ledger.claims.get(applicant, ())\n",
    ),
    Bug(
        "guard-starts-at-zero",
        "machine",
        "a guard that is added later does not count those who have booked",
        "domain/quota_replacement.py",
        "    if renamed or any(known_guards.get(name) != scope for name, scope in guards.items()):\n",
        "    if renamed:\n",
    ),
    Bug(
        "quota-with-people-vanishes",
        "machine",
        "a publication removes a quota that people have or wait for",
        "domain/publication.py",
        "        if people:\n            return Outcome(Status.QUOTA_IN_USE, units=people)\n",
        "",
    ),
    Bug(
        "lua-renamed-wait-list",
        "Lua",
        "a waiting party whose quota is renamed is lost from the list",
        _LUA + "publication.lua",
        '      if record.state == "WAITING" then wait_list().join(record) end\n',
        "",
        "lua",
    ),
    Bug(
        "late-confirm-needs-no-pass",
        "passes",
        "a late confirm asks for no pass and no charge",
        _LUA + "guarded_command.lua",
        '  return fields[5] == "1" and reacquire_takes_new_units(fields[2], fields[3], now_ms)\n',
        "  return false\n",
        "lua",
    ),
    Bug(
        "sql-entry-drops-a-count",
        "SQL",
        "an entry lacks the last count of its records",
        "stores/sql/office_codec.py",
        "Reservation.__struct_fields__[10:] if name not in PARTY_FIELDS)",
        "Reservation.__struct_fields__[10:-3] if name not in PARTY_FIELDS)",
        "sql",
    ),
    Bug(
        "wait-list-entry-counts-forever",
        "machine",
        "an entry on the wait list of a day or session that is over counts as a place",
        "domain/claims.py",
        "        if not day.closed and (record.state is not _WAITING or "
        "now_ms < day.book_until_ms(record.choice.session)):\n",
        "        if not day.closed:\n",
    ),
    Bug(
        "reschedule-needs-no-pass",
        "passes",
        "a reschedule into a release asks for no pass and no charge",
        _LUA + "guarded_command.lua",
        "  return record.day ~= tonumber(fields[3]) or not is_same_choice(record, given)\n",
        "  return false\n",
        "lua",
    ),
    Bug(
        "asked-replies-misread",
        "batching",
        "a reply to ASKING is taken for the reply to the request behind it",
        "stores/redis/retrying_calls.py",
        "                replies = replies[1::2]\n",
        "                replies = replies[::2]\n",
        "lua",
    ),
)
