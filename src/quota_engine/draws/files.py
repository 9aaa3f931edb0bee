"""Files of a draw as text: capacities, applications and the result, each with one canonical form.

The digest of a file is the SHA-256 of its canonical form. Files are written in canonical form, so ``sha256sum`` of a
published file is its digest. A file in another order or format has the same digest after it is read.

- Capacities: JSON, with days sorted by office and date and choices sorted by name.
- Applications: JSON Lines, sorted by number. CSV can also be read, with the columns number, applicants, choices and
  optionally party; the values of a list are separated by spaces.
- Result: JSON Lines, first the head, then the lot of each application, sorted by number.
"""

from __future__ import annotations

__all__ = [
    "ISSUES_MAX",
    "ResultHead",
    "applications_of_csv",
    "applications_of_lines",
    "canonical_lines",
    "capacities_of_json",
    "digest_of",
    "json_of_capacities",
    "line_of_application",
    "lines_of_result",
    "pseudonym_of",
    "result_head",
    "result_of_lines",
]

import csv
import datetime
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from quota_engine import typed_data
from quota_engine.domain.epochs import EPOCH_FIRST, EPOCH_MAX
from quota_engine.domain.errors import CatalogError, InvalidRequest, ValidationIssue
from quota_engine.domain.model import Choice
from quota_engine.domain.validation import (
    APPLICANTS_MAX,
    CAPACITY_MAX,
    NAME_LENGTH_MAX,
    OPTIONS_MAX,
    QUOTAS_MAX,
    check_name,
)
from quota_engine.draws.lottery import (
    APPLICATIONS_MAX,
    CHOICES_MAX,
    Application,
    Capacities,
    Lot,
    Preference,
    Totals,
    check_entropy,
    check_seed,
)

ISSUES_MAX: Final = 20
"""The most issues that are reported for a file. It is not read beyond the last of them."""
LINE_BYTES_MAX: Final = 65_536

_CAPACITIES: Final = "quota-engine draw capacities 1"
_RESULT: Final = "quota-engine draw result 1"
_DECODING_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of a JSON decoder: no JSON of the type, not UTF-8, nested too deeply."""

_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
_Short = Annotated[str, Meta(max_length=NAME_LENGTH_MAX)]
"""Name of a choice in an application. It is looked up among the capacities, so its form does not matter."""
_Option = Annotated[tuple[_Name, ...], Meta(min_length=1, max_length=QUOTAS_MAX)]
_Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _DayRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    office: _Name
    day: datetime.date
    quotas: dict[_Name, Annotated[int, Meta(ge=0, le=CAPACITY_MAX)]]


class _ChoiceRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: _Name
    office: _Name
    day: datetime.date
    options: Annotated[tuple[_Option, ...], Meta(min_length=1, max_length=OPTIONS_MAX)]
    service: str = ""
    service_unit: str = ""
    session: str = ""
    channel: str = ""
    group: str = ""


class _CapacitiesFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    draw: _Name
    days: tuple[_DayRow, ...]
    choices: tuple[_ChoiceRow, ...]


class _ApplicationLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    number: Annotated[int, Meta(ge=1, le=APPLICATIONS_MAX)]
    applicants: Annotated[tuple[_Name, ...], Meta(min_length=1, max_length=APPLICANTS_MAX)]
    choices: Annotated[tuple[_Short, ...], Meta(min_length=1, max_length=CHOICES_MAX)]
    party: Annotated[int, Meta(ge=0, le=APPLICANTS_MAX)] = 0


class _ApplicationText(msgspec.Struct, frozen=True, gc=False):
    """A line in canonical form. The order of its fields counts."""

    number: int
    party: int
    applicants: tuple[str, ...]
    choices: tuple[str, ...]


class ResultHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Head of a result. Digests are SHA-256, in hex.

    Attributes:
        format: Name and version of the format.
        draw: Id of the draw.
        commitment: Commitment to the seed, in hex.
        seed: The seed, in hex.
        entropy: Public entropy, or ``""``.
        capacities_digest: Digest of the capacities.
        applications_digest: Digest of the applications.
        totals: Totals of the draw.
        epoch: Epoch of the draw in which the seed was revealed. It grows with each failover of the draw's store.
        contradictions: One sentence for each value that was published before and differs now.
    """

    format: str
    draw: _Name
    commitment: _Digest
    seed: _Digest
    entropy: str
    capacities_digest: _Digest
    applications_digest: _Digest
    totals: Totals
    epoch: Annotated[int, Meta(ge=EPOCH_FIRST, le=EPOCH_MAX)]
    contradictions: tuple[str, ...] = ()


class _LotLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    number: Annotated[int, Meta(ge=1, le=APPLICATIONS_MAX)]
    rank: Annotated[int, Meta(ge=1, le=APPLICATIONS_MAX)]
    preference: Annotated[int, Meta(ge=0, le=CHOICES_MAX)] = 0
    choice: str = ""
    option: Annotated[int, Meta(ge=0, le=OPTIONS_MAX)] = 0


_encode: Final = msgspec.json.Encoder().encode


