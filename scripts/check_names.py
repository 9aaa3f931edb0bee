"""Check that retired names stay retired, and that no public class name has two meanings.

``retired_names.toml`` lists the retired names with their replacements. Every finding is one line,
``file:line: name: message``. The exit code is 1 if there are findings.

The library's sources are parsed: classes, functions, parameters, fields, members of enumerations and modules. Names
that are unambiguous as words are searched for in all tracked texts as well: sources, tests, documents, Lua, templates.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
RETIRED_FILE: Final = Path(__file__).resolve().parent / "retired_names.toml"
PACKAGE: Final = "src/quota_engine/"
TEXT_SUFFIXES: Final = (".py", ".md", ".lua", ".html", ".js", ".php", ".toml", ".yml", ".sh")
TEXTS_EXEMPT: Final = ("CHANGELOG.md", "scripts/", "tests/scripts/")
"""The changelog names what was renamed, and these checks name what they look for."""
DUPLICATES_EXEMPT: Final = PACKAGE + "conformance/"
"""The conformance suite has separate models of the same things."""


class Table(StrEnum):
    """Tables of ``retired_names.toml``, which says what each is for."""

    WORDS = "words"
    CLASSES = "classes"
    FUNCTIONS = "functions"
    PARAMETERS = "parameters"
    FIELDS = "fields"
    MEMBERS = "members"
    PATHS = "paths"


@dataclass(frozen=True)
class Finding:
    """A retired name in use, or a class name with two meanings."""

    path: str
    line: int
    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name}: {self.message}"


@dataclass(frozen=True)
class Definition:
    """A name that a module defines."""

    table: Table
    path: str
    line: int
    owner: str
    """Class of a member, function of a parameter (``Class.method``), or empty."""
    name: str

    @property
    def is_public(self) -> bool:
        """True if neither the name nor its owner has a leading underscore."""
        return not any(part.startswith("_") and part != "__init__" for part in (*self.owner.split("."), self.name))


def definitions(path: str, text: str) -> Iterator[Definition]:
    """Yield the names that a module defines: classes, functions, parameters, fields and members."""
    yield from _of_body(path, ast.parse(text).body, "", in_function=False)


def _of_body(path: str, body: Sequence[ast.stmt], owner: str, *, in_function: bool) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield Definition(Table.CLASSES, path, node.lineno, owner, node.name)
            yield from _of_body(path, node.body, f"{owner}.{node.name}".lstrip("."), in_function=False)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Definition(Table.FUNCTIONS, path, node.lineno, owner, node.name)
            qualified = f"{owner}.{node.name}".lstrip(".")
            arguments = node.args
            for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                yield Definition(Table.PARAMETERS, path, one.lineno, qualified, one.arg)
            yield from _of_body(path, node.body, qualified, in_function=True)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not in_function:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        yield Definition(Table.FIELDS, path, name.lineno, owner, name.id)
        else:
            for inner in ("body", "orelse", "finalbody"):
                yield from _of_body(path, getattr(node, inner, []), owner, in_function=in_function)


class RetiredNames:
    """The retired names, by table, with their replacements."""

    def __init__(self, tables: Mapping[str, Mapping[str, str]]) -> None:
        unknown = set(tables) - {table.value for table in Table}
        if unknown:
            raise ValueError(f"{RETIRED_FILE.name} has unknown tables: {', '.join(sorted(unknown))}")
        self._tables = {table: dict(tables.get(table, {})) for table in Table}
        self._dotted = re.compile(
            "|".join(
                [rf"\b{re.escape(name)}\b" for name in self._tables[Table.MEMBERS]]
                + [
                    rf"\bquota_engine[./]{re.escape(_module(name)).replace('/', '[./]')}\b(?!\.md)"
                    for name in self._tables[Table.PATHS]
                    if name.startswith(PACKAGE)
                ]
            )
            or r"(?!)"
        )

    @classmethod
    def load(cls, path: Path = RETIRED_FILE) -> RetiredNames:
        """Read the names from a TOML file."""
        with path.open("rb") as file:
            return cls(tomllib.load(file))

    def in_definitions(self, found: Iterable[Definition]) -> Iterator[Finding]:
        """Report definitions whose names are retired. Private names are free."""
        for one in found:
            for key in _keys(one) if one.is_public else ():
                if (new := self._tables[one.table].get(key)) is not None:
                    yield Finding(one.path, one.line, key, f"retired; use {new}")
                    break
            member = f"{one.owner}.{one.name}"
            if one.table is Table.FIELDS and (new := self._tables[Table.MEMBERS].get(member)) is not None:
                yield Finding(one.path, one.line, member, f"retired; use {new}")

    def in_text(self, path: str, text: str) -> Iterator[Finding]:
        """Report retired words, members and modules in a text."""
        words = self._tables[Table.WORDS]
        has_words = not words.keys().isdisjoint(_IDENTIFIER.findall(text))
        if not has_words and not self._dotted.search(text):
            return
        for number, row in enumerate(text.splitlines(), 1):
            for match in _IDENTIFIER.finditer(row):
                if (new := words.get(match.group())) is not None:
                    yield Finding(path, number, match.group(), f"retired; use {new}")
            for match in self._dotted.finditer(row):
                yield Finding(path, number, match.group(), f"retired; use {self._replacement(match.group())}")

    def in_paths(self, paths: Sequence[str]) -> Iterator[Finding]:
        """Report tracked files at retired paths."""
        for old, new in self._tables[Table.PATHS].items():
            for path in paths:
                if path == old or path.startswith(old + "/"):
                    yield Finding(path, 1, old, f"retired; use {new}")
                    break

    def _replacement(self, name: str) -> str:
        if (new := self._tables[Table.MEMBERS].get(name)) is not None:
            return new
        path = "src/" + name.replace(".", "/")
        return next(self._tables[Table.PATHS][key] for key in (path + ".py", path) if key in self._tables[Table.PATHS])


_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


def _module(path: str) -> str:
    return path.removeprefix(PACKAGE).removesuffix(".py")


def _keys(definition: Definition) -> Iterator[str]:
    """Yield the keys under which a definition can be retired, the most specific first.

    For ``key`` of ``QuotaEngine.reserve`` in ``engine/quota_engine.py`` the keys are ``QuotaEngine.reserve.key``,
    ``QuotaEngine.key`` (any method), ``engine/quota_engine:key``, ``engine:key`` (any module there) and ``key``.
    """
    owner, name = definition.owner, definition.name
    while owner:
        yield f"{owner}.{name}"
        owner = owner.rpartition(".")[0]
    folder = _module(definition.path)
    while folder:
        yield f"{folder}:{name}"
        folder = folder.rpartition("/")[0]
    yield name


def duplicate_classes(found: Iterable[Definition]) -> Iterator[Finding]:
    """Report public classes of one name in two modules. Private names and the conformance suite are free."""
    by_name: dict[str, list[Definition]] = defaultdict(list)
    for one in found:
        if (
            one.table is Table.CLASSES
            and one.is_public
            and not one.owner
            and not one.path.startswith(DUPLICATES_EXEMPT)
        ):
            by_name[one.name].append(one)
    for name, several in sorted(by_name.items()):
        paths = sorted({one.path for one in several})
        if len(paths) > 1:
            others = ", ".join(path.removeprefix(PACKAGE) for path in paths[1:])
            yield Finding(several[0].path, several[0].line, name, f"also defined in {others}")


def tracked_files() -> list[str]:
    """Return all tracked files that exist, relative to the root of the repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def check(paths: Sequence[str], retired: RetiredNames) -> list[Finding]:
    """Return all findings in the tracked files at these paths."""
    found: list[Definition] = []
    findings = list(retired.in_paths(paths))
    for path in paths:
        if not path.endswith(TEXT_SUFFIXES) or path.startswith(TEXTS_EXEMPT):
            continue
        text = (ROOT / path).read_text(encoding="utf-8")
        findings.extend(retired.in_text(path, text))
        if path.startswith(PACKAGE) and path.endswith(".py"):
            found.extend(definitions(path, text))
    findings.extend(retired.in_definitions(found))
    findings.extend(duplicate_classes(found))
    return sorted(findings, key=lambda finding: (finding.path, finding.line))


def main(arguments: Sequence[str] | None = None) -> int:
    """Check all tracked files and print the findings. Return the exit code."""
    parser = argparse.ArgumentParser(description="Check for retired names and for class names with two meanings.")
    parser.parse_args(arguments)
    findings = check(tracked_files(), RetiredNames.load())
    sys.stdout.writelines(f"{finding}\n" for finding in findings)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
