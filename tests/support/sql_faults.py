"""Connections to a SQLite file that fail on purpose, at a step that a test chooses. Everything else is real."""

from __future__ import annotations

__all__ = ["FaultyConnections"]

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.sql.sqlite.connections import SqliteConnections
from quota_engine.stores.sql.steps import CommitUnknown, RoundTrip, Rows, Step

_ROLLBACK: Final = RoundTrip((), end="rollback")


class FaultyConnections(SqliteConnections):
    """Connections whose round trips pass a hook first.

    Attributes:
        before: Called with each round trip before it is carried out; it may raise an error of the port.
        lose_answers: Count of commits whose answers are lost although they take effect.
        steps: Round trips that were carried out.
    """

    def __init__(self, path: str) -> None:
        """Open the file at ``path``."""
        self.before: Callable[[RoundTrip], None] = lambda _: None
        self.lose_answers = 0
        self.steps: list[RoundTrip] = []
        super().__init__(path, "OFF")

    @contextlib.contextmanager
    def session(  # type: ignore[override]  # the exit of a generator may return a bool
        self, end: CallEnd | None = None
    ) -> Iterator[Callable[[Step], list[Rows]]]:
        """See :meth:`SqliteConnections.session`."""
        with super().session(end) as handle:
            is_open = False

            def faulty(step: Step) -> list[Rows]:
                nonlocal is_open
                if not isinstance(step, RoundTrip):
                    return handle(step)
                try:
                    self.before(step)
                except Exception:
                    if is_open:  # a driver raises after a rollback
                        is_open = False
                        handle(_ROLLBACK)
                    raise
                self.steps.append(step)
                rows = handle(step)
                is_open = (is_open or step.begin) and not step.end
                if step.end == "commit" and self.lose_answers:
                    self.lose_answers -= 1
                    raise CommitUnknown("the connection was cut")
                return rows

            yield faulty

    def statements(self) -> list[list[str]]:
        """Return the names of the statements of each round trip since the last call."""
        names = [[one.name for one in step.statements] for step in self.steps]
        self.steps.clear()
        return names
