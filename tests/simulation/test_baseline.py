"""The model of the old application: what goes wrong follows from interleaving and overload, and from nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from quota_engine.simulation.metrics import Metrics
from tests.support.simulated_openings import run, scenario_with

_CALM: dict[str, Any] = {"crash_share": 0.0, "abandon_share": 0.0, "retry_share": 0.0}
_FAST: dict[str, Any] = {"page_s_median": 0.001, "submit_s_median": 0.001, "service_sigma": 0.0}


def _old(applicants: int, **parts: dict[str, Any]) -> Metrics:
    old = run(scenario_with(applicants, **parts), baseline=True).baseline
    assert old is not None
    assert old.bookings + old.refused + old.abandoned + old.gave_up == applicants
    assert old.confirmed + old.unsold == old.capacity + old.oversold
    assert old.sold.total == old.confirmed
    return old


@pytest.mark.slow
def test_many_applicants_make_the_baseline_oversell() -> None:
    old = _old(3_000)
    assert old.oversold > 0
    assert old.errors > 100
    assert old.applicants_logged_out > 100


def test_one_worker_never_oversells() -> None:
    """Check and write of one request come before those of the next."""
    old = _old(600, agents=_CALM, baseline=_FAST | {"workers": 1, "queue_max": 10_000})
    assert (old.confirmed, old.oversold) == (100, 0)


def test_many_workers_oversell_by_the_submits_between_check_and_write() -> None:
    """Forms of the same length come in together: a worker each, and all see the last place free."""
    old = _old(600, agents=_CALM | {"form_sigma": 0.0}, baseline={"workers": 25, "submit_s_median": 2.0})
    assert 0 < old.oversold < 25


def test_low_load_is_served_without_errors() -> None:
    """Few applicants, an hour apart from each other on average: no error, no oversell, none logged out by overload."""
    old = _old(
        150,
        agents=_CALM,
        arrivals={
            "early_share": 0.0,
            "burst_share": 0.0,
            "refresher_share": 0.0,
            "late_share": 1.0,
            "late_s_mean": 40_000.0,
        },
        baseline=_FAST,
    )
    assert (old.confirmed, old.oversold, old.errors, old.logged_out, old.double_booked) == (100, 0, 0, 0, 0)


def test_retries_after_time_outs_book_twice() -> None:
    """The server finishes what the client no longer waits for."""
    old = _old(
        300,
        agents=_CALM,
        baseline={"workers": 60, "submit_s_median": 8.0, "client_timeout_s": 6.0, "session_loss_share": 0.0},
    )
    assert old.double_booked > 0


def test_short_sessions_make_applicants_give_up() -> None:
    old = _old(50, agents=_CALM | {"attempts_max": 3}, baseline=_FAST | {"session_s": 1.0})
    assert old.gave_up == 50
    assert old.confirmed == 0


def test_all_applicants_get_a_place_below_capacity() -> None:
    old = _old(20, agents=_CALM, baseline=_FAST)
    assert (old.confirmed, old.unsold, old.refused) == (20, 80, 0)
