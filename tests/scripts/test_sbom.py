"""The bill of materials of ``scripts/sbom.py``, and the problems that it finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import sbom
from scripts.sbom import Installed, Pin, find_problems, license_of, main, read_lock, required_names

WORLD = {
    "alpha": Installed("1.0", "MIT", ("beta[fast]>=1", "gamma; extra == 'more'", "delta; sys_platform == 'none'")),
    "beta": Installed("2.0", "BSD-3-Clause", ("epsilon; extra == 'fast'", "alpha")),
    "epsilon": Installed("3.0", "", ()),
}


def test_lock_file_is_read_with_all_hashes_and_versions() -> None:
    lines = [
        "Some.Name==1.0 ; python_full_version < '3.12' \\",
        f"    --hash=sha256:{'a' * 64} \\",
        f"    --hash=sha256:{'b' * 64}",
        "    # via other",
        "some-name==2.0 ; python_full_version >= '3.12' \\",
        f"    --hash=sha256:{'c' * 64}",
        "other==1",
    ]
    assert read_lock("\n".join(lines)) == {
        "some-name": [Pin("1.0", ["a" * 64, "b" * 64]), Pin("2.0", ["c" * 64])],
        "other": [Pin("1")],
    }


def test_extras_and_markers_are_followed() -> None:
    assert required_names(["alpha"], WORLD.get) == {
        "quota-engine": {"alpha"},
        "alpha": {"beta"},
        "beta": {"alpha", "epsilon"},
        "epsilon": set(),
    }
    assert "gamma" in required_names(["alpha[more]"], WORLD.get)


@pytest.mark.parametrize(
    ("metadata", "classifiers", "expected"),
    [
        ({"License-Expression": "MIT"}, [], "MIT"),
        ({"License": "Apache-2.0"}, [], "Apache-2.0"),
        ({"License": "x" * 61}, ["License :: OSI Approved :: MIT License"], "MIT License"),
        ({"License": "MIT\n\nPermission is granted"}, [], ""),
        ({}, ["Topic :: Database"], ""),
    ],
)
def test_license_is_read_from_each_kind_of_metadata(
    metadata: dict[str, str], classifiers: list[str], expected: str
) -> None:
    assert license_of(metadata, classifiers) == expected


def test_missing_pins_hashes_and_licenses_are_found() -> None:
    pins = {"alpha": [Pin("1.0", ["a" * 64])], "beta": [Pin("1.9", ["b" * 64])], "epsilon": [Pin("3.0")]}
    found = [one.partition(";")[0] for one in find_problems(["alpha", "beta", "epsilon", "zeta"], pins, WORLD.get)]
    assert found == [
        "epsilon 3.0: the lock file has no hash of it",
        "beta: 2.0 is installed, but the lock file has 1.9",
        "epsilon: its license is unknown",
        "zeta: not in the lock file",
    ]


@pytest.mark.slow
def test_this_project_has_a_complete_and_repeatable_bill(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert main(["--output", str(first)]) == main(["--output", str(second)]) == 0
    assert first.read_bytes() == second.read_bytes()
    document = json.loads(first.read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    components = {one["bom-ref"]: one for one in document["components"]}
    assert len(components) == len(document["components"]) > 100
    scopes = {one["name"]: one["scope"] for one in components.values()}
    assert (scopes["msgspec"], scopes["redis"], scopes["ruff"]) == ("required", "optional", "excluded")
    assert all(one["licenses"] for one in components.values() if one["scope"] == "required")
    known = {*components, document["metadata"]["component"]["bom-ref"]}
    for one in document["dependencies"]:
        assert {one["ref"], *one["dependsOn"]} <= known


@pytest.mark.slow
def test_finding_makes_the_command_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("msgspec==0.0.1\n")
    monkeypatch.setattr(sbom, "LOCK", lock)
    assert main(["--output", str(tmp_path / "sbom.json")]) == 1
    assert "msgspec 0.0.1: the lock file has no hash of it" in capsys.readouterr().out
