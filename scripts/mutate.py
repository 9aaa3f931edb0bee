"""Change the rules at random places, and run the tests of their package: mutation testing by sample.

cosmic-ray makes the mutants. A seed draws some of them. Each is planted in a copy of the sources, and the tests of its
package run until one fails. The page ``docs/mutants.md`` lists those that no test has noticed::

    make mutate MUTATE_ARGUMENTS='--mutants 150 --seed 1'

The whole set has thousands of mutants, and a mutant takes seconds, so cosmic-ray's own run of all would take a day.
"""

from __future__ import annotations

__all__ = ["Mutant", "Result", "is_excluded", "main", "mutants_of", "page_of", "sample"]

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = "src/quota_engine"
PAGE: Final = ROOT / "docs" / "mutants.md"
PACKAGES: Final = ("domain", "admission", "waiting_room", "draws")
_TIMEOUT_S: Final = 240
_WITHOUT_SERVERS: Final = "not store and not browser"
_PLUGINS: Final = ("pytest_asyncio.plugin", "_hypothesis_pytestplugin", "quota_engine.conformance.plugin")
"""Those that the tests of these packages use. To load all that are installed takes longer than most tests."""
_SAME_MEANING: Final = (("Eq", "Is"), ("NotEq", "IsNot"), ("Is", "Eq"), ("IsNot", "NotEq"))
"""Comparisons that mean the same for ``None``, members of enumerations and small integers."""


class Mutant(NamedTuple):
    """A change of one place.

    Attributes:
        path: the file, below the package.
        operator: cosmic-ray's name of the kind of change.
        occurrence: its number among the places of that kind in the file.
        line: the line.
        definition: the function or class; ``""`` outside of all.
    """

    path: str
    operator: str
    occurrence: int
    line: int
    definition: str


class Result(NamedTuple):
    """The answer of the tests of a mutant's package.

    Attributes:
        mutant: the mutant.
        outcome: ``killed``, ``survived`` or ``timeout``; a timeout does not count as killed.
        change: the line before and after the change.
    """

    mutant: Mutant
    outcome: str
    change: str


def is_excluded(text: str) -> Callable[[tuple[int, int]], bool]:
    """Return a function that returns True for a line and column on which no behavior depends.

    Such are annotations, which are never evaluated, and the options of a class, such as ``gc=False``.
    """
    ranges = []
    for node in ast.walk(ast.parse(text)):
        parts: list[ast.expr | None] = []
        if isinstance(node, ast.AnnAssign | ast.arg):
            parts.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            parts.append(node.returns)
        elif isinstance(node, ast.ClassDef):
            parts += [one.value for one in node.keywords]
        ranges += [
            ((one.lineno, one.col_offset), (one.end_lineno or one.lineno, one.end_col_offset or one.col_offset))
            for one in parts
            if one is not None
        ]
    return lambda place: any(start <= place < end for start, end in ranges)


def _operators() -> Iterator[tuple[str, Any]]:
    from cosmic_ray import plugins  # type: ignore[import-not-found]

    for name in sorted(plugins.operator_names()):
        operator = plugins.get_operator(name)
        if not operator.arguments() and not name.endswith(tuple(f"Operator_{a}_{b}" for a, b in _SAME_MEANING)):
            yield name, operator()


def mutants_of(path: str) -> list[Mutant]:
    """Return all mutants of a file below the package."""
    from cosmic_ray.ast import ast_nodes, get_ast  # type: ignore[import-not-found]
    from cosmic_ray.ast.ast_query import ASTQuery  # type: ignore[import-not-found]

    text = (ROOT / PACKAGE / path).read_text(encoding="utf-8")
    tree, skips = get_ast(text), is_excluded(text)
    found = []
    for name, operator in _operators():
        places = ((node, start) for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node))
        for occurrence, (node, place) in enumerate(places):
            if not skips(place):
                found.append(Mutant(path, name, occurrence, place[0], ASTQuery(node).get_definition_name() or ""))
    return found


