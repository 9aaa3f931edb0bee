"""Recorded openings."""

from __future__ import annotations

import pathlib

import pytest

from quota_engine.domain.errors import CatalogError
from quota_engine.simulation.scenario import Scenario
from quota_engine.simulation.simulation import SimulationResult, prepare
from tests.support.simulated_openings import run_prepared, scenario_with

_HEADER = "time,applicant,office,day,channel,party\n"
_IDENTITY = "3578011203850007"


def _run(tmp_path: pathlib.Path, lines: str, scenario: Scenario | None = None) -> SimulationResult:
    file = tmp_path / "trace.csv"
    file.write_text(_HEADER + lines, "utf-8")
    return run_prepared(prepare(scenario or Scenario(), "surabaya", file), baseline=True)


def _mistakes(tmp_path: pathlib.Path, text: str) -> list[str]:
    file = tmp_path / "trace.csv"
    file.write_text(text, "utf-8")
    with pytest.raises(CatalogError) as caught:
        prepare(Scenario(), "surabaya", file)
    assert _IDENTITY not in str(caught.value)
    return [str(mistake).removeprefix(f"{file}: ") for mistake in caught.value.issues]


def test_presses_are_replayed_in_order_of_time(tmp_path: pathlib.Path) -> None:
    """The order of presses decides, not that of the lines; the last applicant is refused."""
    scenario = scenario_with(sale={"capacity": 2}, agents={"abandon_share": 0.0, "crash_share": 0.0})
    lines = "".join(f"{9 - at},{_IDENTITY}{at},surabaya,2026-12-07,online,\n" for at in range(3))
    result = _run(tmp_path, lines, scenario)
    assert (result.engine.confirmed, result.engine.refused, result.engine.applicants) == (2, 1, 3)
    assert result.ok


def test_lines_of_an_applicant_are_merged(tmp_path: pathlib.Path) -> None:
    """Two presses before the opening are answered with its time, and the third one wins."""
    lines = "".join(f"{time},{_IDENTITY},surabaya,2026-12-07,online,1\n" for time in (-20, -10, 2))
    engine = _run(tmp_path, lines, scenario_with(agents={"abandon_share": 0.0, "crash_share": 0.0})).engine
    assert engine.applicants == engine.confirmed == 1
    assert engine.answers_by_status == {"NOT_OPEN": 2, "HELD": 1, "CONFIRMED": 1}


def test_times_can_be_iso_8601(tmp_path: pathlib.Path) -> None:
    lines = f"2026-12-04T14:00:01.5+07:00,{_IDENTITY},surabaya,2026-12-07,kiosk,4\n"
    result = _run(tmp_path, lines, scenario_with(agents={"abandon_share": 0.0, "crash_share": 0.0}))
    assert (result.engine.confirmed, result.engine.bookings, result.engine.capacity) == (4, 1, 30)


def test_an_applicant_may_try_for_two_days(tmp_path: pathlib.Path) -> None:
    """The identity limit decides, and it is a refusal like others."""
    scenario = scenario_with(sale={"days": 2}, agents={"abandon_share": 0.0, "crash_share": 0.0})
    lines = f"1,{_IDENTITY},surabaya,2026-12-07,,\n2,{_IDENTITY},surabaya,2026-12-08,,\n"
    result = _run(tmp_path, lines, scenario)
    assert (result.engine.confirmed, result.engine.refused) == (1, 1)
    assert result.engine.answers_by_status["IDENTITY_LIMIT"] == 1


@pytest.mark.parametrize(
    ("line", "where", "expected"),
    [
        (f"soon,{_IDENTITY},surabaya,2026-12-07,online,1", "line 2, time", "seconds from the opening"),
        (f"2026-12-04T14:00:00,{_IDENTITY},surabaya,2026-12-07,online,1", "line 2, time", "with an offset"),
        (f"2036-12-04T14:00:00Z,{_IDENTITY},surabaya,2026-12-07,online,1", "line 2, time", "near the opening"),
        ("1,,surabaya,2026-12-07,online,1", "line 2, applicant", "1 to 250 printable characters"),
        (f"1,{_IDENTITY}\x07,surabaya,2026-12-07,online,1", "line 2, applicant", "printable"),
        (f"1,surabaya,{_IDENTITY},2026-12-07,online,1", "line 2, office", "an office of the scenario"),
        (f"1,x,surabaya,{_IDENTITY},online,1", "line 2, day", "an ISO 8601 date"),
        (f"1,{_IDENTITY},surabaya,2027-01-04,online,1", "line 2, day", "a day of the scenario's sale"),
        (f"1,x,surabaya,2026-12-07,{_IDENTITY},1", "line 2, channel", "a channel of the office"),
        (f"1,x,surabaya,2026-12-07,online,{_IDENTITY}", "line 2, party", "1 to 100"),
        (f"1,{_IDENTITY},surabaya,2026-12-07,online", "line 2, (line)", "6: time,applicant"),
        (
            f"1,{_IDENTITY},surabaya,2026-12-07,online,1\n2,{_IDENTITY},surabaya,2026-12-07,online,2",
            "line 3, party",
            "1, as on the applicant's first line",
        ),
    ],
)
def test_an_error_names_line_and_column_but_no_identity(
    tmp_path: pathlib.Path, line: str, where: str, expected: str
) -> None:
    (mistake,) = _mistakes(tmp_path, _HEADER + line + "\n")
    assert where in mistake
    assert expected in mistake


def test_errors_are_reported_up_to_a_limit(tmp_path: pathlib.Path) -> None:
    assert len(_mistakes(tmp_path, _HEADER + f"soon,{_IDENTITY},surabaya,2026-12-07,online,1\n" * 5)) == 5
    assert len(_mistakes(tmp_path, _HEADER + f"soon,{_IDENTITY},surabaya,2026-12-07,online,1\n" * 50)) == 20


@pytest.mark.parametrize("text", ["", "when,who\n1,2\n", _HEADER])
def test_a_file_without_presses_is_rejected(tmp_path: pathlib.Path, text: str) -> None:
    assert len(_mistakes(tmp_path, text)) == 1


def test_a_missing_or_binary_file_is_rejected(tmp_path: pathlib.Path) -> None:
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path / "none.csv", binary):
        with pytest.raises(CatalogError):
            prepare(Scenario(), "surabaya", file)
