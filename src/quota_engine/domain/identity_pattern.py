r"""Patterns of identities: a part of Python's regular expressions that always matches fast.

A pattern has characters, ``\d``, classes such as ``[A-Z0-9]``, groups, ``|``, and the repeats ``?``, ``{n}`` and
``{n,m}``. It has no ``*``, ``+``, ``.``, references or assertions. So the number of ways to match a text is known, and
:func:`check_pattern` limits it: no identity can make a match slow.
"""

from __future__ import annotations

__all__ = ["PATTERN_EXPECTED", "PATTERN_LENGTH_MAX", "WAYS_MAX", "PatternBounds", "can_match", "check_pattern"]

import re
import warnings
from typing import Final, NamedTuple

from quota_engine.domain.errors import InvalidRequest

PATTERN_LENGTH_MAX: Final = 200
"""The most characters of a pattern."""
WAYS_MAX: Final = 1_000
"""The most ways in which a pattern may match a text. Each takes at most one step for each character."""
TEXT_LENGTH_MAX: Final = 256
"""The longest text that a pattern may match."""
PATTERN_EXPECTED: Final = (
    r"a pattern of characters, \d, [classes], groups, | and the repeats ?, {n} and {n,m}, such as \d{16}"
)
_REPEAT: Final = re.compile(r"\{(\d{1,3})(?:,(\d{1,3}))?\}")
_SPECIAL: Final = frozenset(".^$*+?{}[]|()\\")


class PatternBounds(NamedTuple):
    """Limits of the texts that a pattern matches.

    Attributes:
        length_min: the fewest characters.
        length_max: the most characters.
        ways: an upper bound of the ways to match one text.
        atoms: the parts of the pattern that match one character each.
    """

    length_min: int
    length_max: int
    ways: int
    atoms: frozenset[str] = frozenset()


class _InvalidPattern(Exception):
    """The pattern has something that is not allowed; the text says what."""


def check_pattern(pattern: str, where: str) -> PatternBounds:
    """Validate a pattern, and return its bounds.

    Args:
        pattern: the pattern. It must match a whole text.
        where: the name of the setting in the error message.

    Raises:
        InvalidRequest: the pattern has a part that is not allowed, matches the empty text or a text that is too long,
            or could match in too many ways.
    """
    if not 1 <= len(pattern) <= PATTERN_LENGTH_MAX:
        raise InvalidRequest(where, f"{len(pattern)} characters", f"1 to {PATTERN_LENGTH_MAX}")
    try:
        bounds = _Parser(pattern).pattern()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of classes that a later Python may read otherwise
            re.compile(pattern, re.ASCII)
    except _InvalidPattern as error:
        raise InvalidRequest(where, str(error), PATTERN_EXPECTED) from None
    except (re.error, FutureWarning) as error:
        raise InvalidRequest(where, str(error), PATTERN_EXPECTED) from None
    if bounds.length_min < 1 or bounds.length_max > TEXT_LENGTH_MAX:
        found = f"matches {bounds.length_min} to {bounds.length_max} characters"
        raise InvalidRequest(where, found, f"a pattern that matches 1 to {TEXT_LENGTH_MAX}")
    if bounds.ways > WAYS_MAX:
        problem = f"could match in more than {WAYS_MAX} ways"
        raise InvalidRequest(where, problem, "fewer repeats of different lengths, and fewer alternatives")
    return bounds


def can_match(bounds: PatternBounds, character: str) -> bool:
    """Return True if a character may be part of a text that the pattern matches."""
    return any(re.fullmatch(atom, character, re.ASCII) is not None for atom in bounds.atoms)


class _Parser:
    """Reads a pattern once from left to right. Each method reads a part and returns its bounds."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0
        self._atoms: set[str] = set()

    def pattern(self) -> PatternBounds:
        bounds = self._alternatives()
        if self._at < len(self._pattern):
            raise _InvalidPattern("a ) without its (")
        return bounds._replace(atoms=frozenset(self._atoms))

    def _alternatives(self) -> PatternBounds:
        found = [self._sequence()]
        while self._next() == "|":
            self._at += 1
            found.append(self._sequence())
        return PatternBounds(
            min(one.length_min for one in found),
            max(one.length_max for one in found),
            sum(one.ways for one in found),
        )

    def _sequence(self) -> PatternBounds:
        length_min = length_max = 0
        ways = 1
        while self._next() not in ("", "|", ")"):
            atom = self._atom()
            minimum, maximum = self._repeat()
            length_min += atom.length_min * minimum
            length_max += atom.length_max * maximum
            ways = min(ways * _ways_of_repeat(atom.ways, minimum, maximum), WAYS_MAX + 1)
        return PatternBounds(length_min, length_max, ways)

    def _atom(self) -> PatternBounds:
        start, character = self._at, self._next()
        if character == "(":
            return self._group()
        if character == "[":
            self._class()
        elif character == "\\":
            self._escape()
        elif character in _SPECIAL:
            raise _InvalidPattern(f"{character} at character {self._at + 1}")
        else:
            self._at += 1
        self._atoms.add(self._pattern[start : self._at])
        return PatternBounds(1, 1, 1)

    def _group(self) -> PatternBounds:
        self._at += 3 if self._pattern.startswith("(?:", self._at) else 1
        self._depth += 1
        if self._depth > 8:
            raise _InvalidPattern("groups in more than 8 groups")
        bounds = self._alternatives()
        if self._next() != ")":
            raise _InvalidPattern("a ( without its )")
        self._at += 1
        self._depth -= 1
        return bounds

    def _escape(self) -> None:
        escaped = self._pattern[self._at + 1 : self._at + 2]
        if escaped != "d" and (not escaped or escaped.isalnum()):
            raise _InvalidPattern(f"\\{escaped} at character {self._at + 1}")
        self._at += 2

    def _class(self) -> None:
        start = self._at
        self._at += 2 if self._pattern.startswith("[^", start) else 1
        while self._next() != "]":
            if self._next() == "\\":
                self._escape()
            elif self._next() in ("", "["):
                raise _InvalidPattern(f"a class without its end at character {start + 1}")
            else:
                self._at += 1
        self._at += 1

    def _repeat(self) -> tuple[int, int]:
        """Read the repeat after an atom, if there is one; return the fewest and the most times."""
        if self._next() == "?":
            self._at += 1
            return 0, 1
        found = _REPEAT.match(self._pattern, self._at)
        if found is None:
            return 1, 1
        self._at = found.end()
        minimum = int(found[1])
        maximum = minimum if found[2] is None else int(found[2])
        if minimum > maximum:
            raise _InvalidPattern(f"the repeat {found[0]}")
        return minimum, maximum

    def _next(self) -> str:
        """Return the next character; ``""`` at the end."""
        return self._pattern[self._at : self._at + 1]


def _ways_of_repeat(ways: int, minimum: int, maximum: int) -> int:
    """Return the ways of an atom that is repeated, at most one more than are allowed."""
    total = 0
    for times in range(minimum, maximum + 1):
        total += 1 if ways == 1 else min(ways, WAYS_MAX + 1) ** min(times, 64)
        if total > WAYS_MAX:
            break
    return total
