"""A draw's files as text: capacities, applications and the result, each with one canonical form.

A file's digest is the SHA-256 of its canonical form. The files that are written here are in it, so that ``sha256sum``
of a published file gives the digest; what is read may be in another order, or CSV, and comes to the same digest.

- Capacities: JSON, days by office and date, choices by name.
- Applications: JSON Lines, by number; or CSV with the columns number, applicants, choices, and party if it is given,
  where lists are set apart by spaces.
- Result: JSON Lines; the head, then what became of each application, by number.
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
"""So many mistakes of a file are told; it is not read beyond the last of them."""
LINE_BYTES_MAX: Final = 65_536

_CAPACITIES: Final = "quota-engine draw capacities 1"
_RESULT: Final = "quota-engine draw result 1"

_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
_Short = Annotated[str, Meta(max_length=NAME_LENGTH_MAX)]
"""The name of a choice in an application: to be a known one, it must be found among the capacities' anyway."""
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
    """The canonical line: the order of its fields counts."""

    number: int
    party: int
    applicants: tuple[str, ...]
    choices: tuple[str, ...]


class ResultHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a result says of itself: what it was made from, and its figures. Digests are 64 hex digits."""

    format: str
    draw: _Name
    commitment: _Digest
    seed: _Digest
    entropy: str
    capacities_digest: _Digest
    applications_digest: _Digest
    totals: Totals


class _LotLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    number: Annotated[int, Meta(ge=1, le=APPLICATIONS_MAX)]
    rank: Annotated[int, Meta(ge=1, le=APPLICATIONS_MAX)]
    preference: Annotated[int, Meta(ge=0, le=CHOICES_MAX)] = 0
    choice: str = ""
    option: Annotated[int, Meta(ge=0, le=OPTIONS_MAX)] = 0


_encode: Final = msgspec.json.Encoder().encode


def digest_of(lines: Iterable[bytes]) -> str:
    """The SHA-256 of all lines together, in hex: what ``sha256sum`` says of the file that has them."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()


def pseudonym_of(applicant: str, draw: str, key: bytes) -> str:
    """What stands for an applicant in the published list of one draw: BLAKE2b, keyed, 128 bits, 32 hex digits.

    The same applicant has the same in all of the draw, so that everybody can see that nobody applied twice, and in no
    other draw, so that nobody can be followed from one to the next. ``key``: 16 to 64 secret bytes; who does not have
    them learns nothing, even of an identity or a hash that they know.

    Raises:
        InvalidRequest: the key is of another type or length.
    """
    if not isinstance(key, bytes) or not 16 <= len(key) <= 64:
        raise InvalidRequest("key", "not a usable key", "16 to 64 secret bytes")
    check_name(draw, "draw")
    return hashlib.blake2b(f"{draw} {applicant}".encode(), key=key, digest_size=16, person=b"draw").hexdigest()


# --- Capacities ------------------------------------------------------------------------------------------------------


def json_of_capacities(capacities: Capacities) -> bytes:
    """The canonical text: days by office and date, quotas and choices by name."""
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
                wish.office,
                datetime.date.fromordinal(wish.day),
                wish.choice.options,
                wish.choice.service,
                wish.choice.service_unit,
                wish.choice.session,
                wish.choice.channel,
                wish.choice.group,
            )
            for name, wish in sorted(capacities.preferences.items())
        ),
    )
    return msgspec.json.format(_encode(file), indent=1) + b"\n"


