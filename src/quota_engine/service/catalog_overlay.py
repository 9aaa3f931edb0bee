"""Changes of the catalog that operators have made: closures, working holidays and capacities, with author and time.

They are an overlay. The catalog file stays as it is, and the service works with the catalog that follows from both.
The changes are lines of one file: a change, or the removal of one. So the file also records who changed what, and when.
"""

from __future__ import annotations

__all__ = ["CatalogChange", "CatalogOverlay", "apply_changes"]

import contextlib
import dataclasses
import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from quota_engine import typed_data
from quota_engine.catalog import Catalog, ResolvedOffice

_FILE: Final = "catalog-changes.jsonl"
_BYTES_MAX: Final = 4_194_304


class CatalogChange(msgspec.Struct, frozen=True):
    """One change of an office.

    Attributes:
        id: Random id of the change.
        office: Id of the office.
        kind: ``closure`` closes the days from ``first`` to ``last``; ``working_day`` lets the office work on the
            holidays among them; ``capacities`` replaces capacities of days that are published from now on.
        first: First day, as an ISO date; ``""`` for capacities.
        last: Last day, included.
        reason: Reason of a closure, as the operator has written it.
        capacities: New capacities by quota.
        author: Name of the operator's token.
        at_ms: Time of the change in milliseconds since 1970 (UTC).
        removes: Id of the change that this line removes; ``""`` for a change.
    """

    id: str
    office: str
    kind: Literal["closure", "working_day", "capacities"]
    author: str
    at_ms: int
    first: str = ""
    last: str = ""
    reason: str = ""
    capacities: Mapping[str, int] = {}
    removes: str = ""

    @property
    def days(self) -> tuple[datetime.date, datetime.date]:
        """First and last day of a closure, or of working holidays."""
        return datetime.date.fromisoformat(self.first), datetime.date.fromisoformat(self.last)


class CatalogOverlay:
    """The changes that count. All processes with the same folder share them."""

    def __init__(self, folder: Path | None) -> None:
        """``folder``: an existing folder for the file; ``None`` keeps the changes in this process."""
        self._path = None if folder is None else folder / _FILE
        self._lines: list[CatalogChange] = []
        self._signature: tuple[int, int] | None = None
        self._changes: tuple[CatalogChange, ...] = ()

    def changes(self) -> tuple[CatalogChange, ...]:
        """Return the changes that have not been removed, the oldest first. The same object until the file changes."""
        if self._path is not None:
            signature = _signature_of(self._path)
            if signature != self._signature:
                self._signature = signature
                self._lines = _read(self._path)
                self._changes = _in_force(self._lines)
        return self._changes

    def add(self, change: CatalogChange) -> None:
        """Add a change, or the removal of one.

        Raises:
            OSError: the file cannot be written.
        """
        if self._path is not None:
            # One write: lines of two processes do not mix.
            with self._path.open("ab", buffering=0) as file:
                file.write(msgspec.json.encode(change) + b"\n")
            return
        self._lines.append(change)
        self._changes = _in_force(self._lines)


def apply_changes(catalog: Catalog, changes: Iterable[CatalogChange]) -> Catalog:
    """Return the catalog with the changes. A change of an office or a quota that the catalog lacks is left out."""
    offices = dict(catalog.offices)
    for change in changes:
        if change.office in offices:
            offices[change.office] = _change_office(offices[change.office], change)
    return dataclasses.replace(catalog, offices=offices) if offices != catalog.offices else catalog


def _change_office(office: ResolvedOffice, change: CatalogChange) -> ResolvedOffice:
    calendar = office.calendar
    if change.kind == "capacities":
        return dataclasses.replace(
            office,
            quotas=tuple(
                msgspec.structs.replace(one, capacity=change.capacities.get(one.id, one.capacity))
                for one in office.quotas
            ),
            allotments=tuple(
                msgspec.structs.replace(one, capacity=change.capacities.get(one.id, one.capacity))
                for one in office.allotments
            ),
        )
    first, last = change.days
    if change.kind == "closure":
        calendar = dataclasses.replace(calendar, closures=(*calendar.closures, (first, last)))
    else:
        worked = frozenset(day for day in calendar.holidays if first <= day <= last)
        calendar = dataclasses.replace(calendar, holidays=calendar.holidays - worked)
    return dataclasses.replace(office, calendar=calendar)


def _in_force(lines: Iterable[CatalogChange]) -> tuple[CatalogChange, ...]:
    found: dict[str, CatalogChange] = {}
    for line in lines:
        if line.removes:
            found.pop(line.removes, None)
        else:
            found[line.id] = line
    return tuple(found.values())


def _signature_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _read(path: Path) -> list[CatalogChange]:
    lines: list[CatalogChange] = []
    try:
        content = path.read_bytes()[:_BYTES_MAX]
    except OSError:
        return lines
    for line in content.splitlines():
        with contextlib.suppress(msgspec.DecodeError, ValueError):
            change = typed_data.decode_json(line, CatalogChange)
            if change.kind != "capacities" and not change.removes:
                _ = change.days
            lines.append(change)
    return lines
