"""Compare the locked distributions with a local copy of a database of advisories.

The database is a folder of OSV files, in YAML or JSON, such as a clone of the advisory database of the Python
Packaging Authority. The comparison needs no network::

    make advisories ADVISORIES=../advisory-database/vulns

Every finding is one line: the distribution with its version, the advisory with its aliases, and the first version
without the flaw. The exit code is 1 if there are findings, and 2 if the folder has no advisory.
"""

from __future__ import annotations

__all__ = ["affects", "find_affected", "main", "read_advisories"]

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from scripts.sbom import LOCK, read_lock

_ECOSYSTEM: Final = "PyPI"
_SUFFIXES: Final = (".json", ".yaml", ".yml")


def read_advisories(folder: Path, names: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Yield the advisories of a folder on one of some distributions. Withdrawn ones are left out.

    Args:
        folder: A folder of OSV files, with any folders in it.
        names: Canonical names of distributions.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted(folder.rglob("*")):
        if path.suffix not in _SUFFIXES or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        if not any(name in canonicalize_name(text) for name in names):
            continue  # Most advisories are of this kind, and to parse them takes most of the time.
        advisory = json.loads(text) if path.suffix == ".json" else yaml.load(text, loader)  # noqa: S506
        if isinstance(advisory, dict) and "affected" in advisory and not advisory.get("withdrawn"):
            yield advisory


def affects(affected: Mapping[str, Any], version: str) -> bool:
    """Return True if an entry of ``affected`` covers a version: by its list of versions, or by a range.

    Args:
        affected: An entry as the OSV schema 1.6 defines it. Ranges of commits are left out.
        version: A version as the lock file has it.
    """
    if version in affected.get("versions", ()):
        return True
    wanted = Version(version)
    for spread in affected.get("ranges", ()):
        if spread.get("type") not in ("ECOSYSTEM", "SEMVER"):
            continue
        is_inside = False
        for event in spread.get("events", ()):
            ((kind, text),) = event.items()
            try:
                at = Version(text)
            except InvalidVersion:
                continue
            if kind == "introduced" and wanted >= at:
                is_inside = True
            elif (kind == "fixed" and wanted >= at) or (kind == "last_affected" and wanted > at):
                is_inside = False
        if is_inside:
            return True
    return False


def find_affected(advisories: Iterator[dict[str, Any]], pins: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield a line for each advisory and locked version that it affects.

    Args:
        advisories: OSV documents.
        pins: Locked versions by canonical name.
    """
    for advisory in advisories:
        for affected in advisory["affected"]:
            package = affected.get("package", {})
            name = canonicalize_name(str(package.get("name", "")))
            if package.get("ecosystem") != _ECOSYSTEM:
                continue
            for version in pins.get(name, ()):
                if affects(affected, version):
                    aliases = ", ".join([advisory["id"], *advisory.get("aliases", ())])
                    events = [event for one in affected.get("ranges", ()) for event in one.get("events", ())]
                    fixed = [event["fixed"] for event in events if "fixed" in event and "." in event["fixed"]]
                    yield f"{name} {version}: {aliases}; expected {' or '.join(fixed) or 'another distribution'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and print the findings. Return the exit code."""
    parser = argparse.ArgumentParser(description="Compare the lock file with a folder of OSV advisories.")
    parser.add_argument("folder", type=Path, help="the folder of OSV files, in YAML or JSON")
    folder: Path = parser.parse_args(arguments).folder
    pins = {name: [pin.version for pin in locked] for name, locked in read_lock(LOCK.read_text("utf-8")).items()}
    advisories = list(read_advisories(folder, frozenset(pins)))
    if not advisories:
        sys.stderr.write(f"{folder}: no advisory on a locked distribution; expected a folder of OSV files\n")
        return 2
    findings = sorted(set(find_affected(iter(advisories), pins)))
    sys.stdout.writelines(f"{one}\n" for one in findings)
    newest = max(str(one.get("published", ""))[:10] for one in advisories)
    counts = f"{len(pins)} distributions, {len(advisories)} advisories up to {newest}, {len(findings)} findings"
    sys.stdout.write(f"{LOCK.name}: {counts}\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
