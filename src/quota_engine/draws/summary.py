"""Summary of a draw for operators."""

from __future__ import annotations

__all__ = ["DrawSummary", "summarize_draw"]

import datetime

import msgspec

from quota_engine.draws.queries import DrawPhase, DrawView


class DrawSummary(msgspec.Struct, frozen=True):
    """Figures of a draw. Moments are in milliseconds since 1970 (UTC).

    Attributes:
        draw: Id of the draw.
        phase: Phase of the draw at the time of the view.
        applications: Applications that the draw has.
        applicants: Applicants of all applications.
        opens_at_ms: Time from which the draw accepts applications.
        closes_at_ms: Time until which the draw accepts applications.
        forget_at_ms: Time at which the store deletes the draw.
        first_day: First day on which the draw gives places.
        last_day: Last day on which the draw gives places.
        entropy_source: Public source of entropy, or ``""`` if the draw uses none.
    """

    draw: str
    phase: DrawPhase
    applications: int
    applicants: int
    opens_at_ms: int
    closes_at_ms: int
    forget_at_ms: int
    first_day: datetime.date
    last_day: datetime.date
    entropy_source: str


def summarize_draw(view: DrawView) -> DrawSummary:
    """Return the figures of a draw from a view of it."""
    config = view.config
    return DrawSummary(
        draw=view.draw,
        phase=view.phase,
        applications=view.applications,
        applicants=view.applicants,
        opens_at_ms=config.opens_at_ms,
        closes_at_ms=config.closes_at_ms,
        forget_at_ms=config.forget_at_ms,
        first_day=datetime.date.fromordinal(config.first_day),
        last_day=datetime.date.fromordinal(config.last_day),
        entropy_source=config.entropy_source,
    )
