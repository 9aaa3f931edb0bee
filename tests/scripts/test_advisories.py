"""Tests of the comparison with a database of advisories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import advisories
from scripts.advisories import affects, find_affected, main, read_advisories
from scripts.sbom import LOCK, read_lock

RANGE = {
    "type": "ECOSYSTEM",
    "events": [{"introduced": "0"}, {"fixed": "2.1"}, {"introduced": "3.0"}, {"fixed": "3.2"}],
}


def advisory(name: str, *ranges: dict[str, Any], ecosystem: str = "PyPI", **more: Any) -> dict[str, Any]:
    affected = {"package": {"ecosystem": ecosystem, "name": name}, "ranges": list(ranges)}
    return {"id": "A-1", "aliases": ["CVE-1"], "published": "2026-01-02T03:04:05Z", "affected": [affected], **more}


def write(folder: Path, *documents: dict[str, Any]) -> Path:
    for number, document in enumerate(documents):
        path = folder / f"vulns/{number}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.1", True), ("2.0.9", True), ("2.1rc1", True), ("2.1", False), ("2.5", False), ("3.0", True), ("3.2", False)],
)
def test_ranges_include_their_start_and_exclude_the_fixed_version(version: str, expected: bool) -> None:
    assert affects({"ranges": [RANGE]}, version) is expected


def test_last_affected_version_is_affected() -> None:
    spread = {"type": "SEMVER", "events": [{"introduced": "1.0"}, {"last_affected": "1.5"}]}
    found = [affects({"ranges": [spread]}, one) for one in ("0.9", "1.0", "1.5", "1.5.1")]
    assert found == [False, True, True, False]


def test_listed_versions_are_affected() -> None:
    assert affects({"versions": ["1.0", "1.1"]}, "1.1")
    assert not affects({"versions": ["1.0", "1.1"]}, "1.2")


def test_ranges_of_commits_affect_no_version() -> None:
    assert not affects({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, "1.0")


def test_findings_name_the_version_without_the_flaw() -> None:
    found = list(find_affected(iter([advisory("Some_Library", RANGE)]), {"some-library": ["2.0", "2.2"]}))
    assert found == ["some-library 2.0: A-1, CVE-1; expected 2.1 or 3.2"]


def test_other_ecosystems_have_no_findings() -> None:
    assert not list(find_affected(iter([advisory("redis", RANGE, ecosystem="npm")]), {"redis": ["2.0"]}))


def test_withdrawn_advisories_are_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path, advisory("redis", RANGE, withdrawn="2026-01-03T00:00:00Z"), advisory("locust", RANGE))
    assert [
        one["affected"][0]["package"]["name"] for one in read_advisories(folder, frozenset({"redis", "locust"}))
    ] == ["locust"]


def test_yaml_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("id: A-2\naffected:\n- package: {ecosystem: PyPI, name: redis}\n")
    (tmp_path / "note.md").write_text("redis")
    assert [one["id"] for one in read_advisories(tmp_path, frozenset({"redis"}))] == ["A-2"]


def test_command_fails_if_a_locked_version_is_affected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = read_lock(LOCK.read_text("utf-8"))["redis"][0].version
    every = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}
    assert main([str(write(tmp_path, advisory("redis", every)))]) == 1
    finding, counts = capsys.readouterr().out.splitlines()
    assert finding == f"redis {version}: A-1, CVE-1; expected another distribution"
    assert counts.endswith("1 advisories up to 2026-01-02, 1 findings")
    assert main([str(write(tmp_path, advisory("redis", RANGE)))]) == 0


def test_command_rejects_a_folder_without_advisories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert advisories.main([str(tmp_path)]) == 2
    assert "expected a folder of OSV files" in capsys.readouterr().err
