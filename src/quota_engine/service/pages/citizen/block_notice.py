"""The notice that a visitor who lets places go cannot book for a while, before the last one and after it.

The engine announces it in the outcome of a reserve or a release. A signed cookie keeps it for the page that follows,
because that page only looks the reservation up.
"""

from __future__ import annotations

__all__ = ["BlockNotice", "read_notice"]

import datetime
from collections.abc import Callable
from typing import NamedTuple

from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome
from quota_engine.service.pages.i18n import Translator


class BlockNotice(NamedTuple):
    """``left`` more places can be let go. ``until_ms`` is the end of the block, 0 if none is near.

    ``mark`` stands for the reservation.
    """

    mark: str
    left: int
    until_ms: int

    @classmethod
    def of_outcome(cls, outcome: Outcome, mark: str) -> BlockNotice | None:
        """Return the notice that an outcome announces about the reservation of a mark, or ``None``."""
        if outcome.abandoned_holds_left is None:
            return None
        return cls(mark, outcome.abandoned_holds_left, outcome.blocked_until_ms)

    def text(self) -> str:
        """Return the notice as the text of a cookie; :func:`read_notice` is the inverse."""
        return f"{self.mark}|{self.left}|{self.until_ms}"

    def sentence(
        self,
        translator: Translator,
        reservation: Reservation,
        now_ms: int,
        local_time: Callable[[int], datetime.datetime],
    ) -> str:
        """Return the sentence for the reservation's page, or ``""`` if there is nothing to say.

        Args:
            translator: the language.
            reservation: the reservation that the page shows.
            now_ms: milliseconds since 1970 (UTC).
            local_time: converts milliseconds since 1970 to the time of the office.
        """
        if self.until_ms > now_ms:
            when = translator.moment(local_time(self.until_ms))
            if reservation.state is State.HELD:
                return translator("block_notice_last", when=when)
            if reservation.state in (State.RELEASED, State.EXPIRED):
                return translator("block_notice_blocked", when=when)
        elif reservation.state is State.HELD and self.left:
            return translator.count("block_notice_left", self.left)
        elif reservation.state is State.RELEASED and not self.left:
            return translator("block_notice_next")
        return ""


def read_notice(text: str, mark: str) -> BlockNotice | None:
    """Return the notice of a cookie's text; ``None`` if it is about another reservation or there is none."""
    found, _, numbers = text.partition("|")
    left, _, until_ms = numbers.partition("|")
    if found != mark or not (left.isdigit() and until_ms.isdigit()):
        return None
    return BlockNotice(found, int(left), int(until_ms))
