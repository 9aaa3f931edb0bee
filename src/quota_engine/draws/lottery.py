"""A draw: in an order that nobody could know before, every application gets the best of its choices that is still free.

The rule is random serial dictatorship (Abdulkadiroglu & Sonmez, "Random serial dictatorship and the core from random
endowments in house allocation problems", Econometrica 66(3), 1998). The order depends on the seed and on the numbers of
the applications alone, on nothing that anybody wrote into theirs. An application's choices decide only which of the
places that are left when its turn comes it takes. So nobody gains by ranking untruthfully, whatever the others do and
whatever the order is; and when somebody applied makes no difference.

All of it can be checked with ``sha256sum``. A seed is 64 hex digits; ``SP`` below is one space; texts are ASCII:

- commitment: SHA-256 of ``draw SP seed``. It is published before applications are taken.
- key of the order: SHA-256 of ``draw SP seed SP entropy``. Entropy is a public text that nobody could know when the
  applications were frozen (the closing price of an index, say), or empty.
- lot of application ``n``: SHA-256 of ``key SP n``. The smallest lot comes first.
"""

from __future__ import annotations

__all__ = [
    "APPLICATIONS_MAX",
    "CHOICES_MAX",
    "ENTROPY_LENGTH_MAX",
    "PREFERENCES_MAX",
    "Application",
    "Capacities",
    "Lot",
    "Preference",
    "Totals",
    "allot",
    "check_entropy",
    "check_seed",
    "commitment_of",
    "key_of",
    "lot_of",
    "order_of",
    "totals_of",
]

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from quota_engine.domain.commands import DAY_MAX
from quota_engine.domain.errors import InvalidRequest, UnknownName
from quota_engine.domain.model import Choice
from quota_engine.domain.validation import APPLICANTS_MAX, CAPACITY_MAX, QUOTAS_MAX, check_integer, check_name

APPLICATIONS_MAX: Final = 10_000_000
"""The highest number of an application."""
CHOICES_MAX: Final = 50
"""The most choices that one application can rank."""
PREFERENCES_MAX: Final = 200_000
"""The most different choices that a draw can have."""
ENTROPY_LENGTH_MAX: Final = 256

_is_seed = re.compile(r"[0-9a-f]{64}").fullmatch
_is_entropy = re.compile(r"[ -~]{0,256}").fullmatch

QuotaKey = tuple[str, int, str]
"""Office, day (a date's ordinal) and quota: what is counted."""


class Preference(msgspec.Struct, frozen=True):
    """One of the things that an application can rank: an office, a day, and what is wanted there."""

    office: str
    day: int
    choice: Choice

    def __post_init__(self) -> None:
        check_name(self.office, "wish.office")
        check_integer(self.day, "wish.day", 1, DAY_MAX)


class Capacities(msgspec.Struct, frozen=True):
    """What a draw gives away: units by office, day and quota; and by name the wishes that can be ranked.

    ``days`` maps an office and a day (a date's ordinal) to the units of each of its quotas.
    """

    draw: str
    days: Mapping[tuple[str, int], Mapping[str, int]]
    preferences: Mapping[str, Preference]

    def __post_init__(self) -> None:
        check_name(self.draw, "draw")
        if len(self.preferences) > PREFERENCES_MAX:
            raise InvalidRequest("choices", f"{len(self.preferences)} choices", f"at most {PREFERENCES_MAX}")
        for (office, day), quotas in self.days.items():
            check_name(office, "days: office")
            check_integer(day, "days: day", 1, DAY_MAX)
            if len(quotas) > QUOTAS_MAX:
                raise InvalidRequest("days: quotas", f"{len(quotas)} quotas", f"at most {QUOTAS_MAX}")
            for quota, units in quotas.items():
                check_name(quota, "days: quota")
                check_integer(units, "days: units", 0, CAPACITY_MAX)
        for name, wish in self.preferences.items():
            check_name(name, "choices: name")
            quotas = self.days.get((wish.office, wish.day), {})
            for option in wish.choice.options:
                for quota in option:
                    if quota not in quotas:
                        raise UnknownName(f"choice {name}", f"quota {quota} is not given away there", "one that is")


