"""Write a bill of materials of the locked distributions, and check it.

The file is CycloneDX JSON. It lists each distribution of ``requirements-dev.txt`` with its version, hashes, licenses
and dependencies. The scope of a component is ``required`` if the library itself needs it, ``optional`` if an extra
does, and ``excluded`` if only tests and tools use it. The file has no time and no random number, so that two runs on
the same lock file write the same bytes.

Every finding is one line. The exit code is 1 if there are findings:

- a distribution of the library or of an extra is not in the lock file, or is installed in another version;
- a locked distribution has no hash;
- the license of an installed distribution of the library or of an extra is unknown.

The check needs no network, so it reads no database of advisories.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parent.parent
LOCK: Final = ROOT / "requirements-dev.txt"
SELF: Final = "quota-engine"
_PIN: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)")
_HASH: Final = re.compile(r"--hash=sha256:(?P<digest>[0-9a-f]{64})")
_LICENSE_FIELD_MAX: Final = 60
"""A longer license field of old metadata is the text of the license, not its name."""
LICENSES: Final[Mapping[str, str]] = {}
"""Licenses of distributions whose metadata has none, each read in its source."""


@dataclass
class Pin:
    """One line of the lock file: a version of a distribution, and the hashes of its files."""

    version: str
    hashes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Installed:
    """The metadata of an installed distribution."""

    version: str
    license: str
    requires: tuple[str, ...]


def read_lock(text: str) -> dict[str, list[Pin]]:
    """Return the pins of a lock file by canonical name. A name may have several, for several versions of Python."""
    pins: dict[str, list[Pin]] = {}
    pin: Pin | None = None
    for line in text.splitlines():
        if match := _PIN.match(line):
            pin = Pin(match["version"])
            pins.setdefault(canonicalize_name(match["name"]), []).append(pin)
        elif (found := _HASH.search(line)) and pin is not None:
            pin.hashes.append(found["digest"])
    return pins


def license_of(metadata: Any, classifiers: Sequence[str]) -> str:
    """Return the license that metadata names: an SPDX expression, a short license field or classifiers; else ``""``."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    short = str(metadata.get("License") or "").strip()
    if short and "\n" not in short and len(short) <= _LICENSE_FIELD_MAX:
        return short
    names = [one.rpartition(" :: ")[2] for one in classifiers if one.startswith("License ::")]
    return " OR ".join(names)


def find_installed(name: str) -> Installed | None:
    """Return the metadata of an installed distribution, or ``None``."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    classifiers = found.metadata.get_all("Classifier") or []
    named = license_of(found.metadata, classifiers) or LICENSES.get(canonicalize_name(name), "")
    return Installed(found.version, named, tuple(found.requires or ()))


def required_names(requirements: Sequence[str], installed: Callable[[str], Installed | None]) -> dict[str, set[str]]:
    """Return the distributions that requirements need on this machine, each with the names that it needs itself.

    Markers and extras are followed. A distribution that is not installed needs nothing.
    """
    edges: dict[str, set[str]] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(SELF, Requirement(text), "") for text in requirements]
    while queue:
        source, requirement, extra = queue.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name == SELF:
            continue
        edges.setdefault(source, set()).add(name)
        edges.setdefault(name, set())
        found = installed(name)
        for wanted in ("", *requirement.extras):
            if found is not None and (name, wanted) not in seen:
                seen.add((name, wanted))
                queue.extend((name, Requirement(text), wanted) for text in found.requires)
    return edges


def find_problems(
    names: Sequence[str], pins: Mapping[str, list[Pin]], installed: Callable[[str], Installed | None]
) -> Iterator[str]:
    """Yield the problems of the lock file and of the distributions in ``names``, which users of the library install."""
    for name, locked in sorted(pins.items()):
        yield from (f"{name} {pin.version}: the lock file has no hash of it" for pin in locked if not pin.hashes)
    for name in names:
        found = installed(name)
        if name not in pins:
            yield f"{name}: not in the lock file; run make lock"
        elif found is None:
            yield f"{name}: not installed; remove the virtual environment and run make check"
        elif found.version not in {pin.version for pin in pins[name]}:
            yield f"{name}: {found.version} is installed, but the lock file has {pins[name][0].version}"
        if found is not None and not found.license:
            yield f"{name}: its license is unknown; read it in its source and add it to LICENSES in scripts/sbom.py"


def bill_of_materials(
    version: str,
    pins: Mapping[str, list[Pin]],
    scopes: Mapping[str, str],
    edges: Mapping[str, set[str]],
    installed: Callable[[str], Installed | None],
) -> dict[str, Any]:
    """Return the CycloneDX document.

    Args:
        version: version of the library.
        pins: pins of the lock file.
        scopes: ``required`` or ``optional`` by name; all others are ``excluded``.
        edges: names that each distribution needs.
        installed: returns metadata by name.
    """
    components, references = [], {SELF: f"pkg:pypi/{SELF}@{version}"}
    for name, locked in sorted(pins.items()):
        found = installed(name)
        for pin in locked:
            purl = f"pkg:pypi/{name}@{pin.version}"
            component: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": pin.version}
            component |= {"scope": scopes.get(name, "excluded"), "purl": purl}
            if found is not None and found.version == pin.version:
                references[name] = purl
                if found.license:
                    component["licenses"] = [{"license": {"name": found.license}}]
            # A pin has one hash for each of the distribution's files; CycloneDX has no place for files without address.
            component["properties"] = [{"name": "quota-engine:file:sha256", "value": one} for one in pin.hashes]
            components.append(component)
    dependencies = [
        {"ref": references[name], "dependsOn": sorted(references[one] for one in edges[name] if one in references)}
        for name in sorted(edges)
        if name in references
    ]
    own = {"type": "library", "bom-ref": references[SELF], "name": SELF, "version": version, "purl": references[SELF]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own},
        "components": components,
        "dependencies": dependencies,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the bill of materials and print the findings. Return the exit code."""
    parser = argparse.ArgumentParser(description="Write a CycloneDX bill of materials of the lock file, and check it.")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "sbom.json", help="the file to write")
    output: Path = parser.parse_args(arguments).output
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = read_lock(LOCK.read_text(encoding="utf-8"))
    base = required_names(project["dependencies"], find_installed)
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    edges = required_names([*project["dependencies"], *extras], find_installed)
    names = sorted(set(edges) - {SELF})
    scopes = {name: "required" if name in base else "optional" for name in names}
    document = bill_of_materials(project["version"], pins, scopes, edges, find_installed)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    problems = list(find_problems(names, pins, find_installed))
    sys.stdout.writelines(f"{one}\n" for one in problems)
    counts = f"{len(document['components'])} components, {len(names)} of them for users of the library"
    sys.stdout.write(f"{output.name}: {counts}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