def sample(count: int, seed: int, packages: Sequence[str] = PACKAGES) -> tuple[list[Mutant], int]:
    """Draw mutants; returns them with the number of those there are.

    A place has up to a dozen mutants of similar kinds, so the draw takes a line first, and then one of its mutants.
    """
    lines: dict[tuple[str, int], list[Mutant]] = {}
    total = 0
    for package in packages:
        for file in sorted((ROOT / PACKAGE / package).rglob("*.py")):
            for mutant in mutants_of(str(file.relative_to(ROOT / PACKAGE))):
                lines.setdefault((mutant.path, mutant.line), []).append(mutant)
                total += 1
    rng = random.Random(seed)
    chosen = rng.sample(sorted(lines), min(count, len(lines)))
    return [rng.choice(lines[one]) for one in chosen], total


def _mutated(mutant: Mutant) -> tuple[str, str]:
    """Return the text of the mutant's file, and the change of its line."""
    from cosmic_ray.mutating import mutate_code  # type: ignore[import-not-found]
    from cosmic_ray.plugins import get_operator  # type: ignore[import-not-found]

    before = (ROOT / PACKAGE / mutant.path).read_text(encoding="utf-8")
    after = mutate_code(before, get_operator(mutant.operator)(), mutant.occurrence)
    changed = [
        line
        for line in difflib.unified_diff(before.splitlines(), (after or before).splitlines(), n=0, lineterm="")
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    removed, added = (" ".join(one[1:].strip() for one in changed if one[0] == sign) for sign in "-+")
    return after or before, f"`{removed}` → `{added}`"


class _Copy:
    """A copy of the sources, in which one mutant is planted at a time."""

    def __init__(self, folder: Path, *, only_fast: bool = False) -> None:
        self._folder = folder
        self._only_fast = only_fast
        shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "PYTHONHASHSEED": "0",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        subprocess.run(  # noqa: S603
            [sys.executable, "-m", "compileall", "-q", str(folder / PACKAGE)], env=self._environment, check=True
        )
        time.sleep(1.1)  # a compiled file is known by the second of its source
        self._environment["PYTHONDONTWRITEBYTECODE"] = "1"

    def run(self, mutant: Mutant) -> Result:
        """Run the tests of the mutant's package: those of its module first, and the slow ones last."""
        text, change = _mutated(mutant)
        package, _, module = mutant.path.partition("/")
        own, all_tests = ROOT / "tests" / package / f"test_{Path(module).stem}.py", ROOT / "tests" / package
        runs = [(one, f"not slow and {_WITHOUT_SERVERS}") for one in (own, all_tests) if one.exists()]
        if not self._only_fast:
            runs.append((all_tests, f"slow and {_WITHOUT_SERVERS}"))
        path = self._folder / PACKAGE / mutant.path
        path.write_text(text, encoding="utf-8")
        try:
            for tests, marker in runs:
                outcome = self._test(tests, marker)
                if outcome != "survived":
                    return Result(mutant, outcome, change)
            return Result(mutant, "survived", change)
        finally:
            shutil.copyfile(ROOT / PACKAGE / mutant.path, path)

    def _test(self, tests: Path, marker: str) -> str:
        plugins = [word for name in _PLUGINS for word in ("-p", name)]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *plugins, "-m", marker]
        try:
            run = subprocess.run(  # noqa: S603
                [*command, str(tests)],
                cwd=ROOT,
                env=self._environment,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "timeout"
        return "survived" if run.returncode in (0, 5) else "killed"  # 5: no test has the marker


def _row_of(result: Result, why: str) -> str:
    mutant = result.mutant
    change = result.change.replace("|", "\\|")
    return f"| `{mutant.path}` | {mutant.definition or 'module'} | {change} | {why} |"


def _known_reasons() -> dict[str, str]:
    """Return the reasons that the page has, by the cells before them."""
    rows = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    return {row.rpartition(" | ")[0]: row.rpartition(" | ")[2].removesuffix(" |") for row in rows if row[:3] == "| `"}


def page_of(
    results: Sequence[Result], seed: int, total: int, reasons: dict[str, str], *, only_fast: bool = False
) -> str:
    """Return the page with the results of a sample, with the reasons that are known."""
    lines = [
        "# Mutants",
        "",
        "This page shows how well the tests notice small changes of the rules.",
        "It is for engineers who change a rule or its tests.",
        f"The sample has {len(results)} of {total:,} mutants, drawn with the seed {seed}.",
        "`make mutate` makes this page; the reasons of the last column are written by hand, and kept.",
        f"Each mutant ran with the {'fast ' if only_fast else ''}tests of its package only, without servers.",
        "Annotations and options of classes are left out, because no behavior depends on them.",
        "",
        "| package | mutants | killed | share |",
        "| --- | --- | --- | --- |",
    ]
    counts: Counter[str] = Counter(one.mutant.path.partition("/")[0] for one in results)
    lived: Counter[str] = Counter(one.mutant.path.partition("/")[0] for one in results if one.outcome != "killed")
    for name in (*sorted(counts), "all"):
        count, survivors = (len(results), lived.total()) if name == "all" else (counts[name], lived[name])
        lines.append(f"| {name} | {count} | {count - survivors} | {100 * (count - survivors) / max(count, 1):.0f} % |")
    lines += ["", "## Survivors", "", "| file | function | change | reason |", "| --- | --- | --- | --- |"]
    for result in results:
        if result.outcome != "killed":
            row = _row_of(result, "")
            lines.append(_row_of(result, reasons.get(row.rpartition(" | ")[0], "not read yet")))
    return "\n".join(lines) + "\n"


class _Kept:
    """The results of earlier runs in a file. A run can continue an earlier one, or try its survivors again."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
        self._killed = {(*key, change) for *key, outcome, change in map(json.loads, lines) if outcome == "killed"}

    def find(self, mutant: Mutant) -> Result | None:
        """Return the result of a mutant that was killed; its line must still be the same."""
        change = _mutated(mutant)[1]
        is_killed = (mutant.path, mutant.operator, mutant.definition, change) in self._killed
        return Result(mutant, "killed", change) if is_killed else None

    def add(self, result: Result) -> None:
        """Keep a result."""
        if self._path is not None:
            mutant = result.mutant
            row = [mutant.path, mutant.operator, mutant.definition, result.outcome, result.change]
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sample, and write the page. Returns 1 if less than 92 percent are killed."""
    parser = argparse.ArgumentParser(prog="python -m scripts.mutate", description="Mutation testing by sample.")
    parser.add_argument("--mutants", type=int, default=150, help="size of the sample")
    parser.add_argument("--seed", type=int, default=1, help="decides which mutants are drawn")
    parser.add_argument("--package", choices=PACKAGES, help="only this package; the page is not written")
    parser.add_argument("--minutes", type=float, default=0, help="end after this time; 0 for no end")
    parser.add_argument("--only-fast", action="store_true", help="leave out the slow tests, which kill a few more")
    parser.add_argument("--keep", type=Path, help="a file for the results: mutants that it names as killed do not run")
    options = parser.parse_args(arguments)
    kept = _Kept(options.keep)
    chosen, total = sample(options.mutants, options.seed, (options.package,) if options.package else PACKAGES)
    began_s, results = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name:
        copy = _Copy(Path(name), only_fast=options.only_fast)
        for number, mutant in enumerate(chosen, 1):
            if options.minutes and time.monotonic() - began_s > 60 * options.minutes:
                break
            result = kept.find(mutant)
            if result is None:
                result = copy.run(mutant)
                kept.add(result)
            results.append(result)
            place = f"{mutant.path}:{mutant.line}"
            sys.stdout.write(f"{number}: {result.outcome}: {place} {mutant.definition}: {result.change}\n")
            sys.stdout.flush()
    survivors = sum(one.outcome != "killed" for one in results)
    sys.stdout.write(f"{len(results)} of {total} mutants, {survivors} survivors\n")
    if not options.package:
        page = page_of(results, options.seed, total, _known_reasons(), only_fast=options.only_fast)
        PAGE.write_text(page, encoding="utf-8")
    return 1 if survivors > 0.08 * len(results) else 0


if __name__ == "__main__":
    sys.exit(main())
