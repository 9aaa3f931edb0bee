"""A catalog and the plans derived from it, cached because thousands of calls ask for the same one."""

from __future__ import annotations

__all__ = ["CatalogPlans", "check_catalog"]

import datetime
from typing import Final

from quota_engine.catalog import Catalog, Selection, choice_of, day_terms
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Choice
from quota_engine.workflows.arguments import Day, day_number

PLANS_MAX: Final = 10_000
_EPOCH_DAY: Final = datetime.date(1970, 1, 1).toordinal()
_DAY_MS: Final = 86_400_000


def check_catalog(catalog: object) -> None:
    """Require a catalog.

    Raises:
        InvalidRequest: it is something else, such as a file name.
    """
    if not isinstance(catalog, Catalog):
        raise InvalidRequest("catalog", f"a {type(catalog).__name__}", "what load_catalog() returns")


class CatalogPlans:
    """One catalog, or none, with its derived plans. Safe to share between threads."""

    __slots__ = ("_catalog", "_choices", "_ends_at_ms", "plans")

    def __init__(self, catalog: Catalog | None) -> None:
        if catalog is not None:
            check_catalog(catalog)
        self._catalog = catalog
        self._choices: dict[tuple[str, Selection], Choice] = {}
        self.plans: dict[tuple[str, Day, Selection], tuple[int, Choice]] = {}
        """Day number and choice by office, day and selection. :meth:`plan` fills it."""
        self._ends_at_ms: dict[tuple[str, int], int] = {}

    @property
    def catalog(self) -> Catalog:
        """The catalog.

        Raises:
            InvalidRequest: there is none yet.
        """
        if self._catalog is None:
            raise InvalidRequest("catalog", "none has been given", "one with open(..., catalog=...) or publish(...)")
        return self._catalog

    @property
    def has_national_limit(self) -> bool:
        """True if an applicant may have one active place over all offices."""
        return self._catalog is not None and self._catalog.national is not None

    def plan(self, office: str, day: Day, selection: Selection) -> tuple[int, Choice]:
        """Return the day's ordinal and the choice that ``selection`` means at ``office``.

        Raises:
            UnknownName: the catalog does not have one of the ids.
            InvalidRequest: no such day; an id is missing; or no allotment admits the selection.
        """
        number = day_number(day)
        names = (
            office,
            selection.service,
            selection.service_unit,
            selection.session,
            selection.channel,
            selection.group,
        )
        if not all(isinstance(name, str) for name in names):
            raise InvalidRequest("office, service, session, channel, group", "not all are strings", "names")
        choice = choice_of(self.catalog, office, selection)
        # All days share one choice, so that it costs a reservation one pointer.
        choice = self._choices.setdefault((office, selection), choice)
        if len(self.plans) >= PLANS_MAX:
            self.plans.clear()
        self.plans[office, day, selection] = number, choice
        return number, choice

    def ends_at_ms(self, office: str, day: int) -> int:
        """Return when an office's day is over, by the catalog.

        For a day that the catalog does not plan: when the date is over everywhere on Earth.
        """
        ends_at_ms = self._ends_at_ms.get((office, day))
        if ends_at_ms is None:
            ends_at_ms = self._planned_end_ms(office, day) or (day - _EPOCH_DAY + 2) * _DAY_MS
            if len(self._ends_at_ms) >= PLANS_MAX:
                self._ends_at_ms.clear()
            self._ends_at_ms[office, day] = ends_at_ms
        return ends_at_ms

    def _planned_end_ms(self, office: str, day: int) -> int:
        if self._catalog is None or office not in self._catalog.offices:
            return 0
        try:
            terms = day_terms(self._catalog, office, datetime.date.fromordinal(day))
        except InvalidRequest:  # a year that no catalog plans
            return 0
        return 0 if terms is None else terms.ends_at_ms
