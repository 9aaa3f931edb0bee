"""A recorded opening: a CSV file with the presses of applicants, in place of the arrival model."""

from __future__ import annotations

__all__ = ["COLUMNS", "ISSUES_MAX", "read_trace"]

import csv
import dataclasses
import datetime
import pathlib
import re
from array import array
from typing import Final

from quota_engine.domain.errors import CatalogError, InvalidRequest, ValidationIssue
from quota_engine.domain.validation import APPLICANTS_MAX
from quota_engine.simulation.arrivals import ArrivalKind, Population
from quota_engine.simulation.supply import BookingChoice, Supply

COLUMNS: Final = ("time", "applicant", "office", "day", "channel", "party")
ISSUES_MAX: Final = 20
"""Errors that are reported; a trace can have millions of lines."""

_SECONDS = re.compile(r"[+-]?\d{1,7}(\.\d{1,9})?").fullmatch
_IDENTITY_LENGTH_MAX: Final = 250
"""Below the engine's limit, because party members get the identity with a suffix."""


@dataclasses.dataclass(slots=True)
class _Rows:
    """Columns that have been read: one entry for each applicant, office-day and channel, in order of the first line."""

    known: dict[tuple[str, int, str], int] = dataclasses.field(default_factory=dict)
    presses_us: list[list[int]] = dataclasses.field(default_factory=list)
    identities: list[str] = dataclasses.field(default_factory=list)
    office_days: list[int] = dataclasses.field(default_factory=list)
    choices: list[int] = dataclasses.field(default_factory=list)
    parties: list[int] = dataclasses.field(default_factory=list)


def read_trace(path: pathlib.Path, supply: Supply, default: BookingChoice, seed: int) -> Population:
    """Read a trace with the header ``time,applicant,office,day,channel,party``.

    ``time`` is in seconds from the opening, or ISO 8601 with an offset. ``day`` is ISO 8601. ``channel`` is a channel
    of the catalog, or empty for the default. ``party`` is the number of applicants, or empty for 1. Lines can have any
    order. Further lines of an applicant for the same office, day and channel are presses of the same applicant.

    Args:
        path: The file.
        supply: Office-days on sale.
        default: Choice of an applicant, apart from the channel.
        seed: Seed of the run.

    Raises:
        CatalogError: The trace is invalid. Each issue names line and column, and never the identity.
    """
    issues: list[ValidationIssue] = []
    rows = _Rows()
    reader = _Reader(str(path), supply, default, issues)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = tuple(name.strip() for name in next(lines, ()))
            if header != COLUMNS:
                raise CatalogError((ValidationIssue(str(path), "line 1", "wrong header", ",".join(COLUMNS)),))
            for cells in lines:
                if cells:
                    reader.read(lines.line_num, cells, rows)
                if len(issues) >= ISSUES_MAX:
                    break
    except OSError as error:
        problem = error.strerror or "not readable"
        raise CatalogError((ValidationIssue(str(path), "(file)", problem, "a CSV file"),)) from None
    except (UnicodeDecodeError, csv.Error):
        raise CatalogError((ValidationIssue(str(path), "(file)", "not text", "a CSV file in UTF-8"),)) from None
    if not rows.identities and not issues:
        issues.append(ValidationIssue(str(path), "(file)", "no lines", "at least one press"))
    if issues:
        raise CatalogError(tuple(issues))
    for presses in rows.presses_us:
        presses.sort()
    return Population(
        seed,
        0,
        array("q", [presses[0] for presses in rows.presses_us]),
        bytearray([ArrivalKind.RECORDED]) * len(rows.identities),
        array("I", rows.office_days),
        bytearray(rows.choices),
        bytearray(rows.parties),
        tuple(reader.choices),
        tuple(rows.identities),
        {index: tuple(presses[1:]) for index, presses in enumerate(rows.presses_us) if len(presses) > 1},
    )


