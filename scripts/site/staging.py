"""Copy the pages into Sphinx's source folder, with links that lead to pages of the site."""

from __future__ import annotations

__all__ = ["FURTHER_PAGES", "UNLISTED", "rewrite_links", "stage"]

import os
import re
import shutil
from pathlib import Path
from typing import Final

from scripts.site.diagrams import replace_diagrams

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"

FURTHER_PAGES: Final = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "deploy/README.md": "deploy.md",
    "tests/README.md": "project/tests.md",
}
"""Pages outside ``docs``, and their place on the site."""

UNLISTED: Final = {"docs/README.md": "index.md", "README.md": "index.md"}
"""Overviews of the repository, whose place on the site is the home page."""

_CHILDREN: Final = "\n```{toctree}\n:hidden:\n:titlesonly:\n:glob:\n\n[0-9]*\n```\n"
"""Appended to the overview of decisions, so that each of them has a place in the navigation."""

_LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s#:]*)(#[^()\s]*)?\)")
_FENCED: Final = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def _place(path: Path) -> str | None:
    """Return the place on the site of a file of the repository, or ``None`` if the site does not have it."""
    relative = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
    if relative in UNLISTED or relative in FURTHER_PAGES:
        return {**UNLISTED, **FURTHER_PAGES}[relative]
    is_page = relative.startswith("docs/") and path.is_file() and path.suffix != ".py"
    return relative.removeprefix("docs/") if is_page else None


def rewrite_links(text: str, source: Path, place: str) -> str:
    """Return the text of a page with links that are correct on the site.

    A link to a file that the site does not have becomes the file's path in the repository.

    Args:
        text: the page in Markdown.
        source: its file in the repository.
        place: its path on the site.
    """

    def replaced(match: re.Match[str]) -> str:
        picture, label, target, fragment = match[1], match[2], match[3], match[4] or ""
        if not target:
            return match[0]
        path = (source.parent / target).resolve()
        if path.is_dir():
            path = path / "README.md"
        found = _place(path)
        if found is None:
            shown = label if f"`{target.lstrip('./')}`" == label else f"{label} (`{path.relative_to(ROOT).as_posix()}`)"
            return label if picture else shown
        relative = os.path.relpath(found, Path(place).parent)
        return f"{picture}[{label}]({relative}{fragment if found not in UNLISTED.values() else ''})"

    parts, end = [], 0
    for fence in _FENCED.finditer(text):
        parts += [_LINK.sub(replaced, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(replaced, text[end:])])


def stage(folder: Path) -> list[str]:
    """Fill ``folder`` with the pages, pictures and files of the site, and return the places of the pages."""
    pages = {path: path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))}
    pages |= {ROOT / source: place for source, place in FURTHER_PAGES.items()}
    pages.pop(DOCS / "README.md")
    for path in DOCS.rglob("*"):
        if path.is_file() and path.suffix not in (".md", ".py") and "data" not in path.parts:
            target = folder / path.relative_to(DOCS)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    for path, place in pages.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        text = replace_diagrams(path.read_text(encoding="utf-8"))
        text += _CHILDREN if place == "decisions/README.md" else ""
        target.write_text(rewrite_links(text, path, place), encoding="utf-8")
    return list(pages.values())
