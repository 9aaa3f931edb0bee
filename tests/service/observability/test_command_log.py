"""The commands of operators, for the page that shows who did what."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from quota_engine.service.observability.command_log import COMMANDS_MAX, CommandLog, OperatorCommand

_DECEMBER_MS = 1_796_367_600_000  # 2026-12-04T07:00Z
_DAY_MS = 86_400_000


class _Clock:
    now_ms = _DECEMBER_MS


async def test_commands_of_two_processes_are_one_list_the_newest_first(tmp_path: Path) -> None:
    clock = _Clock()
    first, second = (CommandLog(tmp_path, lambda: clock.now_ms) for _ in range(2))
    for number, log in enumerate((first, second, first)):
        clock.now_ms += 1_000
        await log.add("anna", "close-day", {"office": "surabaya", "number": str(number)}, "200")
    found = await second.of_month()
    assert [one.subject["number"] for one in found] == ["2", "1", "0"]
    assert found[0] == OperatorCommand(
        _DECEMBER_MS + 3_000, "anna", "close-day", {"office": "surabaya", "number": "2"}, "200"
    )


@pytest.mark.parametrize("has_folder", [True, False])
async def test_each_month_is_a_list(tmp_path: Path, has_folder: bool) -> None:
    clock = _Clock()
    log = CommandLog(tmp_path if has_folder else None, lambda: clock.now_ms)
    await log.add("anna", "close-day", {}, "200")
    clock.now_ms += 31 * _DAY_MS
    assert await log.of_month() == []
    await log.add("budi", "open-day", {}, "409")
    assert [one.operator for one in await log.of_month("2026-12")] == ["anna"]
    assert [(one.operator, one.is_done) for one in await log.of_month()] == [("budi", False)]


async def test_memory_is_bounded() -> None:
    log = CommandLog(None, lambda: _DECEMBER_MS)
    for number in range(COMMANDS_MAX + 5):
        await log.add("anna", "check-in", {"number": str(number)}, "303")
    found = await log.of_month()
    assert len(found) == COMMANDS_MAX
    assert found[-1].subject == {"number": "5"}


async def test_a_file_that_cannot_be_written_costs_no_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = CommandLog(tmp_path / "missing", lambda: _DECEMBER_MS)
    with caplog.at_level(logging.WARNING):
        await log.add("anna", "close-day", {}, "200")
    assert "was not recorded" in caplog.text
    assert await log.of_month() == []
