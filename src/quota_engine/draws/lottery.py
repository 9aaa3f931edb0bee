"""Lottery of a draw: in a random order, each application gets the best of its choices that is still available.

The rule is random serial dictatorship (Abdulkadiroglu and Sonmez 1998, "Random serial dictatorship and the core from
random endowments in house allocation problems", Econometrica 66(3)). The order depends on the seed and on the numbers
of the applications only, not on their content. An application's choices decide only which of the places left at its
turn it takes. So no applicant gains by ranking choices in another order than their true one, and the time of an
application makes no difference.

All of it can be verified with ``sha256sum``. A seed is 64 hex digits, ``SP`` is one space, and all texts are ASCII:

- commitment: SHA-256 of ``draw SP seed``. It is published before applications are accepted.
- key of the order: SHA-256 of ``draw SP seed SP entropy``. The entropy is empty, or a public text that was
  not known when the applications were frozen, such as the closing price of an index.
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
"""Office, day (a date's ordinal) and quota."""


class Preference(msgspec.Struct, frozen=True):
    """A choice that applications can rank: an office, a day (a date's ordinal) and what is booked there."""

    office: str
    day: int
    choice: Choice

    def __post_init__(self) -> None:
        check_name(self.office, "preference.office")
        check_integer(self.day, "preference.day", 1, DAY_MAX)


class Capacities(msgspec.Struct, frozen=True):
    """Units that a draw allots, and the choices that applications can rank.

    Attributes:
        draw: Id of the draw.
        days: Units by quota, for each office and day (a date's ordinal).
        preferences: Choices by name.

    Raises:
        InvalidRequest: A value is out of its range.
        UnknownName: A choice needs a quota that is not among ``days``.
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
        for name, preference in self.preferences.items():
            check_name(name, "choices: name")
            quotas = self.days.get((preference.office, preference.day), {})
            for option in preference.choice.options:
                for quota in option:
                    if quota not in quotas:
                        raise UnknownName(f"choice {name}", f"the day has no quota {quota}", "a quota of the day")


class Application(msgspec.Struct, frozen=True, gc=False):
    """A party's application, all or nothing.

    Attributes:
        number: Number of the application (1 to 10,000,000). It is the receipt, and identifies the application in all
            published files.
        applicants: Keyed hashes of the applicants.
        choices: Names of choices, the best one first (1 to 50).
    """

    number: int
    applicants: tuple[str, ...]
    choices: tuple[str, ...]

    @property
    def units(self) -> int:
        """Places that the party needs: one for each applicant."""
        return len(self.applicants)

    def check(self, preferences: Mapping[str, Preference]) -> None:
        """Validate the application.

        Args:
            preferences: The draw's choices by name.

        Raises:
            InvalidRequest: A value is out of its range, or an applicant or choice occurs twice.
            UnknownName: A choice is not among the draw's choices.
        """
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
            if choice not in preferences:
                check_name(choice, f"{where}: choices")
                raise UnknownName(where, f"choice {choice!r} is not among the draw's", "choices of the capacities file")


class Lot(msgspec.Struct, frozen=True, gc=False):
    """Result of one application.

    Attributes:
        number: Number of the application.
        rank: Rank in the order of the draw, from 1.
        preference: Rank of the choice that it got among its choices, from 1. 0: it got nothing.
        option: Number of the choice's option whose quotas it got, from 1. 0: it got nothing.
    """

    number: int
    rank: int
    preference: int = 0
    option: int = 0


class Totals(msgspec.Struct, frozen=True):
    """Totals of a draw.

    Attributes:
        applications: Applications in the draw.
        applicants: Applicants of all applications.
        winners: Applications that got a choice.
        places: Places that they got.
        by_preference: Applications by the rank of the choice that they got: at 0 those that got nothing, at 1 those
            that got their first choice, and so on.
    """

    applications: int
    applicants: int
    winners: int
    places: int
    by_preference: tuple[int, ...]


def check_seed(seed: object) -> None:
    """Reject a seed that is not 64 lower-case hex digits (256 random bits). The error does not contain the seed.

    Raises:
        InvalidRequest: The seed has another form.
    """
    if not isinstance(seed, str) or _is_seed(seed) is None:
        raise InvalidRequest("seed", "not a seed", "64 of the digits 0-9 a-f, made of 32 random bytes")


def check_entropy(entropy: object) -> None:
    """Reject entropy that is not up to 256 printable ASCII characters.

    Raises:
        InvalidRequest: The entropy has another form.
    """
    if not isinstance(entropy, str) or _is_entropy(entropy) is None:
        raise InvalidRequest("entropy", "not usable", f"up to {ENTROPY_LENGTH_MAX} printable ASCII characters")


def commitment_of(draw: str, seed: str) -> str:
    """Return the commitment to a seed, in hex: SHA-256 of ``draw SP seed``.

    A seed has 256 random bits, so the hash neither reveals it nor fits another one.

    Args:
        draw: Id of the draw.
        seed: The seed, in hex.

    Raises:
        InvalidRequest: The id or the seed has another form.
    """
    check_name(draw, "draw")
    check_seed(seed)
    return _sha256(f"{draw} {seed}")


def key_of(draw: str, seed: str, entropy: str = "") -> str:
    """Return the key of the order, in hex: SHA-256 of ``draw SP seed SP entropy``.

    Args:
        draw: Id of the draw.
        seed: The seed, in hex.
        entropy: Public entropy, or ``""``.

    Raises:
        InvalidRequest: An argument has another form.
    """
    check_name(draw, "draw")
    check_seed(seed)
    check_entropy(entropy)
    return _sha256(f"{draw} {seed} {entropy}")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def lot_of(key: str) -> Callable[[int], bytes]:
    """Return the function from an application's number to its lot: the 32 bytes of SHA-256 of ``key SP number``.

    Args:
        key: Key of the order.
    """
    keyed = hashlib.sha256(key.encode("ascii"))  # the key fills one block, which is so hashed once for all numbers
    copy = keyed.copy

    def lot(number: int) -> bytes:
        lot_hash = copy()
        lot_hash.update(b" %d" % number)
        return lot_hash.digest()

    return lot


def order_of(key: str, numbers: Iterable[int]) -> list[int]:
    """Return the numbers of applications in the order of the draw: by lot, then by number.

    Args:
        key: Key of the order.
        numbers: The numbers, in any order.
    """
    return sorted(sorted(numbers), key=lot_of(key))


def allot(capacities: Capacities, key: str, applications: Iterable[Application]) -> list[Lot]:
    """Carry out the draw.

    Each application takes the first of its choices that has an option with enough units in every quota, and the first
    such option. The time is O(n log n). The memory is that of the result and of an index of the applications.

    Args:
        capacities: Units and choices of the draw.
        key: Key of the order.
        applications: The applications. Their order does not matter.

    Returns:
        The result of each application, in the order of the draw.

    Raises:
        InvalidRequest: An application is invalid, or a number or an applicant occurs twice.
    """
    by_number: dict[int, Application] = {}
    number_of: dict[str, int] = {}
    for application in applications:
        application.check(capacities.preferences)
        if by_number.setdefault(application.number, application) is not application:
            raise InvalidRequest("applications", f"number {application.number} occurs twice", "each number once")
        for applicant in application.applicants:
            other = number_of.setdefault(applicant, application.number)
            if other != application.number:
                raise InvalidRequest(
                    f"application {application.number}",
                    f"an applicant is in application {other}, too",
                    "each applicant in one application",
                )
    order = order_of(key, by_number)
    parties = ((application.units, application.choices) for application in map(by_number.__getitem__, order))
    return [
        Lot(number, rank, preference, option)
        for rank, (number, (preference, option)) in enumerate(
            zip(order, _allot_units(capacities, parties), strict=True), 1
        )
    ]


def _allot_units(capacities: Capacities, parties: Iterable[tuple[int, Sequence[str]]]) -> Iterator[tuple[int, int]]:
    """Yield what each party gets: the rank of its choice and the number of its option, both from 1; or 0 and 0.

    Args:
        capacities: Units and choices of the draw.
        parties: Units and choices of each party, in the order of the draw.
    """
    units_left: list[int] = []
    index_of: dict[QuotaKey, int] = {}
    for (office, day), quotas in capacities.days.items():
        for quota, units in quotas.items():
            index_of[office, day, quota] = len(units_left)
            units_left.append(units)
    options_of = {
        name: tuple(
            tuple(index_of[preference.office, preference.day, quota] for quota in option)
            for option in preference.choice.options
        )
        for name, preference in capacities.preferences.items()
    }
    exhausted: set[str] = set()  # choices without a place for a party of one; units never come back during a draw
    for units, choices in parties:
        yield _take_best_choice(units_left, options_of, exhausted, units, choices)


def _take_best_choice(
    units_left: list[int],
    options_of: Mapping[str, tuple[tuple[int, ...], ...]],
    exhausted: set[str],
    units: int,
    choices: Sequence[str],
) -> tuple[int, int]:
    for preference, name in enumerate(choices, 1):
        if name in exhausted:
            continue
        for number, option in enumerate(options_of[name], 1):
            for quota in option:
                if units_left[quota] < units:
                    break
            else:
                for quota in option:
                    units_left[quota] -= units
                return preference, number
        if units == 1:
            exhausted.add(name)
    return 0, 0


def totals_of(applications: Mapping[int, Application], lots: Iterable[Lot]) -> Totals:
    """Return the totals of a draw.

    Args:
        applications: The applications by number.
        lots: The result of each application.
    """
    by_preference = [0]
    places = 0
    for lot in lots:
        if lot.preference >= len(by_preference):
            by_preference += [0] * (lot.preference + 1 - len(by_preference))
        by_preference[lot.preference] += 1
        places += applications[lot.number].units if lot.preference else 0
    return Totals(
        applications=sum(by_preference),
        applicants=sum(application.units for application in applications.values()),
        winners=sum(by_preference[1:]),
        places=places,
        by_preference=tuple(by_preference),
    )
