"""Check the tracked files of the repository.

Every finding is one line, ``file:line: problem``. The exit code is 1 if there are findings.

- Binary files exist only below ``docs/images``, as pictures.
- No file has more than 1 MB.
- No file names a home folder, a working folder or the host of a package registry.
- A file or test that Markdown names in a code span exists: below the root, the package or the page's folder.
- A relative link in Markdown leads to a file, and its fragment to a heading.
- ``CHANGELOG.md`` has the form of Keep a Changelog.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SIZE_MAX: Final = 1_000_000
PICTURES: Final = re.compile(r"docs/images/[\w./-]+\.(?:png|svg|webp)")
CHANGELOG: Final = "CHANGELOG.md"
_TOP_FOLDERS: Final = ("src", "tests", "docs", "benchmarks", "loadtests", "examples", "scripts")
_NAMED_FILE: Final = re.compile(
    r"`(?P<path>[\w.-]+(?:/[\w.-]+)+\.(?:py|lua|md|toml|html|css|js|json|yml|csv))(?:::(?P<test>[\w:]+))?`"
)


def _joined(pieces: str) -> list[str]:
    """Return the words of a text without its plus signs, so that this file does not contain what it looks for."""
    return pieces.replace("+", "").split()


_REGISTRY_HOSTS: Final = _joined("py+pi.org python+hosted.org npm+js.org npm+js.com crates+.io ana+conda.org")
_REGISTRY_WORDS: Final = _joined("arti+factory ne+xus dev+pi ver+daccio regis+try go+proxy")
_HOMES: Final = _joined("ho+me Us+ers")
_WORK_FOLDERS: Final = _joined("ro+ot wo+rk work+space tmp/q+e tmp/w+t")
REGISTRY_HOST: Final = re.compile(
    rf"\b(?:{'|'.join(map(re.escape, _REGISTRY_HOSTS))})\b"
    rf"|\b(?:{'|'.join(_REGISTRY_WORDS)})\.(?:[\w-]+\.)*(?:com|org|io|net|dev|cloud|internal|local|example|lan)\b"
    rf"|https?://[^\s/\"'<>]*\b(?:{'|'.join(_REGISTRY_WORDS)})\b"
)
PRIVATE_PATH: Final = re.compile(
    rf"(?<![\w.$}}/-])/(?:(?:{'|'.join(_HOMES)})/[a-z][\w-]*|(?:{'|'.join(_WORK_FOLDERS)})/[\w.-]+)"
    rf"|\b[A-Z]:\\{_HOMES[1]}\\"
)


@dataclass(frozen=True)
class Finding:
    """One problem of a file."""

    path: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}"


def check_content(path: str, content: bytes) -> Iterator[Finding]:
    """Report the problems of one file: its size, its kind and the addresses in it."""
    if len(content) > SIZE_MAX:
        yield Finding(path, 1, f"has {len(content):,} bytes; at most {SIZE_MAX:,} are allowed")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    if text is None or "\0" in text:
        if not PICTURES.fullmatch(path):
            yield Finding(path, 1, "is binary; only pictures in docs/images may be")
        return
    for pattern, problem in ((PRIVATE_PATH, "names a private folder"), (REGISTRY_HOST, "names a package registry")):
        for match in pattern.finditer(text):
            yield Finding(path, text.count("\n", 0, match.start()) + 1, f"{problem}: {match.group()}")


def check_named_files(path: str, text: str, read: Callable[[Path], str | None]) -> Iterator[Finding]:
    """Report files and tests that a Markdown page names in a code span and that do not exist.

    Only paths with a folder count, and only if their first folder is one of this repository.

    Args:
        path: the page, relative to the root.
        text: its content.
        read: returns the text of a file, "" for a folder, or ``None`` if it does not exist.
    """
    roots = (ROOT, ROOT / "src" / "quota_engine", (ROOT / path).parent)
    for number, row in enumerate(text.splitlines(), 1):
        for match in _NAMED_FILE.finditer(row):
            name, test = match["path"], match["test"]
            first = name.partition("/")[0]
            if first not in _TOP_FOLDERS and read(roots[1] / first) is None:
                continue
            contents = [content for root in roots if (content := read(root / name)) is not None]
            if not contents:
                yield Finding(path, number, f"names a file that does not exist: {name}")
            elif test and re.search(rf"\b{test.rpartition(':')[2]}\b", contents[0]) is None:
                yield Finding(path, number, f"names a test that does not exist: {name}::{test}")


_LINK: Final = re.compile(r"\]\((?P<target>[^)\s]+)\)|\b(?:src|href)=\"(?P<address>[^\"]+)\"")
_ABSOLUTE: Final = re.compile(r"[a-z][a-z0-9+.-]*:|//|/")
_HEADING: Final = re.compile(r"#{1,6} +(?P<text>.+?)(?: +#+)?")
_FENCE: Final = re.compile(r" {0,3}(?:`{3,}|~{3,})")
_CODE_SPAN: Final = re.compile(r"(`+).*?\1")


def _prose_rows(text: str) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of Markdown outside code fences."""
    is_code = False
    for number, row in enumerate(text.splitlines(), 1):
        if _FENCE.match(row):
            is_code = not is_code
        elif not is_code:
            yield number, row


