"""Draw which package imports which, as a Mermaid diagram: ``python -m scripts.import_graph [PACKAGE]``.

The arrows are read from the source, imports for types included.
An arrow that follows from two others is left out, so that the picture stays readable.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = ROOT / "src"
PACKAGE: Final = "quota_engine"

Graph = Mapping[str, frozenset[str]]
"""Each node with the nodes that it imports."""


def modules(source: Path = SOURCE) -> dict[str, Path]:
    """Return the dotted name and the file of every module below ``source``."""
    names: dict[str, Path] = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def _statements(parts: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Yield these statements and all inside them. Expressions, which are most of a tree, contain no import."""
    for part in parts:
        yield part
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(part, field, None)
            if isinstance(inner, list):
                yield from _statements(inner)


def _targets(node: ast.AST, known: Mapping[str, Path]) -> Iterator[str]:
    """Yield the known modules that one statement imports."""
    if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
        for alias in node.names:
            submodule = f"{node.module}.{alias.name}"
            yield submodule if submodule in known else node.module
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)


def module_imports(source: Path = SOURCE) -> dict[str, frozenset[str]]:
    """Return which modules every module imports, in functions and for types as well."""
    known = modules(source)
    imports: dict[str, frozenset[str]] = {}
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = {target for node in _statements(tree.body) for target in _targets(node, known)}
        imports[name] = frozenset(found & known.keys()) - {name}
    return imports


def children_graph(package: str, imports: Graph) -> dict[str, frozenset[str]]:
    """Return which direct children of ``package`` import which others.

    Args:
        package: the dotted name of a package.
        imports: the imports of all modules, as :func:`module_imports` returns them.
    """
    prefix = f"{package}."

    def child(name: str) -> str | None:
        return name.removeprefix(prefix).partition(".")[0] if name.startswith(prefix) else None

    graph: dict[str, set[str]] = {}
    for name, targets in imports.items():
        importer = child(name)
        if importer is not None:
            graph.setdefault(importer, set()).update(filter(None, map(child, targets)))
    return {name: frozenset(targets - {name}) for name, targets in sorted(graph.items())}


def reachable(start: str, graph: Graph) -> set[str]:
    """Return every node that ``start`` reaches by one import or more."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(graph[node])
    return found


def circles(graph: Graph) -> list[str]:
    """Return the nodes that import themselves through others, sorted."""
    return sorted(node for node in graph if node in reachable(node, graph))


def reduced(graph: Graph) -> dict[str, frozenset[str]]:
    """Return the graph without the arrows that follow from others. It must have no circle."""
    return {
        node: frozenset(
            target
            for target in targets
            if not any(target in reachable(other, graph) for other in targets if other != target)
        )
        for node, targets in graph.items()
    }


def mermaid(package: str = PACKAGE, source: Path = SOURCE) -> str:
    """Return the imports between the children of ``package`` as a Mermaid diagram, importers above.

    Raises:
        ValueError: the children import each other in a circle.
    """
    graph = children_graph(package, module_imports(source))
    if found := circles(graph):
        raise ValueError(f"{package}: import circle through {', '.join(found)}")
    arrows = [f"    {node} --> {target}" for node, targets in reduced(graph).items() for target in sorted(targets)]
    return "\n".join(["```mermaid", "flowchart TD", *arrows, "```"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the diagram of one package and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.import_graph", description=__doc__)
    parser.add_argument("package", nargs="?", default=PACKAGE, help="the package whose children are drawn")
    sys.stdout.write(mermaid(parser.parse_args(arguments).package) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