def digest_of(lines: Iterable[bytes]) -> str:
    """Return the SHA-256 of all lines together, in hex: that of a file of these lines."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()


def pseudonym_of(applicant: str, draw: str, key: bytes) -> str:
    """Return the pseudonym of an applicant in the published files of one draw: keyed BLAKE2b of 128 bits, in hex.

    An applicant has the same pseudonym within a draw, so anyone can check that no applicant applied twice. It differs
    between draws, so applicants cannot be tracked. Without the key, not even a known identity leads to its pseudonym.

    Args:
        applicant: Keyed hash of the applicant.
        draw: Id of the draw.
        key: 16 to 64 secret bytes.

    Raises:
        InvalidRequest: The key has another type or length, or ``draw`` is not a valid id.
    """
    if not isinstance(key, bytes) or not 16 <= len(key) <= 64:
        raise InvalidRequest("key", "not a usable key", "16 to 64 secret bytes")
    check_name(draw, "draw")
    return hashlib.blake2b(f"{draw} {applicant}".encode(), key=key, digest_size=16, person=b"draw").hexdigest()


# --- Capacities ------------------------------------------------------------------------------------------------------


def json_of_capacities(capacities: Capacities) -> bytes:
    """Return the canonical form of capacities, in JSON."""
    file = _CapacitiesFile(
        _CAPACITIES,
        capacities.draw,
        tuple(
            _DayRow(office, datetime.date.fromordinal(day), dict(sorted(quotas.items())))
            for (office, day), quotas in sorted(capacities.days.items())
        ),
        tuple(
            _ChoiceRow(
                name,
                preference.office,
                datetime.date.fromordinal(preference.day),
                preference.choice.options,
                preference.choice.service,
                preference.choice.service_unit,
                preference.choice.session,
                preference.choice.channel,
                preference.choice.group,
            )
            for name, preference in sorted(capacities.preferences.items())
        ),
    )
    return msgspec.json.format(_encode(file), indent=1) + b"\n"


def capacities_of_json(text: bytes, file: str) -> Capacities:
    """Return the capacities in a JSON document.

    Args:
        text: The document.
        file: Name of the file for issues.

    Raises:
        CatalogError: The document does not contain capacities.
    """
    try:
        document = typed_data.decode_json(text, _CapacitiesFile)
        if document.format != _CAPACITIES:
            raise InvalidRequest("format", _shorten(document.format), repr(_CAPACITIES))
        days: dict[tuple[str, int], Mapping[str, int]] = {}
        for row in document.days:
            if days.setdefault((row.office, row.day.toordinal()), row.quotas) is not row.quotas:
                raise InvalidRequest("days", f"{row.office} on {row.day} twice", "each once")
        preferences: dict[str, Preference] = {}
        for entry in document.choices:
            if entry.name in preferences:
                raise InvalidRequest("choices", f"{entry.name} twice", "each name once")
            choice = Choice(entry.service, entry.service_unit, entry.session, entry.channel, entry.group, entry.options)
            preferences[entry.name] = Preference(entry.office, entry.day.toordinal(), choice)
        return Capacities(document.draw, days, preferences)
    except InvalidRequest as error:
        raise CatalogError((ValidationIssue(file, error.where, error.problem, error.expected),)) from None
    except _DECODING_ERRORS as error:
        raise CatalogError((_issue(file, "", error, "a capacities file"),)) from None


# --- Applications ----------------------------------------------------------------------------------------------------


def line_of_application(application: Application) -> bytes:
    """Return the canonical line of an application, with its line feed."""
    applicants = application.applicants
    return _encode(_ApplicationText(application.number, len(applicants), applicants, application.choices)) + b"\n"


def applications_of_lines(lines: Iterable[bytes], file: str) -> Iterator[Application]:
    """Yield the applications in JSON Lines. Empty lines are skipped.

    Args:
        lines: The lines.
        file: Name of the file for issues.

    Raises:
        CatalogError: Lines are not applications. It is raised at the end of the file, or at issue :data:`ISSUES_MAX`.
    """
    decode = typed_data.json_decoder(_ApplicationLine).decode
    known: dict[str, str] = {}  # a million lines share the strings of a few choices
    issues: list[ValidationIssue] = []
    for index, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if len(line) > LINE_BYTES_MAX:
                raise InvalidRequest("line", f"{len(line)} bytes", f"at most {LINE_BYTES_MAX}")
            yield _application(decode(line), known)
        except (InvalidRequest, *_DECODING_ERRORS) as error:
            _add_issue(issues, file, index, error)
    if issues:
        raise CatalogError(tuple(issues))


def applications_of_csv(lines: Iterable[str], file: str) -> Iterator[Application]:
    """Yield the applications in CSV with a header. Arguments and errors are those of :func:`applications_of_lines`."""
    rows = csv.reader(lines, strict=True)
    known: dict[str, str] = {}
    issues: list[ValidationIssue] = []
    try:
        header = [name.strip() for name in next(rows, [])]
        if not {"number", "applicants", "choices"} <= set(header) <= {"number", "party", "applicants", "choices"}:
            expected = "the columns number, applicants, choices, and optionally party"
            raise CatalogError((ValidationIssue(file, "line 1", _shorten(",".join(header)), expected),))
        for cells in rows:
            if not cells:
                continue
            try:
                yield _application(_application_line(header, cells), known)
            except (InvalidRequest, msgspec.ValidationError) as error:
                _add_issue(issues, file, rows.line_num, error)
    except csv.Error as error:
        issues.append(ValidationIssue(file, f"line {rows.line_num}", str(error), "CSV"))
    if issues:
        raise CatalogError(tuple(issues))


def _application_line(header: Sequence[str], cells: Sequence[str]) -> _ApplicationLine:
    """Return the application in a row of CSV."""
    if len(cells) != len(header):
        raise InvalidRequest("row", f"{len(cells)} cells", f"{len(header)} cells, as in the header")
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    row["applicants"] = row["applicants"].split()
    row["choices"] = row["choices"].split()
    for name in ("number", "party"):
        if name in row:
            if not (row[name].isascii() and row[name].isdigit() and len(row[name]) <= 9):
                raise InvalidRequest(name, "not a number", "digits")
            row[name] = int(row[name])
    return typed_data.convert(row, _ApplicationLine)


def _application(line: _ApplicationLine, known: dict[str, str]) -> Application:
    if line.party not in (0, len(line.applicants)):
        raise InvalidRequest("party", f"{line.party} for {len(line.applicants)} applicants", "the number of applicants")
    choices = tuple([known.setdefault(choice, choice) for choice in line.choices])
    return Application(line.number, line.applicants, choices)


def _add_issue(issues: list[ValidationIssue], file: str, line: int, error: Exception) -> None:
    """Add an issue, and raise all issues when there are :data:`ISSUES_MAX` of them."""
    issues.append(_issue(file, f"line {line}", error, "an application"))
    if len(issues) >= ISSUES_MAX:
        raise CatalogError(tuple(issues))


def _issue(file: str, where: str, error: Exception, expected: str) -> ValidationIssue:
    if isinstance(error, InvalidRequest):
        return ValidationIssue(file, f"{where}, {error.where}", error.problem, error.expected)
    # The messages of msgspec name the field and the types that were found and expected, never a value.
    return ValidationIssue(file, where, _shorten(str(error)), expected)


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 160 else text[:157] + "..."


# --- Result ----------------------------------------------------------------------------------------------------------


def result_head(
    capacities: Capacities,
    commitment: str,
    seed: str,
    entropy: str,
    capacities_digest: str,
    applications_digest: str,
    totals: Totals,
    epoch: int = EPOCH_FIRST,
) -> ResultHead:
    """Return the head of a result; see :class:`ResultHead`."""
    return ResultHead(
        _RESULT, capacities.draw, commitment, seed, entropy, capacities_digest, applications_digest, totals, epoch
    )


def lines_of_result(head: ResultHead, lots: Iterable[Lot], applications: Mapping[int, Application]) -> Iterator[bytes]:
    """Yield the canonical lines of a result.

    Args:
        head: Head of the result.
        lots: The result of each application, in any order.
        applications: The applications by number.
    """
    yield _encode(head) + b"\n"
    for lot in sorted(lots, key=lambda one: one.number):
        choice = applications[lot.number].choices[lot.preference - 1] if lot.preference else ""
        yield _encode(_LotLine(lot.number, lot.rank, lot.preference, choice, lot.option)) + b"\n"


def result_of_lines(lines: Iterable[bytes], file: str) -> tuple[ResultHead, list[tuple[Lot, str]]]:
    """Return the result in JSON Lines.

    Args:
        lines: The lines.
        file: Name of the file for issues.

    Returns:
        The head, and for each application its lot and the name of the choice that it got (``""``: none).

    Raises:
        CatalogError: The lines are not a result. The first :data:`ISSUES_MAX` issues are reported.
    """
    rest = iter(lines)
    try:
        head = typed_data.decode_json(next(rest, b""), ResultHead)
        if head.format != _RESULT:
            raise InvalidRequest("format", _shorten(head.format), repr(_RESULT))
        check_seed(head.seed)
        check_entropy(head.entropy)
    except (InvalidRequest, *_DECODING_ERRORS) as error:
        raise CatalogError((_issue(file, "line 1", error, "the head of a draw's result"),)) from None
    decode = typed_data.json_decoder(_LotLine).decode
    lots: list[tuple[Lot, str]] = []
    known: dict[str, str] = {}
    issues: list[ValidationIssue] = []
    for index, text in enumerate(rest, 2):
        try:
            line = decode(text)
        except _DECODING_ERRORS as error:
            _add_issue(issues, file, index, error)
        else:
            lot = Lot(line.number, line.rank, line.preference, line.option)
            lots.append((lot, known.setdefault(line.choice, line.choice)))
    if issues:
        raise CatalogError(tuple(issues))
    return head, lots


def canonical_lines(applications: Sequence[Application]) -> Iterator[bytes]:
    """Return the canonical lines of applications, sorted by number."""
    return map(line_of_application, sorted(applications, key=lambda one: one.number))
