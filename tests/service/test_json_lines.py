"""Files of JSON lines."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quota_engine.service.json_lines import append_line, read_last_lines


class Line(msgspec.Struct, frozen=True):
    number: int


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert read_last_lines(path, Line) == []
    for number in range(3):
        append_line(path, Line(number))
    assert read_last_lines(path, Line) == [Line(0), Line(1), Line(2)]


def test_only_whole_lines_of_the_end_are_read(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for number in range(100, 200):
        append_line(path, Line(number))
    found = read_last_lines(path, Line, 50)
    assert found == [Line(number) for number in range(200 - len(found), 200)]
    assert 2 <= len(found) <= 3


def test_unreadable_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"number":1}\n{"number":"x"}\nhalf a li\n\n{"number":2}\n')
    assert read_last_lines(path, Line) == [Line(1), Line(2)]
