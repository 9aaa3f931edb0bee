"""Bugs that are planted to prove that the simulation finds such bugs. They exist in tests only.

A bug is a piece of text in a file of the package, and the text that replaces it (:mod:`tests.fuzz.bugs`). A copy of the
package with the bug runs in a separate process, seed by seed, until a check objects::

    python -m tests.fuzz.planted_bugs                   # every bug, and docs/planted-bugs.md
    python -m tests.fuzz.planted_bugs --from-page       # the same; the seeds of the page come first
    python -m tests.fuzz.planted_bugs --only NAME       # one bug, with what the check says
    python -m tests.fuzz.planted_bugs --section         # no bug: the page's list of faults that were fixed
"""

from __future__ import annotations

__all__ = ["PACKAGE", "ROOT", "SEEDS_MAX", "TABLE", "Finding", "hunt", "plant"]

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.fuzz.bugs import BUGS, Bug
from tests.fuzz.fixed_faults import section_of_fixed_faults

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = "src/quota_engine"
TABLE: Final = ROOT / "docs" / "planted-bugs.md"
SEEDS_MAX: Final = 1000
_RUN: Final = "from tests.fuzz.planted_bugs import search; search({store!r}, {first}, {seeds})"


class Finding(NamedTuple):
    """The result of the search for a bug.

    Attributes:
        seed: the seed; ``None`` if no seed showed the bug.
        check: the check that objected.
        text: its sentence.
    """

    seed: int | None
    check: str
    text: str


def plant(bug: Bug, folder: Path) -> None:
    """Plant a bug in a copy of the package.

    Raises:
        ValueError: The text is not there exactly once.
    """
    path = folder / PACKAGE / bug.path
    text = path.read_text(encoding="utf-8")
    if text.count(bug.right) != 1:
        raise ValueError(f"{bug.name}: {bug.path} has the text {text.count(bug.right)} times, not once")
    path.write_text(text.replace(bug.right, bug.wrong), encoding="utf-8")


def hunt(bug: Bug, *, first: int = 0, seeds: int = SEEDS_MAX) -> Finding:
    """Run seeds on a copy of the package with the bug, until a check objects."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        plant(bug, folder)
        environment = {**os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{ROOT}"}
        code = _RUN.format(store=bug.store, first=first, seeds=seeds)
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        return Finding(None, "it did not run", run.stderr.strip().splitlines()[-1] if run.stderr else "")
    return Finding(**json.loads(run.stdout))


def search(store: str, first: int, seeds: int) -> None:
    """Run seeds in this process until a check objects, and print what was found. The package has the bug."""
    from quota_engine.fuzz.runner import run_seed
    from tests.fuzz.oracle_check import OracleCheck

    for seed in range(first, first + seeds):
        try:
            violations = run_seed(seed, store=store, step_check=OracleCheck()).violations
        except Exception as error:  # a run that breaks off has found the bug as well
            violations = (f"the run broke off: {error!r}",)
        if violations:
            sys.stdout.write(json.dumps({"seed": seed, "check": _check_of(violations[0]), "text": violations[0]}))
            return
    sys.stdout.write(json.dumps({"seed": None, "check": "", "text": ""}))


def _check_of(text: str) -> str:
    """Return the name of the check that made a sentence."""
    for part, name in (
        ("the oracle objects", "oracle of the rules"),
        ("and the machine says", "pure machine beside the store"),
        ("the state differs", "state of the pure machine"),
        ("audit:", "audit"),
        ("applied again after", "each call takes effect once"),
        ("visit ", "acknowledged places"),
        ("has the places", "national limit"),
        ("has not ended", "rest after the faults"),
        ("no answer:", "rest after the faults"),
        ("operation ", "unexpected error"),
        ("broke off", "unexpected error"),
    ):
        if part in text:
            return name
    return "history"


def seeds_of_page() -> dict[str, int]:
    """Return the seeds that the page names, by the bug."""
    rows = [[cell.strip() for cell in line.split("|")] for line in TABLE.read_text(encoding="utf-8").splitlines()]
    return {row[1]: int(row[5]) for row in rows if len(row) == 8 and row[5].isdecimal()}


def table_of(findings: dict[str, Finding]) -> str:
    """Return the document with the table of all bugs."""
    lines = [
        "# Planted bugs",
        "",
        "This page shows that the simulation notices bugs.",
        "It is for engineers who change a rule, a store or the simulation.",
        "Each row is a bug that a test plants in a copy of the package, and a seed that shows it.",
        "The second table lists the faults that were found and fixed here, with what shows each of them.",
        "`python -m tests.fuzz.planted_bugs` makes this page ([reliability.md](reliability.md)).",
        "",
        "| bug | part | effect | store | seed | check |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for bug in BUGS:
        found = findings[bug.name]
        seed = "not found" if found.seed is None else str(found.seed)
        lines.append(f"| {bug.name} | {bug.area} | {bug.what} | {bug.store} | {seed} | {found.check} |")
    return "\n".join(lines) + "\n\n" + section_of_fixed_faults()


def main() -> int:
    """Hunt bugs; returns 1 if one of them is not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.planted_bugs", description=__doc__)
    parser.add_argument("--only", help="the name of one bug; the page is not written")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help="the most seeds of a bug")
    parser.add_argument("--from-page", action="store_true", help="run the seed that the page names first")
    parser.add_argument("--section", action="store_true", help="hunt nothing; renew the list of fixed faults")
    options = parser.parse_args()
    if options.section:
        section = section_of_fixed_faults()
        above = TABLE.read_text(encoding="utf-8").partition(section.partition("\n")[0])[0]
        TABLE.write_text(above.rstrip() + "\n\n" + section, encoding="utf-8")
        return 0
    findings: dict[str, Any] = {}
    known = seeds_of_page() if options.from_page else {}
    for bug in BUGS:
        if options.only and options.only not in bug.name:
            continue
        found = hunt(bug, first=known[bug.name], seeds=1) if bug.name in known else Finding(None, "", "")
        if found.seed is None:
            found = hunt(bug, seeds=options.seeds)
        findings[bug.name] = found
        sys.stdout.write(f"{bug.name}: seed {found.seed}, {found.check}: {found.text[:300]}\n")
        sys.stdout.flush()
    if not options.only:
        TABLE.write_text(table_of(findings), encoding="utf-8")
    return 1 if any(found.seed is None for found in findings.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
