"""The rules of ``scripts/check_files.py``: binaries, sizes, addresses and the changelog."""

from __future__ import annotations

import pytest

from scripts.check_files import (
    ROOT,
    SIZE_MAX,
    anchors,
    check_changelog,
    check_content,
    check_links,
    check_named_files,
)


def problems(path: str, content: bytes | str) -> list[str]:
    """Return the problems of a file, without its name."""
    raw = content.encode() if isinstance(content, str) else content
    return [found.problem.partition(":")[0] for found in check_content(path, raw)]


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0", b"\xff\xfe"])
def test_binaries_are_pictures_of_the_documents(content: bytes) -> None:
    assert problems("docs/images/form.png", content) == []
    for path in ("docs/form.png", "docs/images/form.zip", "wheels/tool.whl"):
        assert problems(path, content) == ["is binary; only pictures in docs/images may be"]


def test_large_files_are_found() -> None:
    assert problems("a.txt", "a" * SIZE_MAX) == []
    assert problems("a.txt", "a" * (SIZE_MAX + 1)) != []


@pytest.mark.parametrize("path", ["/ho" + "me/ana/x", "see /wo" + "rk/main", "'/Us" + "ers/ana'", "/ro" + "ot/.cache"])
def test_private_folders_are_found(path: str) -> None:
    assert problems("a.md", f"x\n{path}\n") == ["names a private folder"]


@pytest.mark.parametrize("path", ["docs/home/page.md", "https://example.org/home/page", "/srv/work/x", "$HOME/root/x"])
def test_other_paths_are_fine(path: str) -> None:
    assert problems("a.md", path) == []


@pytest.mark.parametrize(
    "host", ["https://py" + "pi.org/simple", "files.python" + "hosted.org", "regis" + "try.example.org"]
)
def test_registry_hosts_are_found(host: str) -> None:
    assert problems("a.toml", host) == ["names a package registry"]


def test_registry_as_a_word_is_fine() -> None:
    assert problems("a.py", "registry.now_ms = cross_office_registry.next_id()") == []


GOOD = """# Changelog

All notable changes.

## [Unreleased]

### Added

- A rule.

## [0.2.0] - 2026-02-01

### Fixed

- A bug.

## [0.1.0] - 2026-01-01
"""


def test_a_changelog_in_the_known_form_has_no_findings() -> None:
    assert list(check_changelog(GOOD)) == []


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("# Changelog", "# Changes", 1),
        ("[0.2.0] - 2026-02-01", "0.2.0 (2026)", 11),
        ("[0.2.0] - 2026-02-01", "[0.2.0]", 11),
        ("[0.2.0]", "[0.0.9]", 17),
        ("### Fixed", "### Repaired", 13),
        ("### Added\n\n", "", 7),
    ],
)
def test_departures_are_found_with_their_line(old: str, new: str, line: int) -> None:
    assert [found.line for found in check_changelog(GOOD.replace(old, new))] == [line]


def test_files_that_pages_name_exist() -> None:
    files = {
        ROOT / "src/quota_engine/domain": "",
        ROOT / "src/quota_engine/domain/ledger.py": "class Ledger: ...",
        ROOT / "docs/rooms/make.py": "",
    }
    text = (
        "`domain/ledger.py::Ledger` `domain/ledger.py::Gone` `domain/gone.py` `src/gone.py::Test` `rooms/make.py` "
        "`example/a.py` `gone.py` domain/x.py"
    )
    found = check_named_files("docs/a.md", text, files.get)
    assert [one.problem.split(": ", 1)[1] for one in found] == [
        "domain/ledger.py::Gone",
        "domain/gone.py",
        "src/gone.py",
    ]


def test_headings_have_fragments() -> None:
    text = "# A page\n## What's `new`?\n```\n# no heading\n```\n## Twice\n## Twice\n## See [this](a.md)\n"
    assert anchors(text) == {"a-page", "whats-new", "twice", "twice-1", "see-this"}


def test_links_that_lead_nowhere_are_found() -> None:
    files = {ROOT / "docs/b.md": "# There\n", ROOT / "docs/images/c.png": ""}
    text = (
        "# Here\n[1](#here) [2](#gone) [3](b.md) [4](b.md#there) [5](b.md#gone) [6](d.md)\n"
        '[7](https://example.org/#x) ![8](images/c.png) <img src="images/d.png"> `[9](e.md)`\n'
    )
    found = check_links("docs/a.md", text, files.get)
    assert [one.problem.split(": ")[1] for one in found] == ["#gone", "b.md#gone", "d.md", "images/d.png"]
