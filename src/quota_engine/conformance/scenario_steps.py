"""The form of the scenarios: steps with their expected statuses."""

from __future__ import annotations

__all__ = ["ConformanceScenario", "Step", "move_in"]

from typing import NamedTuple

from quota_engine.conformance.world import DAY, OPENS_AT_MS, applicant, published
from quota_engine.domain.commands import Command, MoveIn
from quota_engine.domain.model import Choice
from quota_engine.domain.outcomes import Status as S


class Step(NamedTuple):
    """A command at ``at_ms`` after the opening, with the status and the flag, such as ``replayed``, of its outcome."""

    at_ms: int
    command: Command
    status: S
    flag: str = ""


class ConformanceScenario(NamedTuple):
    """Steps that are applied to a new office."""

    name: str
    steps: tuple[Step, ...]
    setup: tuple[Command, ...] = published()


def move_in(key: str, wanted: Choice, *names: str, deadline_ms: int | None = None, day: int = DAY) -> MoveIn:
    """Return a first move: of a hold until ``deadline_ms`` after the opening, or of a confirmed reservation."""
    party = tuple(applicant(name) for name in names)
    return MoveIn(key, day, party, wanted, 0 if deadline_ms is None else OPENS_AT_MS + deadline_ms, 1)
