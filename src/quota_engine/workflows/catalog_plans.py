"""A catalog and the plans derived from it, cached because thousands of calls ask for the same one."""

from __future__ import annotations

__all__ = ["BookingNames", "CatalogPlans", "Plan", "check_catalog"]

import datetime
from typing import Final

from quota_engine.catalog import Catalog, Selection, choice_of, day_terms
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Choice
from quota_engine.ports import ReserveKind
from quota_engine.workflows.arguments import Day, day_number

PLANS_MAX: Final = 10_000
_EPOCH_DAY: Final = datetime.date(1970, 1, 1).toordinal()
_DAY_MS: Final = 86_400_000


BookingNames = tuple[str, Day, str, str, str, str, str]
"""Office, day, and the names of a selection: service, service unit, session, channel, group."""


Plan = tuple[int, Choice, ReserveKind]
"""Day and choice of a booking, and the kind of its reserve for one applicant without the wait list.

Each reserve unpacks one, and unpacking a named tuple takes several times longer.
"""


def check_catalog(catalog: object) -> None:
    """Require a catalog.

    Raises:
        InvalidRequest: it is something else, such as a file name.
    """
    if not isinstance(catalog, Catalog):
        raise InvalidRequest("catalog", f"a {type(catalog).__name__}", "what load_catalog() returns")


class CatalogPlans:
    """One catalog, or none, with its derived plans. Safe to share between threads."""

    __slots__ = ("_catalog", "_choices", "_times_ms", "has_national_limit", "plans")

    def __init__(self, catalog: Catalog | None) -> None:
        if catalog is not None:
            check_catalog(catalog)
        self._catalog = catalog
        self.has_national_limit = catalog is not None and catalog.national is not None
        """True if an applicant may have one active place over all offices."""
        self._choices: dict[tuple[str, Selection], Choice] = {}
        self.plans: dict[BookingNames, Plan] = {}
        """Plans by the names of a booking. :meth:`plan` fills it."""
        self._times_ms: dict[tuple[str, int], tuple[int, int]] = {}
        """When a day opens and when it is over, by office and day; zeros if the catalog does not plan it."""

    @property
    def catalog(self) -> Catalog:
        """The catalog.

        Raises:
            InvalidRequest: there is none yet.
        """
        if self._catalog is None:
            raise InvalidRequest("catalog", "none has been given", "one with open(..., catalog=...) or publish(...)")
        return self._catalog

    def plan(self, names: BookingNames) -> Plan:
        """Return the plan of a booking.

        Raises:
            UnknownName: the catalog does not have one of the ids.
            InvalidRequest: no such day; an id is missing; or no allotment admits the selection.
        """
        office, day, *selected = names
        number = day_number(day)
        if not all(isinstance(name, str) for name in (office, *selected)):
            raise InvalidRequest("office, service, session, channel, group", "not all are strings", "names")
        selection = Selection(*selected)
        choice = choice_of(self.catalog, office, selection)
        # All days share one choice, so that it costs a reservation one pointer.
        choice = self._choices.setdefault((office, selection), choice)
        if len(self.plans) >= PLANS_MAX:
            self.plans.clear()
        plan = self.plans[names] = number, choice, (id(choice), number, 1, False)
        return plan

    def opens_at_ms(self, office: str, day: int) -> int:
        """Return when an office's day opens for booking, by the catalog; 0 for a day that it does not plan."""
        return self._planned_times_ms(office, day)[0]

    def ends_at_ms(self, office: str, day: int) -> int:
        """Return when an office's day is over, by the catalog.

        For a day that the catalog does not plan: when the date is over everywhere on Earth.
        """
        return self._planned_times_ms(office, day)[1] or (day - _EPOCH_DAY + 2) * _DAY_MS

    def _planned_times_ms(self, office: str, day: int) -> tuple[int, int]:
        times = self._times_ms.get((office, day))
        if times is None:
            times = self._compute_times_ms(office, day)
            if len(self._times_ms) >= PLANS_MAX:
                self._times_ms.clear()
            self._times_ms[office, day] = times
        return times

    def _compute_times_ms(self, office: str, day: int) -> tuple[int, int]:
        if self._catalog is None or office not in self._catalog.offices:
            return 0, 0
        try:
            terms = day_terms(self._catalog, office, datetime.date.fromordinal(day))
        except InvalidRequest:  # a year that no catalog plans
            return 0, 0
        return (0, 0) if terms is None else (terms.opens_at_ms, terms.ends_at_ms)
