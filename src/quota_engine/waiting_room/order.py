"""Order of a room's tickets, derived from committed seeds. After the close, anyone can recompute it.

A room has three values. Each is the SHA-256 of the one before it, so one published hash commits to both seeds:

- ``closing seed``: secret until the room closes. It orders the tickets from after the opening, window by window.
- ``seed``: secret until the room opens. It orders the tickets from before the opening.
- ``commitment``: published when the room is created.

Later windows need a second seed, because ``seed`` is public by then. With it, the last applicant to join in a
window could compute how one more ticket would change the order.

The key of a window's permutation is the SHA-256 of these lines, each ended by a line feed::

    quota_engine room order 1
    <room>
    <commitment>
    <window: 0 before the opening, then 1, 2 …>
    <tickets in the window>
    <public entropy, or nothing>
    <seed; for a later window the closing seed; in hex>
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
    """Reject a seed or commitment that is not 32 bytes in lower-case hex.

    Args:
        value: The value to check.
        where: Name of the value for the error.

    Raises:
        InvalidRequest: The value has another form.
    """
    if not isinstance(value, str) or _is_seed(value) is None:
        raise InvalidRequest(where, "not a seed or hash", "64 hexadecimal digits, in lower case")


def check_entropy(value: object, where: str) -> None:
    """Reject entropy that is not up to 256 printable ASCII characters without a space at either end.

    Args:
        value: The value to check. ``""`` is valid.
        where: Name of the value for the error.

    Raises:
        InvalidRequest: The value has another form.
    """
    if not isinstance(value, str) or len(value) > ENTROPY_LENGTH_MAX or _is_entropy(value) is None:
        expected = f"up to {ENTROPY_LENGTH_MAX} printable ASCII characters, no space at either end"
        raise InvalidRequest(where, "not usable", expected)


def seed_of(closing_seed: str) -> str:
    """Return the seed that belongs to a closing seed. Both are in hex."""
    return hashlib.sha256(f"quota_engine room seed 1\n{closing_seed}\n".encode()).hexdigest()


def commitment_of(seed: str) -> str:
    """Return the commitment that belongs to a seed. Both are in hex."""
    return hashlib.sha256(f"quota_engine room commitment 1\n{seed}\n".encode()).hexdigest()


def window_key(room: str, commitment: str, window: int, size: int, entropy: str, seed: str) -> bytes:
    """Return the key of a window's permutation: 32 bytes, by the formula at the head of this module.

    Args:
        room: Id of the room.
        commitment: The room's commitment, in hex.
        window: Number of the window.
        size: Tickets in the window.
        entropy: Public entropy, or ``""``.
        seed: The seed for window 0, the closing seed for later windows; in hex.
    """
    lines = f"quota_engine room order {CONSTRUCTION}\n{room}\n{commitment}\n{window}\n{size}\n{entropy}\n{seed}\n"
    return hashlib.sha256(lines.encode()).digest()


class RoomOrder:
    """Positions of one room's tickets.

    Keeps the tables of up to 256 windows, and nothing for a ticket.
    """

    def __init__(self, room: str, commitment: str, entropy: str, seed: str, closing_seed: str) -> None:
        """Create the order of a room.

        Args:
            room: Id of the room.
            commitment: The room's commitment, in hex.
            entropy: Public entropy, or ``""``.
            seed: The seed in hex, or ``""`` if it is not known.
            closing_seed: The closing seed in hex, or ``""`` if it is not known.
        """
        self._room = room
        self._commitment = commitment
        self._entropy = entropy
        self._seed = seed
        self._closing_seed = closing_seed
        self._permutations: dict[tuple[int, int], Permutation] = {}

    def position(self, windows: Sequence[tuple[int, int]], tickets: int, index: int) -> int | None:
        """Return the position of a ticket among all tickets, from 1, or ``None`` if its seed is not known.

        Args:
            windows: Number and first ticket index of each window that has tickets, in ascending order.
            tickets: Tickets of the room.
            index: Index of the ticket, from 0. Its window must have ended, because the size of the window counts.
        """
        which = bisect_right(windows, index, key=_first_index) - 1
        permutation = self._permutation(windows, tickets, which)
        if permutation is None:
            return None
        first = windows[which][1]
        return 1 + first + permutation.position(index - first)

    def first_window(self, windows: Sequence[tuple[int, int]], tickets: int) -> Permutation | None:
        """Return the order within the first window that has tickets, or ``None`` if its seed is not known.

        Arguments as for :meth:`position`; there is a window, and it has ended.
        """
        return self._permutation(windows, tickets, 0)

    def _permutation(self, windows: Sequence[tuple[int, int]], tickets: int, which: int) -> Permutation | None:
        window, first = windows[which]
        size = (windows[which + 1][1] if which + 1 < len(windows) else tickets) - first
        return self._permutations.get((window, size)) or self.permutation(window, size)

    def permutation(self, window: int, size: int) -> Permutation | None:
        """Return the order within a window, or ``None`` if its seed is not known.

        Args:
            window: Number of the window.
            size: Tickets in the window (1 to 100,000,000).
        """
        seed = self._closing_seed if window else self._seed
        if not seed:
            return None
        if len(self._permutations) >= _PERMUTATIONS_MAX:
            self._permutations.clear()
        key = window_key(self._room, self._commitment, window, size, self._entropy, seed)
        permutation = self._permutations[window, size] = Permutation(key, size)
        return permutation


def _first_index(window: tuple[int, int]) -> int:
    return window[1]
