"""Campaigns: many seeds in one process or in several, with the same result."""

from __future__ import annotations

import msgspec
import pytest

from quota_engine.domain.errors import InvalidRequest
from quota_engine.fuzz.campaign import CampaignResult, run_campaign

TIMES = dict.fromkeys(("ops_per_s", "processor_s", "elapsed_s", "ops_per_s_of"))


def without_times(result: CampaignResult) -> dict[str, object]:
    return msgspec.structs.asdict(result) | TIMES


@pytest.mark.slow
def test_seeds_have_the_same_result_in_any_number_of_processes() -> None:
    alone = run_campaign(range(11), store="memory")
    seen: list[int] = []
    shared = run_campaign(range(11), store="memory", workers=2, on_report=lambda report: seen.append(report.seed))
    assert without_times(shared) == without_times(alone)
    assert seen == list(range(11))
    assert alone.violations == {}
    assert alone.operations_of["memory"] == alone.operations > 1_000


def test_campaign_ends_when_its_time_is_over() -> None:
    assert run_campaign(range(10**9), store="memory", minutes=1e-9).seeds == 0


def test_campaign_needs_a_worker() -> None:
    with pytest.raises(InvalidRequest, match="workers"):
        run_campaign(range(1), workers=0)