def capacities_of_json(text: bytes, file: str) -> Capacities:
    """The other way round; ``file`` is its name, for messages.

    Raises:
        CatalogError: it is not such a file.
    """
    try:
        read = msgspec.json.decode(text, type=_CapacitiesFile)
        if read.format != _CAPACITIES:
            raise InvalidRequest("format", _shown(read.format), repr(_CAPACITIES))
        days: dict[tuple[str, int], Mapping[str, int]] = {}
        for row in read.days:
            if days.setdefault((row.office, row.day.toordinal()), row.quotas) is not row.quotas:
                raise InvalidRequest("days", f"{row.office} on {row.day} twice", "each once")
        wishes: dict[str, Preference] = {}
        for one in read.choices:
            if one.name in wishes:
                raise InvalidRequest("choices", f"{one.name} twice", "each name once")
            choice = Choice(one.service, one.service_unit, one.session, one.channel, one.group, one.options)
            wishes[one.name] = Preference(one.office, one.day.toordinal(), choice)
        return Capacities(read.draw, days, wishes)
    except InvalidRequest as error:
        raise CatalogError((ValidationIssue(file, error.where, error.problem, error.expected),)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CatalogError((_mistake(file, "", error, "a capacities file"),)) from None


# --- Applications ----------------------------------------------------------------------------------------------------


def line_of_application(application: Application) -> bytes:
    """The canonical line, with its end."""
    applicants = application.applicants
    return _encode(_ApplicationText(application.number, len(applicants), applicants, application.choices)) + b"\n"


def applications_of_lines(lines: Iterable[bytes], file: str) -> Iterator[Application]:
    """The applications of JSON Lines; empty lines are passed over.

    Raises:
        CatalogError: lines are not applications; the first :data:`DAMAGE_MAX` are named, when all have been read.
    """
    decode = msgspec.json.Decoder(_ApplicationLine).decode
    known: dict[str, str] = {}  # so that a million lines share the names of a few choices
    damage: list[ValidationIssue] = []
    for index, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if len(line) > LINE_BYTES_MAX:
                raise InvalidRequest("line", f"{len(line)} bytes", f"at most {LINE_BYTES_MAX}")
            yield _application(decode(line), known)
        except (InvalidRequest, msgspec.DecodeError, UnicodeDecodeError) as error:
            _note(damage, file, index, error)
    if damage:
        raise CatalogError(tuple(damage))


def applications_of_csv(lines: Iterable[str], file: str) -> Iterator[Application]:
    """The applications of CSV with a head line. Raises as :func:`applications_of_lines` does."""
    rows = csv.reader(lines, strict=True)
    known: dict[str, str] = {}
    damage: list[ValidationIssue] = []
    try:
        head = [name.strip() for name in next(rows, [])]
        if not {"number", "applicants", "choices"} <= set(head) <= {"number", "party", "applicants", "choices"}:
            expected = "the columns number, applicants, choices, and party if you like"
            raise CatalogError((ValidationIssue(file, "line 1", _shown(",".join(head)), expected),))
        for cells in rows:
            if not cells:
                continue
            try:
                if len(cells) != len(head):
                    raise InvalidRequest("row", f"{len(cells)} cells", f"{len(head)}, as the head has")
                row: dict[str, Any] = dict(zip(head, cells, strict=True))
                row["applicants"] = row["applicants"].split()
                row["choices"] = row["choices"].split()
                for name in ("number", "party"):
                    if name in row:
                        if not (row[name].isascii() and row[name].isdigit() and len(row[name]) <= 9):
                            raise InvalidRequest(name, "not a number", "digits")
                        row[name] = int(row[name])
                yield _application(msgspec.convert(row, _ApplicationLine), known)
            except (InvalidRequest, msgspec.ValidationError) as error:
                _note(damage, file, rows.line_num, error)
    except csv.Error as error:
        damage.append(ValidationIssue(file, f"line {rows.line_num}", str(error), "CSV"))
    if damage:
        raise CatalogError(tuple(damage))


def _application(read: _ApplicationLine, known: dict[str, str]) -> Application:
    if read.party not in (0, len(read.applicants)):
        raise InvalidRequest("party", f"{read.party} for {len(read.applicants)} applicants", "as many")
    return Application(
        read.number, read.applicants, tuple([known.setdefault(choice, choice) for choice in read.choices])
    )


def _note(damage: list[ValidationIssue], file: str, line: int, error: Exception) -> None:
    """Keep a mistake; with the last that is told, give up."""
    damage.append(_mistake(file, f"line {line}", error, "an application"))
    if len(damage) >= ISSUES_MAX:
        raise CatalogError(tuple(damage))


def _mistake(file: str, place: str, error: Exception, expected: str) -> ValidationIssue:
    if isinstance(error, InvalidRequest):
        return ValidationIssue(file, f"{place}, {error.where}", error.problem, error.expected)
    # msgspec's messages name the field, what was found and what was expected by their kinds, never a value.
    return ValidationIssue(file, place, _shown(str(error)), expected)


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 160 else text[:157] + "..."


# --- The result ------------------------------------------------------------------------------------------------------


def result_head(
    capacities: Capacities,
    commitment: str,
    seed: str,
    entropy: str,
    capacities_digest: str,
    applications_digest: str,
    totals: Totals,
) -> ResultHead:
    """The head of a result."""
    return ResultHead(
        _RESULT, capacities.draw, commitment, seed, entropy, capacities_digest, applications_digest, totals
    )


def lines_of_result(head: ResultHead, lots: Iterable[Lot], applications: Mapping[int, Application]) -> Iterator[bytes]:
    """The canonical lines: the head, then the applications by number."""
    yield _encode(head) + b"\n"
    for lot in sorted(lots, key=lambda one: one.number):
        choice = applications[lot.number].choices[lot.preference - 1] if lot.preference else ""
        yield _encode(_LotLine(lot.number, lot.rank, lot.preference, choice, lot.option)) + b"\n"


def result_of_lines(lines: Iterable[bytes], file: str) -> tuple[ResultHead, list[tuple[Lot, str]]]:
    """The head, and for each application its lot and the name of the choice it got ("": none).

    Raises:
        CatalogError: it is not a result; the first :data:`DAMAGE_MAX` mistakes are named.
    """
    rest = iter(lines)
    try:
        head = msgspec.json.decode(next(rest, b""), type=ResultHead)
        if head.format != _RESULT:
            raise InvalidRequest("format", _shown(head.format), repr(_RESULT))
        check_seed(head.seed)
        check_entropy(head.entropy)
    except (InvalidRequest, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CatalogError((_mistake(file, "line 1", error, "the head of a draw's result"),)) from None
    decode = msgspec.json.Decoder(_LotLine).decode
    found: list[tuple[Lot, str]] = []
    known: dict[str, str] = {}
    damage: list[ValidationIssue] = []
    for index, line in enumerate(rest, 2):
        try:
            one = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            _note(damage, file, index, error)
        else:
            found.append(
                (Lot(one.number, one.rank, one.preference, one.option), known.setdefault(one.choice, one.choice))
            )
    if damage:
        raise CatalogError(tuple(damage))
    return head, found


def canonical_lines(applications: Sequence[Application]) -> Iterator[bytes]:
    """All applications by number, as the published list has them."""
    return map(line_of_application, sorted(applications, key=lambda one: one.number))