class _Reader:
    """Converter from the cells of a line to numbers, with a list of the issues."""

    def __init__(self, file: str, supply: Supply, default: BookingChoice, issues: list[ValidationIssue]) -> None:
        self._file, self._default, self._issues = file, default, issues
        self._catalog = supply.catalog
        self._opening_ms = supply.opening_ms
        self._office_days = {(each.office, each.day): index for index, each in enumerate(supply.office_days)}
        self._offices = {each.office for each in supply.office_days}
        self._choice_of: dict[tuple[str, str], int | None] = {}
        self.choices: list[BookingChoice] = []

    def read(self, line: int, cells: list[str], rows: _Rows) -> None:
        if len(cells) != len(COLUMNS):
            self._note(line, "(line)", f"{len(cells)} cells", f"{len(COLUMNS)}: {','.join(COLUMNS)}")
            return
        time, applicant, office, day, channel, party = (cell.strip() for cell in cells)
        press_us = self._time(line, time)
        if not 1 <= len(applicant) <= _IDENTITY_LENGTH_MAX or not applicant.isprintable():
            problem = "empty" if not applicant else f"{len(applicant)} characters"
            self._note(line, "applicant", problem, f"1 to {_IDENTITY_LENGTH_MAX} printable characters")
        office_day = self._office_day(line, office, day)
        choice = self._choice(line, office, channel) if office_day is not None else 0
        units = self._party(line, party)
        if press_us is None or office_day is None or choice is None or units is None or not applicant:
            return
        key = (applicant, office_day, channel)
        index = rows.known.get(key)
        if index is None:
            rows.known[key] = len(rows.identities)
            rows.presses_us.append([press_us])
            rows.identities.append(applicant)
            rows.office_days.append(office_day)
            rows.choices.append(choice)
            rows.parties.append(units)
        elif rows.parties[index] != units:
            self._note(line, "party", f"{units}", f"{rows.parties[index]}, as on the applicant's first line")
        else:
            rows.presses_us[index].append(press_us)

    def _time(self, line: int, cell: str) -> int | None:
        if _SECONDS(cell):
            return round(float(cell) * 1_000_000)
        try:
            moment = datetime.datetime.fromisoformat(cell)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self._note(line, "time", _redacted(cell), "seconds from the opening, or ISO 8601 with an offset")
            return None
        since = moment - datetime.datetime.fromtimestamp(0, datetime.UTC)
        press_us = since // datetime.timedelta(microseconds=1) - self._opening_ms * 1000
        if abs(press_us) >= 10**13:
            self._note(line, "time", _redacted(cell), "a time near the opening")
            return None
        return press_us

    def _office_day(self, line: int, office: str, day: str) -> int | None:
        if office not in self._offices:
            self._note(line, "office", _redacted(office), "an office of the scenario")
            return None
        try:
            ordinal = datetime.date.fromisoformat(day).toordinal()
        except ValueError:
            self._note(line, "day", _redacted(day), "an ISO 8601 date")
            return None
        index = self._office_days.get((office, ordinal))
        if index is None:
            self._note(line, "day", _redacted(day), "a day of the scenario's sale")
        return index

    def _choice(self, line: int, office: str, channel: str) -> int | None:
        """Return the index of the choice with this channel, or ``None`` if the office has no such channel."""
        key = (office, channel)
        if key not in self._choice_of:
            choice = dataclasses.replace(self._default, channel=channel or self._default.channel)
            try:
                choice.quota_options(self._catalog, office)
            except InvalidRequest:
                self._choice_of[key] = None
            else:
                if choice not in self.choices:
                    self.choices.append(choice)
                self._choice_of[key] = self.choices.index(choice)
        index = self._choice_of[key]
        if index is None:
            self._note(line, "channel", _redacted(channel), "a channel of the office")
        return index

    def _party(self, line: int, cell: str) -> int | None:
        if not cell:
            return 1
        if cell.isascii() and cell.isdigit() and len(cell) < 4 and 1 <= int(cell) <= APPLICANTS_MAX:
            return int(cell)
        self._note(line, "party", _redacted(cell), f"a number of applicants from 1 to {APPLICANTS_MAX}")
        return None

    def _note(self, line: int, column: str, problem: str, expected: str) -> None:
        self._issues.append(ValidationIssue(self._file, f"line {line}, {column}", problem, expected))


def _redacted(cell: str) -> str:
    """Return a description without the content, which is an identity if the columns are swapped."""
    return f"{len(cell)} invalid characters" if cell else "empty"