class Application(msgspec.Struct, frozen=True, gc=False):
    """A party that applies together, all or nothing, and the names of its choices, the best one first.

    ``applicants`` are keyed hashes. The number is its receipt, and its name in everything that is published.
    """

    number: int
    applicants: tuple[str, ...]
    choices: tuple[str, ...]

    @property
    def units(self) -> int:
        """How many places it needs: one an applicant."""
        return len(self.applicants)

    def check(self, wishes: Mapping[str, Preference]) -> None:
        """Raise :class:`InvalidRequest` unless it is well formed, and ranks what there is, each choice once."""
        check_integer(self.number, "number", 1, APPLICATIONS_MAX)
        where = f"application {self.number}"
        if not 1 <= len(self.applicants) <= APPLICANTS_MAX:
            raise InvalidRequest(where, f"{len(self.applicants)} applicants", f"1 to {APPLICANTS_MAX}")
        for applicant in self.applicants:
            check_name(applicant, f"{where}: applicants")
        if len(set(self.applicants)) != len(self.applicants):
            raise InvalidRequest(where, "one applicant twice", "each applicant once")
        if not 1 <= len(self.choices) <= CHOICES_MAX:
            raise InvalidRequest(where, f"{len(self.choices)} choices", f"1 to {CHOICES_MAX}")
        if len(set(self.choices)) != len(self.choices):
            raise InvalidRequest(where, "one choice twice", "each choice once")
        for choice in self.choices:
            if choice not in wishes:
                check_name(choice, f"{where}: choices")
                raise UnknownName(where, f"choice {choice!r} is not among the draw's", "choices of the capacities file")


class Lot(msgspec.Struct, frozen=True, gc=False):
    """What became of one application.

    ``rank`` is its place in the order, from 1. ``preference`` is which of its choices it got, from 1; 0: none.
    ``option`` is which of that choice's alternatives of quotas serves it, from 0.
    """

    number: int
    rank: int
    preference: int = 0
    option: int = 0


class Totals(msgspec.Struct, frozen=True):
    """A draw in figures. ``by_preference[0]`` counts the applications that got nothing, ``[1]`` their first choice …"""

    applications: int
    applicants: int
    winners: int
    places: int
    by_preference: tuple[int, ...]


def check_seed(seed: object) -> None:
    """Raise :class:`InvalidRequest` unless ``seed`` is 64 lower-case hex digits (256 random bits). Never shows it."""
    if not isinstance(seed, str) or _is_seed(seed) is None:
        raise InvalidRequest("seed", "not a seed", "64 of the digits 0-9 a-f, made of 32 random bytes")


def check_entropy(entropy: object) -> None:
    """Raise :class:`InvalidRequest` unless ``entropy`` is up to 256 printable ASCII characters."""
    if not isinstance(entropy, str) or _is_entropy(entropy) is None:
        raise InvalidRequest("entropy", "not usable", f"up to {ENTROPY_LENGTH_MAX} printable ASCII characters")


def commitment_of(draw: str, seed: str) -> str:
    """What is published before applications are taken: SHA-256 of ``draw SP seed``, in hex.

    A seed has 256 random bits, so its hash tells nothing of it and fits no other.

    Raises:
        InvalidRequest: the draw's id or the seed is not of its form.
    """
    check_name(draw, "draw")
    check_seed(seed)
    return _sha256(f"{draw} {seed}")


