"""Draw in place of an opening, as an operator runs it: announce before, then close, run, award and check."""

from __future__ import annotations

__all__ = ["DrawRunResult", "announce", "carry_out", "draw_of"]

import datetime
import time
from typing import Any, Final, Protocol

import msgspec

from quota_engine.draws.files import (
    ResultHead,
    applications_of_lines,
    capacities_of_json,
    digest_of,
    result_of_lines,
)
from quota_engine.draws.lottery import Application, Capacities, Lot, allot, commitment_of, key_of
from quota_engine.draws.verify import Expected, check_draw
from quota_engine.loadtest.plan import LoadTestPlan

HOLD_TTL_MS: Final = 600_000
"""Lifetime of the winners' holds: places that no cleanup releases return after this."""
_FORGET_AFTER_MS: Final = 3_600_000
_ENTROPY_SOURCE: Final = "the name of the load test"
_FILES: Final = ("capacities.json", "applications.jsonl", "result.jsonl")
_PAUSE_S: Final = 0.25
_TRIES_MAX: Final = 400


class DrawRunResult(msgspec.Struct, frozen=True):
    """Result of a draw.

    Holds the published files, decoded, and findings about them. ``references`` are the winners' reservations,
    ``refused`` counts winners without a hold, and ``winners_again`` the winners of the draw repeated here.
    """

    capacities: Capacities
    applications: dict[int, Application]
    head: ResultHead
    lots: list[Lot]
    findings: tuple[str, ...]
    references: dict[int, str]
    refused: int
    winners_again: int


class DrawOperator(Protocol):
    """The calls of a :class:`quota_engine.loadtest.target_client.TargetClient` that an operator needs."""

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]: ...

    def ask(self, method: str, path: str, body: Any = None) -> Any: ...

    def file(self, path: str) -> bytes: ...


def draw_of(run: str) -> str:
    """Return the id of a run's draw."""
    return f"loadtest-{run}"


def announce(host: DrawOperator, plan: LoadTestPlan, seed: str) -> None:
    """Announce the plan's draw with the commitment to ``seed``.

    Raises:
        TargetError: the target refuses.
    """
    closes_at_ms = plan.opens_at_ms + round(plan.options.window_s * 1000)
    terms = {
        "opens_at_ms": plan.opens_at_ms,
        "closes_at_ms": closes_at_ms,
        "forget_at_ms": closes_at_ms + _FORGET_AFTER_MS,
        "first_day": _iso(min(each.day for each in plan.days)),
        "last_day": _iso(max(each.day for each in plan.days)),
        "commitment": commitment_of(plan.draw, seed),
        "entropy_source": _ENTROPY_SOURCE,
    }
    host.ask("PUT", f"/v1/draws/{plan.draw}", terms)


def carry_out(host: DrawOperator, plan: LoadTestPlan, seed: str) -> DrawRunResult:
    """Close the draw after its time, reveal the seed, award the places, and check the published files.

    The digests are read before the seed is revealed, so that the check notices later changes.

    Raises:
        TargetError: the target refuses one of the calls.
    """
    path = f"/v1/draws/{plan.draw}"
    for _ in range(_TRIES_MAX):
        status, body = host.call("POST", f"{path}/close")
        if not isinstance(body, dict) or body.get("outcome") != "STILL_OPEN":
            break
        time.sleep(_PAUSE_S)
    if status >= 400:
        host.ask("POST", f"{path}/close")  # raises with the target's reason
    frozen = host.ask("GET", path)["frozen"]
    entropy = plan.options.run
    host.ask("POST", f"{path}/run", {"seed": seed, "entropy": entropy})
    award = host.ask("POST", f"{path}/award", {"hold_ttl_ms": HOLD_TTL_MS})
    files = [host.file(f"{path}/files/{name}") for name in _FILES]
    capacities = capacities_of_json(files[0], _FILES[0])
    applications = list(applications_of_lines(files[1].splitlines(), _FILES[1]))
    head, lots = result_of_lines(files[2].splitlines(), _FILES[2])
    expected = Expected(
        commitment_of(plan.draw, seed), frozen["applications_digest"], frozen["capacities_digest"], entropy
    )
    digests = digest_of([files[0]]), digest_of([files[1]])
    findings = check_draw(head, lots, capacities, applications, *digests, expected)
    return DrawRunResult(
        capacities,
        {one.number: one for one in applications},
        head,
        [lot for lot, _ in lots],
        (*findings, *award["findings"]),
        {one["number"]: one["reference"] for one in award["references"]},
        sum(award["refusals"].values()),
        sum(lot.preference > 0 for lot in allot(capacities, key_of(plan.draw, seed, entropy), applications)),
    )


def _iso(day: int) -> str:
    return datetime.date.fromordinal(day).isoformat()
