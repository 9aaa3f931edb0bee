"""A draw in place of an opening, as an operator carries it out: announced before, closed, run and awarded after."""

from __future__ import annotations

__all__ = ["DrawRunResult", "announce", "carry_out", "draw_of"]

import datetime
import time
from typing import Any, Final, Protocol

import msgspec

from quota_engine.draws.files import (
    ResultHead,
    applications_of_lines,
    canonical_lines,
    capacities_of_json,
    digest_of,
    json_of_capacities,
    result_of_lines,
)
from quota_engine.draws.lottery import Application, Capacities, Lot, allot, commitment_of, key_of
from quota_engine.draws.verify import Expected, check_draw
from quota_engine.loadtest.plan import LoadTestPlan

HOLD_TTL_MS: Final = 600_000
"""What was won and is not purged goes back by itself after this."""
_FORGET_AFTER_MS: Final = 3_600_000
_ENTROPY_SOURCE: Final = "the name of the load test"
_FILES: Final = ("capacities.json", "applications.jsonl", "result.jsonl")
_PAUSE_S: Final = 0.25
_TRIES_MAX: Final = 400


class DrawRunResult(msgspec.Struct, frozen=True):
    """What came of a draw: the published files, read; what is wrong with them; the winners' reservations, how many of
    them were refused one; and how many win if it is drawn here from the same files.
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
    """The part of :class:`quota_engine.loadtest.target_client.Host` that an operator needs."""

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]: ...

    def ask(self, method: str, path: str, body: Any = None) -> Any: ...

    def file(self, path: str) -> bytes: ...


def draw_of(run: str) -> str:
    """The id of a run's draw."""
    return f"loadtest-{run}"


def announce(host: DrawOperator, plan: LoadTestPlan, seed: str) -> None:
    """Announce the plan's draw with the commitment to ``seed``. Raises
    :class:`quota_engine.loadtest.target_client.HostError`."""
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
    """Close the draw when its time is over, note the digests, reveal the seed, award, and check what is published.

    Raises :class:`quota_engine.loadtest.target_client.HostError` if the host does not do one of these.
    """
    path = f"/v1/draws/{plan.draw}"
    for _ in range(_TRIES_MAX):
        status, body = host.call("POST", f"{path}/close")
        if not isinstance(body, dict) or body.get("outcome") != "STILL_OPEN":
            break
        time.sleep(_PAUSE_S)
    if status >= 400:
        host.ask("POST", f"{path}/close")  # says what is wrong
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
    digests = digest_of([json_of_capacities(capacities)]), digest_of(canonical_lines(applications))
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