def anchors(text: str) -> set[str]:
    """Return the fragments that the headings of a Markdown page have on the usual hosts."""
    found: set[str] = set()
    for _, row in _prose_rows(text):
        heading = _HEADING.fullmatch(row)
        if heading is None:
            continue
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading["text"])
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        candidates = (slug, *(f"{slug}-{count}" for count in range(1, 100)))
        found.add(next(one for one in candidates if one not in found))
    return found


def check_links(path: str, text: str, read: Callable[[Path], str | None]) -> Iterator[Finding]:
    """Report relative links of a page that lead nowhere. ``read`` returns a file's text, or ``None`` if it is missing.

    Folders count as existing files. Fragments are checked in Markdown only.
    """
    for number, row in _prose_rows(text):
        for match in _LINK.finditer(_CODE_SPAN.sub("", row)):
            target = match["target"] or match["address"]
            if _ABSOLUTE.match(target):
                continue
            name, _, fragment = target.partition("#")
            linked = text if not name else read(ROOT / Path(path).parent / name)
            if linked is None:
                yield Finding(path, number, f"links to a file that does not exist: {target}")
            elif fragment and (not name or name.endswith(".md")) and fragment not in anchors(linked):
                yield Finding(path, number, f"links to a heading that does not exist: {target}")


def _text_of(path: Path) -> str | None:
    if path.suffix in (".md", ".py") and path.is_file():
        return path.read_text(encoding="utf-8")
    return "" if path.exists() else None


_VERSION = re.compile(r"## \[(?P<name>Unreleased|\d+\.\d+\.\d+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?(?: \[YANKED\])?")
_KINDS: Final = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def check_changelog(text: str) -> Iterator[Finding]:
    """Report where a changelog departs from Keep a Changelog.

    The title is ``# Changelog``. A version is ``## [Unreleased]``, which is the first, or ``## [1.2.3] - 2026-01-31``.
    The newest version is the first. Entries are list items below ``### Added`` and its like.
    """

    def finding(number: int, problem: str) -> Finding:
        return Finding(CHANGELOG, number, problem)

    rows = text.splitlines()
    if not rows or rows[0] != "# Changelog":
        yield finding(1, 'must begin with "# Changelog"')
    versions: list[tuple[int, ...]] = []
    kinds: set[str] | None = None
    kind = ""
    for number, row in enumerate(rows, 1):
        if row.startswith("## "):
            kinds, kind = set(), ""
            match = _VERSION.fullmatch(row)
            if match is None:
                yield finding(number, 'a version must be "## [Unreleased]" or "## [1.2.3] - 2026-01-31"')
                continue
            if (match["name"] == "Unreleased") == bool(match["date"]):
                yield finding(number, "a released version needs its date, and only a released version has one")
            version = (sys.maxsize,) if match["name"] == "Unreleased" else tuple(map(int, match["name"].split(".")))
            if versions and version >= versions[-1]:
                yield finding(number, "the newest version must be the first")
            versions.append(version)
        elif row.startswith("### "):
            kind = row[4:].strip()
            if kind not in _KINDS:
                yield finding(number, f"a section must be one of {', '.join(_KINDS)}")
            elif kinds is None or kind in kinds:
                yield finding(number, "a section must be in a version, once")
            else:
                kinds.add(kind)
        elif row.startswith("- ") and not kind:
            yield finding(number, f"an entry must be in a section: {', '.join(_KINDS)}")
    if not versions:
        yield finding(1, "must have at least one version")


def tracked_files() -> list[str]:
    """Return all tracked files that exist, relative to the root of the repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check all tracked files and print the findings. Return the exit code."""
    parser = argparse.ArgumentParser(description="Check the tracked files: kinds, sizes, addresses, the changelog.")
    parser.parse_args(arguments)
    findings = [found for path in tracked_files() for found in check_content(path, (ROOT / path).read_bytes())]
    for path in tracked_files():
        if path.endswith(".md"):
            text = (ROOT / path).read_text(encoding="utf-8")
            findings.extend(check_links(path, text, _text_of))
            if path != CHANGELOG:
                findings.extend(check_named_files(path, text, _text_of))
    findings.extend(check_changelog((ROOT / CHANGELOG).read_text(encoding="utf-8")))
    sys.stdout.writelines(f"{finding}\n" for finding in findings)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
