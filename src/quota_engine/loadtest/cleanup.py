"""Cleanup after load tests: release and cancel every reservation in force whose id has their prefix."""

from __future__ import annotations

__all__ = ["CleanupReport", "clean_up"]

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Protocol

from quota_engine.loadtest.draw_run import draw_of
from quota_engine.loadtest.population import IDENTITY_PREFIX, key_prefix

_STEP_OF: Final = {"HELD": "release", "WAITING": "release", "CONFIRMED": "cancel"}


class CleanupReport(NamedTuple):
    """Result of a cleanup.

    Counts released holds and wait-list entries, cancelled places, and reservations without the prefix, which stay.
    ``refused`` lists the reservations that the office's rules keep.
    """

    released: int = 0
    cancelled: int = 0
    refused: tuple[str, ...] = ()
    others: int = 0

    def sentence(self) -> str:
        """Return the result as a sentence."""
        text = (
            f"{self.released} holds released, {self.cancelled} places cancelled; "
            f"{self.others} reservations are not of load tests, and were left alone"
        )
        if self.refused:
            text += f"; {len(self.refused)} could not be given back, such as {self.refused[0]}"
        return text


class CleanupTarget(Protocol):
    """The calls of a :class:`quota_engine.loadtest.target_client.TargetClient` that a cleanup needs."""

    def offices(self) -> list[dict[str, Any]]: ...

    def events(self, office: str, after: int = 0) -> Iterable[dict[str, Any]]: ...

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]: ...


def clean_up(host: CleanupTarget, run: str = "") -> CleanupReport:
    """Release and cancel everything of one run, or of all runs. Safe to repeat.

    The winners' places of a run's draw are found only by the run's name. Without it, they return after ten minutes.
    """
    prefix = key_prefix(run) if run else IDENTITY_PREFIX
    released = cancelled = others = 0
    refused: list[str] = []
    won = _won(host, run)
    for office in host.offices():
        last: dict[str, str] = {}
        for event in host.events(office["id"]):
            record = event.get("reservation")
            if record is not None:
                last[record["reference"]] = record["state"]
        for reference, state in last.items():
            if not reference.partition("~")[2].startswith(prefix) and reference not in won:
                others += 1
                continue
            step = _STEP_OF.get(state)
            if step is None:
                continue
            status, body = host.call("POST", f"/v1/reservations/{reference}/{step}", {})
            outcome = body.get("outcome", "") if isinstance(body, dict) else ""
            if status < 400:
                released += step == "release"
                cancelled += step == "cancel"
            elif outcome not in ("EXPIRED", "WRONG_STATE", "NOT_FOUND", "OVER"):  # it has ended already
                refused.append(f"{reference} ({outcome or status})")
    return CleanupReport(released, cancelled, tuple(refused), others)


def _won(host: CleanupTarget, run: str) -> frozenset[str]:
    """Return the winners' reservations of a run's draw. A second award changes nothing and lists them."""
    if not run:
        return frozenset()
    status, body = host.call("POST", f"/v1/draws/{draw_of(run)}/award", {})
    return frozenset(one["reference"] for one in body["references"]) if status == HTTPStatus.OK else frozenset()
