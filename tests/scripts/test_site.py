"""Tests of the documentation site: staging, diagrams, generated reference. ``make docs`` builds it, strictly."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import msgspec
import pytest

import quota_engine
from quota_engine.catalog import schema
from quota_engine.cli.main import COMMANDS
from quota_engine.domain import errors
from quota_engine.domain.outcomes import Status
from quota_engine.service.http.problems import PROBLEM_TYPES
from quota_engine.service.observability.metric_families import METRIC_FAMILIES
from scripts.site.diagrams import draw, parse, replace_diagrams
from scripts.site.outside_addresses import find_outside_addresses
from scripts.site.reference import reference_pages
from scripts.site.staging import DOCS, ROOT, rewrite_links, stage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """The generated pages."""
    return reference_pages()


def test_links_lead_to_pages_of_the_site() -> None:
    page = (
        "[a](python.md#x) ![b](images/opening.svg) [c](../CONTRIBUTING.md) [d](../src/quota_engine/ports.py)\n"
        "[e](decisions/) [f](README.md) [g](#here) [h](https://example.org/)\n"
        "```text\n[kept](../CONTRIBUTING.md)\n```\n"
    )
    assert rewrite_links(page, DOCS / "faq.md", "faq.md") == (
        "[a](python.md#x) ![b](images/opening.svg) [c](project/contributing.md) d (`src/quota_engine/ports.py`)\n"
        "[e](decisions/README.md) [f](index.md) [g](#here) [h](https://example.org/)\n"
        "```text\n[kept](../CONTRIBUTING.md)\n```\n"
    )


def test_pages_outside_docs_link_back() -> None:
    assert (
        rewrite_links("[a](docs/rules.md)", ROOT / "CONTRIBUTING.md", "project/contributing.md") == "[a](../rules.md)"
    )


def test_staged_pages_have_their_files(tmp_path: Path) -> None:
    places = stage(tmp_path)
    assert {"index.md", "rules.md", "decisions/README.md", "project/changelog.md"} <= set(places)
    for place in places:
        text = (tmp_path / place).read_text(encoding="utf-8")
        assert "```mermaid" not in text
        without_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^()\s#:]+)[)#]", without_code):
            assert (tmp_path / place).parent.joinpath(target).resolve().is_file(), f"{place}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = {line for block in re.findall(r"```\{toctree\}(.*?)```", index, re.DOTALL) for line in block.split("\n")}
    here = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    decisions = {name for name in here if re.match(r"decisions/\d", name)}
    assert here - decisions - listed == {"index", "README"}
    assert {place.removesuffix(".md") for place in reference_pages()} <= listed


def test_diagram_has_each_node_and_arrow() -> None:
    source = "flowchart TD\n    a --> b\n    a --> c\n    b --> d\n    a --> d\n"
    assert parse(source) == {("a", "b"): [], ("a", "c"): [], ("b", "d"): [], ("a", "d"): []}
    picture = draw(source, "an <example>")
    assert re.findall(r">(\w)</text>", picture) == ["a", "b", "c", "d"]
    assert picture.count('class="edge"') == 4
    assert 'aria-label="an &lt;example&gt;"' in picture


def test_diagram_of_states_shows_steps_back_and_loops() -> None:
    source = (
        "stateDiagram-v2\n    [*] --> A: make\n    A --> B: go\n    B --> A: back\n    B --> B: stay\n    B --> [*]\n"
    )
    picture = draw(source, "states")
    assert [name in picture for name in ("go", "back", "stays B: stay", "make")] == [True, True, True, False]
    assert replace_diagrams(f"text\n\n```mermaid\n{source}```\n").startswith('text\n\n<figure class="diagram"><svg')


def test_reference_has_every_command_and_option(pages: dict[str, str]) -> None:
    page = pages["reference/command-line.md"]
    for name in COMMANDS:
        assert f"## quota-engine {name}\n" in page
    assert "`--as-json`" not in page
    assert page.count("`--json`") >= 8
    assert "--no-" not in page


def test_reference_has_every_key_of_a_catalog(pages: dict[str, str]) -> None:
    page = pages["reference/catalog-keys.md"]
    tables = [
        kind
        for kind in vars(schema).values()
        if isinstance(kind, type) and issubclass(kind, schema._CatalogTable) and kind.__name__ in schema.__all__
    ]
    assert len(tables) >= 20
    for kind in tables:
        if kind.__name__ == "Named":  # a base of other tables
            continue
        section = page.partition(f"\n## {kind.__name__}\n")[2].partition("\n## ")[0]
        for field in msgspec.structs.fields(kind):
            assert f"| `{field.encode_name}` |" in section, f"{kind.__name__}.{field.encode_name}"


def test_reference_has_every_metric_status_event_and_error(pages: dict[str, str]) -> None:
    for name, family in METRIC_FAMILIES.items():
        assert f"| `{name}{'_total' if family.kind == 'counter' else ''}` |" in pages["reference/metrics.md"]
    for status in Status:
        assert f"| `{status}` |" in pages["reference/statuses.md"]
    for name in PROBLEM_TYPES:
        assert f"| `{name}` |" in pages["reference/errors.md"]
    raised = [name for name in errors.__all__ if issubclass(getattr(errors, name), Exception)]
    for name in raised:
        assert f"| `{name}` |" in pages["reference/errors.md"]
    assert "## ReservationChanged" in pages["reference/events.md"]


def test_reference_has_every_public_name(pages: dict[str, str]) -> None:
    text = "".join(page for place, page in pages.items() if place.startswith("reference/python/"))
    missing = [name for name in quota_engine.__all__ if f":: quota_engine.{name}\n" not in text]
    assert missing == ["__version__"]
    upgrading = (DOCS / "upgrading.md").read_text(encoding="utf-8")
    packages = re.findall(
        r"`(quota_engine\.[a-z]\w+)`", upgrading.partition("These parts are public:")[2].partition("- the command")[0]
    )
    assert len(packages) >= 5
    for package in packages:
        module = importlib.import_module(package)
        own_names = [name for name in module.__all__ if getattr(quota_engine, name, None) is not getattr(module, name)]
        assert [name for name in own_names if f":: {package}.{name}\n" not in text] == []


def test_parts_from_other_hosts_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="https://example.org/">link</a><script src="_static/a.js"></script>'
        '<script async src="https://cdn.example/a.js"></script><link rel="x" href="//fonts.example/f.css">',
        encoding="utf-8",
    )
    (tmp_path / "a.css").write_text("a { background: url('http://example.org/a.png') }", encoding="utf-8")
    assert find_outside_addresses(tmp_path) == [
        "a.css: http://example.org/a.png",
        "a.html: https://cdn.example/a.js",
        "a.html: //fonts.example/f.css",
    ]