def key_of(draw: str, seed: str, entropy: str = "") -> str:
    """The key of the order: SHA-256 of ``draw SP seed SP entropy``, in hex. Raises as :func:`commitment_of` does."""
    check_name(draw, "draw")
    check_seed(seed)
    check_entropy(entropy)
    return _sha256(f"{draw} {seed} {entropy}")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def lot_of(key: str) -> Callable[[int], bytes]:
    """The function from an application's number to its lot: the 32 bytes of SHA-256 of ``key SP number``."""
    start = hashlib.sha256(key.encode("ascii"))  # the key fills a block, which so is hashed once for all numbers
    copy = start.copy

    def lot(number: int) -> bytes:
        one = copy()
        one.update(b" %d" % number)
        return one.digest()

    return lot


def order_of(key: str, numbers: Iterable[int]) -> list[int]:
    """The numbers of the applications in the order in which they choose: by lot, then by number."""
    return sorted(sorted(numbers), key=lot_of(key))


def allot(capacities: Capacities, key: str, applications: Iterable[Application]) -> list[Lot]:
    """Carry the draw out: a lot for each application, in the order in which they chose.

    Each takes the first of its choices, and of that the first option, in which every quota has a unit left for each of
    its applicants. The sequence of ``applications`` is of no consequence. Takes O(n log n), and no more memory than
    its answer and an index of the applications.

    Raises:
        InvalidRequest: an application is ill-formed, a number or an applicant is there twice.
    """
    by_number: dict[int, Application] = {}
    applicants: dict[str, int] = {}
    for application in applications:
        application.check(capacities.preferences)
        if by_number.setdefault(application.number, application) is not application:
            raise InvalidRequest("applications", f"number {application.number} is there twice", "each number once")
        for applicant in application.applicants:
            other = applicants.setdefault(applicant, application.number)
            if other != application.number:
                raise InvalidRequest(
                    f"application {application.number}",
                    f"an applicant of application {other} applies again",
                    "one application an applicant",
                )
    order = order_of(key, by_number)
    taken = _take(capacities, ((len(one.applicants), one.choices) for one in map(by_number.__getitem__, order)))
    return [
        Lot(number, rank, preference, option)
        for rank, (number, (preference, option)) in enumerate(zip(order, taken, strict=True), 1)
    ]


def _take(capacities: Capacities, parties: Iterable[tuple[int, Sequence[str]]]) -> Iterator[tuple[int, int]]:
    """For each party in its turn, units and choices, what it takes: preference from 1 and option, or (0, 0)."""
    left: list[int] = []
    index_of: dict[QuotaKey, int] = {}
    for (office, day), quotas in capacities.days.items():
        for quota, units in quotas.items():
            index_of[office, day, quota] = len(left)
            left.append(units)
    options_of = {
        name: tuple(tuple(index_of[wish.office, wish.day, quota] for quota in one) for one in wish.choice.options)
        for name, wish in capacities.preferences.items()
    }
    spent: set[str] = set()  # choices that have no room for anybody, now and so for good: units never come back here
    for units, choices in parties:
        yield _best(left, options_of, spent, units, choices)


def _best(
    left: list[int],
    options_of: Mapping[str, tuple[tuple[int, ...], ...]],
    spent: set[str],
    units: int,
    choices: Sequence[str],
) -> tuple[int, int]:
    for preference, name in enumerate(choices, 1):
        if name in spent:
            continue
        for index, option in enumerate(options_of[name]):
            for quota in option:
                if left[quota] < units:
                    break
            else:
                for quota in option:
                    left[quota] -= units
                return preference, index
        if units == 1:
            spent.add(name)
    return 0, 0


def totals_of(applications: Mapping[int, Application], lots: Iterable[Lot]) -> Totals:
    """The draw in figures; ``applications`` by number."""
    by_preference = [0]
    places = 0
    for lot in lots:
        if lot.preference >= len(by_preference):
            by_preference += [0] * (lot.preference + 1 - len(by_preference))
        by_preference[lot.preference] += 1
        places += applications[lot.number].units if lot.preference else 0
    return Totals(
        applications=sum(by_preference),
        applicants=sum(one.units for one in applications.values()),
        winners=sum(by_preference[1:]),
        places=places,
        by_preference=tuple(by_preference),
    )
