"""From a committed seed to everybody's position. All of it is public once a room has closed, and can be done by hand.

A room has three values, each the SHA-256 of the one before it, so that one published hash commits to all:
``late seed`` (a secret until the room closes), ``seed`` (a secret until it opens), ``commitment`` (published when the
room is made). The tickets of before the opening are put in order by the seed; those that come later by the late seed,
window by window. If later windows went by the seed, which is public by then, whoever joins last in a window could try
out how each further ticket would change the order.

The key of a window's permutation is the SHA-256 of these lines, each ended by a line feed::

    quota_engine room order 1
    <room>
    <commitment>
    <window: 0 before the opening, then 1, 2 …>
    <tickets in the window>
    <public entropy, or nothing>
    <seed, or of a later window the late seed, in hex>
"""

from __future__ import annotations

__all__ = ["RoomOrder", "check_entropy", "check_seed", "commitment_of", "seed_of", "window_key"]

import hashlib
import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from quota_engine.domain.errors import InvalidRequest
from quota_engine.waiting_room.permutation import CONSTRUCTION, Permutation

ENTROPY_LENGTH_MAX: Final = 256
_PERMUTATIONS_MAX: Final = 256

_is_seed = re.compile(r"[0-9a-f]{64}").fullmatch
_is_entropy = re.compile(r"[!-~](?:[ -~]*[!-~])?|").fullmatch


def check_seed(value: object, where: str) -> None:
    """Raise :class:`InvalidRequest` unless ``value`` is 32 bytes in lower-case hex."""
    if not isinstance(value, str) or _is_seed(value) is None:
        raise InvalidRequest(where, "not a seed or hash", "64 hexadecimal digits, in lower case")


def check_entropy(value: object, where: str) -> None:
    """Raise :class:`InvalidRequest` unless ``value`` is ``""`` or up to 256 printable ASCII characters, with no space
    at either end.
    """
    if not isinstance(value, str) or len(value) > ENTROPY_LENGTH_MAX or _is_entropy(value) is None:
        expected = f"up to {ENTROPY_LENGTH_MAX} printable ASCII characters, no space at either end"
        raise InvalidRequest(where, "not usable", expected)


def seed_of(closing_seed: str) -> str:
    """The seed that belongs to a late seed; both in hex."""
    return hashlib.sha256(f"quota_engine room seed 1\n{closing_seed}\n".encode()).hexdigest()


def commitment_of(seed: str) -> str:
    """The commitment that belongs to a seed; both in hex."""
    return hashlib.sha256(f"quota_engine room commitment 1\n{seed}\n".encode()).hexdigest()


def window_key(room: str, commitment: str, window: int, size: int, entropy: str, seed: str) -> bytes:
    """The key of one window's permutation. ``seed`` is the late one for windows from 1 on."""
    lines = f"quota_engine room order {CONSTRUCTION}\n{room}\n{commitment}\n{window}\n{size}\n{entropy}\n{seed}\n"
    return hashlib.sha256(lines.encode()).digest()


class RoomOrder:
    """The positions of one room's tickets. Keeps the tables of up to 256 windows, and nothing for a ticket."""

    def __init__(self, room: str, commitment: str, entropy: str, seed: str, closing_seed: str) -> None:
        """The seeds are hex, or ``""`` for what is not known (yet)."""
        self._room = room
        self._commitment = commitment
        self._entropy = entropy
        self._seed = seed
        self._late_seed = closing_seed
        self._permutations: dict[tuple[int, int], Permutation] = {}

    def position(self, windows: Sequence[tuple[int, int]], tickets: int, index: int) -> int | None:
        """The position of a ticket among all, from 0; ``None`` if the seed for it is not known.

        ``windows`` are the numbers and first indexes of the windows that have tickets, ``tickets`` how many there are;
        the window of ``index`` must have ended, since its size counts.
        """
        which = bisect_right(windows, index, key=_first_index) - 1
        window, first = windows[which]
        size = (windows[which + 1][1] if which + 1 < len(windows) else tickets) - first
        permutation = self._permutations.get((window, size)) or self.permutation(window, size)
        return None if permutation is None else first + permutation.position(index - first)

    def permutation(self, window: int, size: int) -> Permutation | None:
        """The order within a window of so many tickets, or ``None`` if the seed for it is not known."""
        seed = self._late_seed if window else self._seed
        if not seed:
            return None
        if len(self._permutations) >= _PERMUTATIONS_MAX:
            self._permutations.clear()
        key = window_key(self._room, self._commitment, window, size, self._entropy, seed)
        permutation = self._permutations[window, size] = Permutation(key, size)
        return permutation


def _first_index(window: tuple[int, int]) -> int:
    return window[1]
