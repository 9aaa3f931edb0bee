"""Tests of the Indonesian pages: the tutorial has the English programs, and quoted labels are those of the pages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.test_tutorial import PAGES as ENGLISH_TUTORIAL
from tests.support.paths import DOCS, ROOT

PAGES = sorted((DOCS / "id").glob("*.md"))
_BLOCK = re.compile(r"^```\w+\n.*?^```$", re.MULTILINE | re.DOTALL)
_LABEL = re.compile(r"(?<![*\w])\*([^*\n]+)\*(?![*\w])")


def blocks(page: Path) -> list[str]:
    """Return the blocks of code of a page."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def test_tutorial_has_the_programs_of_the_english_one() -> None:
    """The English programs run in ``test_tutorial``, block after block."""
    assert blocks(DOCS / "id" / "tutorial.md") == [block for page in ENGLISH_TUTORIAL for block in blocks(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_other_pages_have_no_code(page: Path) -> None:
    assert page.name == "tutorial.md" or not blocks(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_quoted_labels_are_texts_of_the_pages(page: Path) -> None:
    """A label may be the begin of a text; it then ends with a full stop or an ellipsis."""
    file = ROOT / "src/quota_engine/service/pages/texts/id.toml"
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    texts = {text for table in tables.values() for text in table.values()}
    for label in _LABEL.findall(page.read_text(encoding="utf-8")):
        begin = label.removesuffix(" …")
        is_shortened = label.endswith((".", " …"))
        assert label in texts or (is_shortened and any(text.startswith(begin) or begin in text for text in texts)), (
            label
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target
