"""Commands of operators: days, capacities, reallocation and parked units."""

from __future__ import annotations

import dataclasses

from msgspec.structs import replace

from quota_engine.domain.commands import CloseDay, OpenDay, Publish, ReallocateUnused, ReleaseParked, SetCapacity
from quota_engine.domain.lifecycle import State
from quota_engine.domain.outcomes import Status
from tests.support.oracle.moves import Moves
from tests.support.oracle.records import Day, ExpectedOutcome, Quota


class Operators(Moves):
    """An office that answers its operators."""

    def _publish(self, command: Publish) -> ExpectedOutcome:
        terms = command.terms
        if self._too_late_to_publish(command):
            return ExpectedOutcome(Status.DAY_OVER)
        known = self.days.get(command.day)
        day = known or Day(command.day, 0, 0, 0, 0, {})
        kept = {name for quota in terms.quotas for name in (quota.name, quota.renamed_from)}
        lacking = day.quotas.keys() - kept
        if people := sum(self._people_on(day, name) for name in lacking):
            return ExpectedOutcome(Status.QUOTA_IN_USE, units=people)
        self.days[command.day] = day
        before, overbooked_before = self._published(day), self._overbooked(day)
        self._rename(day, {quota.renamed_from: quota.name for quota in terms.quotas if quota.renamed_from})
        for name in lacking:
            del day.quotas[name]
            day.cooling = [one for one in day.cooling if one.quota != name]
        day.opens_at_ms = terms.opens_at_ms
        day.starts_at_ms = terms.starts_at_ms
        day.ends_at_ms = terms.ends_at_ms
        day.forget_at_ms = terms.forget_at_ms
        day.sessions = terms.sessions
        for quota_terms in terms.quotas:
            if quota_terms.name in day.quotas:
                day.quotas[quota_terms.name].terms = quota_terms
            else:
                day.quotas[quota_terms.name] = Quota(quota_terms, quota_terms.capacity)
        if self._published(day) == before:
            return ExpectedOutcome(Status.DONE, replayed=True)
        for record in self._records_on(day):
            if record.state not in (State.RELEASED, State.CANCELLED, State.MOVED):
                option = None if not record.quotas else day.completed(replace(record.choice, options=(record.quotas,)))
                record.choice = day.completed(record.choice)
                record.quotas = () if option is None else option.options[0]
        self._changed()
        day.revision += 1
        overbooked = max(0, self._overbooked(day) - overbooked_before)
        if known is not None:
            self._distribute(day)
        return ExpectedOutcome(Status.DONE, overbooked=overbooked)

    def _too_late_to_publish(self, command: Publish) -> bool:
        return command.terms.forget_at_ms <= self.now_ms or command.day <= self.last_forgotten_day

    def _rename(self, day: Day, renamed: dict[str, str]) -> None:
        """Give quotas of the day another name; the people of one whose new name is taken join that quota."""
        renamed = {old: new for old, new in renamed.items() if old in day.quotas}
        joining = {old for old, new in renamed.items() if new in day.quotas}
        day.quotas = {renamed.get(name, name): one for name, one in day.quotas.items() if name not in joining}
        day.cooling = [dataclasses.replace(one, quota=renamed.get(one.quota, one.quota)) for one in day.cooling]
        for record in self._records_on(day):
            if renamed and record.state not in (State.RELEASED, State.CANCELLED, State.MOVED):
                options = [tuple(dict.fromkeys(renamed.get(n, n) for n in option)) for option in record.choice.options]
                record.choice = replace(record.choice, options=tuple(dict.fromkeys(options)))
                record.quotas = tuple(dict.fromkeys(renamed.get(name, name) for name in record.quotas))

    def _published(self, day: Day) -> object:
        """Return everything that publishing the day again can change."""
        rules = {
            name: (quota.terms.re_release, quota.terms.reallocation, quota.terms.guard)
            for name, quota in day.quotas.items()
        }
        return (day.opens_at_ms, day.starts_at_ms, day.ends_at_ms, day.forget_at_ms, day.sessions, rules)

    def _close_or_open(self, day: Day, command: CloseDay | OpenDay) -> ExpectedOutcome:
        closed = isinstance(command, CloseDay)
        if day.closed == closed:
            return ExpectedOutcome(
                Status.DONE, replayed=True, units=0 if closed else day.departed, revision=day.revision
            )
        if command.expected_revision not in (0, day.revision):
            return ExpectedOutcome(Status.STALE, revision=day.revision)
        day.closed = closed
        if closed:
            day.departed = 0
        day.revision += 1
        self._changed()
        self._distribute(day)
        return ExpectedOutcome(Status.DONE, units=0 if closed else day.departed, revision=day.revision)

    def _on_quota(self, command: SetCapacity | ReallocateUnused | ReleaseParked, day: Day) -> ExpectedOutcome:
        quota = day.quotas[command.quota]
        if command.expected_revision not in (0, day.revision) and self._would_change(command, day):
            return ExpectedOutcome(Status.STALE, revision=day.revision)
        match command:
            case SetCapacity():
                if quota.terms.reallocation is not None and quota.terms.reallocation.at_ms <= self.now_ms:
                    return ExpectedOutcome(Status.WRONG_STATE)
                replayed = quota.capacity == command.capacity
                if not replayed:
                    quota.capacity = command.capacity
                    day.revision += 1
                    self._changed()
                    self._distribute(day)
                overbooked = max(-self._free(day, command.quota), 0)
                return ExpectedOutcome(Status.DONE, replayed=replayed, overbooked=overbooked, revision=day.revision)
            case ReallocateUnused():
                if quota.terms.reallocation is None:
                    return ExpectedOutcome(Status.WRONG_STATE)
                units = self._reallocate(day, command.quota)
                day.revision += units > 0
            case ReleaseParked():
                parked = [c for c in day.cooling if c.quota == command.quota and c.due_at_ms is None]
                units = sum(cooling.units for cooling in parked)
                day.revision += units > 0
                for cooling in parked:
                    day.cooling.remove(cooling)
                    self._changed()
        self._distribute(day)
        return ExpectedOutcome(Status.DONE, units=units, revision=day.revision)

    def _would_change(self, command: SetCapacity | ReallocateUnused | ReleaseParked, day: Day) -> bool:
        """Return True unless the effect of the command exists already."""
        quota = day.quotas[command.quota]
        match command:
            case SetCapacity():
                return quota.capacity != command.capacity
            case ReallocateUnused():
                return quota.terms.reallocation is None or self._free(day, command.quota) > 0
            case ReleaseParked():
                return any(c.quota == command.quota and c.due_at_ms is None for c in day.cooling)
