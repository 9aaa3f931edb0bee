"""Units that move: they are returned, reallocated, offered to the wait list and withheld."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Choice, ReReleaseRule
from tests.support.oracle.office import Office
from tests.support.oracle.records import DEMANDS_MAX, OFFERS_MAX, Cooling, Day, Record


class Units(Office):
    """An office whose units move."""

    def _return_units(
        self, record: Record, day: Day, quotas: Iterable[str], from_ms: int, units: int | None = None
    ) -> None:
        """Return units of ``quotas``: they reduce the overbooking first, and the quota's rule applies to the rest."""
        units = record.units if units is None else units
        for name in quotas:
            overbooked_before = max(-(self._free(day, name) - units), 0)
            rest = units - min(units, overbooked_before)
            re_release = day.quotas[name].terms.re_release
            if rest and re_release.rule is ReReleaseRule.COOLING:
                key = f"{self.rules.jitter_seed}:{record.id}:{record.version}:{name}"
                digest = hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()
                jitter_ms = int(digest[:12], 16) % (re_release.jitter_ms + 1)
                day.cooling.append(Cooling(name, rest, from_ms + re_release.cooling_ms + jitter_ms))
            elif rest and re_release.rule is ReReleaseRule.NEXT_DRAW:
                day.cooling.append(Cooling(name, rest, None))

    def _distribute(self, day: Day) -> None:
        """Reallocate free units that are due, and then serve the wait list."""
        self._reallocate_due(day)
        self._serve_wait_list(day)

    def _reallocate_due(self, day: Day) -> None:
        for name, quota in day.quotas.items():
            if quota.terms.reallocation is not None and quota.terms.reallocation.at_ms <= self.now_ms:
                self._reallocate(day, name)

    def _reallocate(self, day: Day, name: str) -> int:
        reallocation = day.quotas[name].terms.reallocation
        units = max(self._free(day, name), 0)
        if reallocation is None or not units:
            return 0
        day.quotas[name].capacity -= units
        day.quotas[reallocation.to].capacity += units
        self._changed()
        return units

    def _serve_wait_list(self, day: Day) -> None:
        self._note_free_units(day)
        offers = 0
        withheld: dict[str, int] = {}
        for record in self._served(day):
            option = self._first_fitting(day, record.choice, record.units, (), withheld)
            if option is None:
                self._withhold(day, record, withheld)
            elif offers < OFFERS_MAX:
                offers += 1
                record.quotas = option
                record.deadline_at_ms = self.now_ms + self.rules.offer_ttl_ms
                record.paused_until_ms = 0
                self._step(record, State.HELD)
                self._note_free_units(day)

    def _served(self, day: Day) -> list[Record]:
        """Return the waiting parties that can get an offer now, in their order."""
        if not day.opens_at_ms <= self.now_ms < day.ends_at_ms or day.closed:
            return []
        return [
            record
            for record in self._waiting(day)
            if record.paused_until_ms <= self.now_ms
            and self._can_wait_for(day, record.choice)
            and not day.booking_ended(record.choice, self.now_ms)
        ]

    def _withhold(self, day: Day, record: Record, withheld: dict[str, int]) -> None:
        """Withhold units for a party that does not fit."""
        for name in {name for option in record.choice.options for name in option}:
            quota = day.quotas[name]
            if name not in withheld and self.now_ms < quota.free_since_ms + quota.terms.re_release.blocks_ms:
                withheld[name] = record.units

    def _withheld_from_all(self, day: Day) -> dict[str, int]:
        """Return the units that only their party gets. Offers that are still due withhold nothing here."""
        withheld: dict[str, int] = {}
        for record in self._served(day):
            if self._first_fitting(day, record.choice, record.units, (), withheld) is not None:
                return {}
            self._withhold(day, record, withheld)
        return withheld

    def _withheld_before(self, day: Day, party: Record) -> dict[str, int]:
        withheld: dict[str, int] = {}
        for record in self._served(day):
            if record is party:
                break
            self._withhold(day, record, withheld)
        return withheld

    def _first_for_newcomer(
        self, day: Day, choice: Choice, units: int, owned: tuple[str, ...] = ()
    ) -> tuple[str, ...] | None:
        """Return the first option with units that no waiting party can use, and that are withheld for none."""
        for record in self._served(day):
            if self._first_fitting(day, record.choice, record.units, (), self._withheld_before(day, record)):
                return None
        return self._first_fitting(day, choice, units, owned, self._withheld_from_all(day))

    def _first_fitting(
        self, day: Day, choice: Choice, units: int, owned: tuple[str, ...], withheld: dict[str, int]
    ) -> tuple[str, ...] | None:
        for option in choice.options:
            if all(name in owned or self._free(day, name) - withheld.get(name, 0) >= units for name in option):
                return option
        return None

    def _can_wait_for(self, day: Day, choice: Choice) -> bool:
        names = {name for option in choice.options for name in option}
        return any(day.quotas[name].terms.re_release.rule is ReReleaseRule.WAIT_LIST for name in names)

    def _has_too_many_demands(self, day: Day, choice: Choice, units: int) -> bool:
        demands = {(one.choice, one.units) for one in self._waiting(day) if one.paused_until_ms <= self.now_ms}
        return len(demands) >= DEMANDS_MAX and (day.completed(choice), units) not in demands
