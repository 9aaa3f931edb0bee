"""Tests of the how-to pages: their code runs, block after block, and prints what they show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.page_programs import check_install, page_runner
from tests.support.paths import DOCS, ROOT

WITH_CODE = ("choose", "sizing", "migrate", "recipes", "life-cycle", "privacy")
ALL = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "sizing" else name for name in WITH_CODE]
)
def test_page_prints_what_it_shows(name: str, tmp_path: Path) -> None:
    with page_runner(tmp_path) as runner:
        assert runner.run(DOCS / f"{name}.md") >= 1


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_install_commands_name_existing_extras(page: Path) -> None:
    check_install(page.read_text(encoding="utf-8"))


def test_overview_lists_every_page() -> None:
    overview = (DOCS / "README.md").read_text(encoding="utf-8")
    listed = {(DOCS / target).resolve() for target in re.findall(r"\]\(([^)#:]+)", overview)}
    pages = {page for page in DOCS.rglob("*.md") if page.parent != DOCS / "decisions"}
    assert {page.name for page in pages - listed} == {"README.md"}
