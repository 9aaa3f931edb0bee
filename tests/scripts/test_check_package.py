"""Tests of the checks of a release, and of the description for the package index."""

from __future__ import annotations

import re
import tomllib
import zipfile
from pathlib import Path

import quota_engine
from hatch_build import description
from scripts.check_package import check_files, check_metadata
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
METADATA = "Metadata-Version: 2.4\nName: quota-engine\nVersion: 1.0\nDescription-Content-Type: text/markdown\n"


def test_description_has_no_relative_link_and_no_picture() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = description(readme)
    assert "](docs/" not in text
    assert "<img" not in text
    assert "![" not in text
    assert re.findall(r"```python\n.*?```", text, re.DOTALL) == re.findall(r"```python\n.*?```", readme, re.DOTALL)
    assert check_metadata(f"{METADATA}\n{text}".encode()) == []


def test_description_keeps_the_text_of_links() -> None:
    text = "![A](a.png)\n[the rules](docs/rules.md#x) and [this](https://example.org/)\n"
    assert description(text) == "the rules and [this](https://example.org/)\n"


def test_metadata_problems_are_reported() -> None:
    content = f"{METADATA}Classifier: Topic :: Nothing\n\n[a](docs/a.md) ![b](https://example.org/b.png)\n"
    assert check_metadata(content.encode()) == [
        "the classifier 'Topic :: Nothing' does not exist",
        "the description links to docs/a.md",
        "the description has a picture",
        "the description is missing",
    ]


def test_missing_and_surplus_files_of_a_wheel_are_reported(tmp_path: Path) -> None:
    sdist, wheel = tmp_path / "a.tar.gz", tmp_path / "a.whl"
    sdist.write_bytes(b"0" * 1_500_001)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a.dist-info/METADATA", f"{METADATA}\n{description(readme)}")
        archive.writestr("tests/test_a.py", "")
    problems = check_files(sdist, wheel)
    assert problems[0] == "a.tar.gz has 1,500,001 bytes, more than 1,500,000"
    assert "a.whl lacks quota_engine/py.typed" in problems
    assert problems[-1] == "a.whl has tests/test_a.py"


def test_version_comes_from_the_project_file() -> None:
    assert quota_engine.__version__ == PROJECT["version"]
    source = (ROOT / "src" / "quota_engine" / "__init__.py").read_text(encoding="utf-8")
    assert PROJECT["version"] not in source


def test_extra_all_names_every_extra_for_users() -> None:
    (everything,) = PROJECT["optional-dependencies"]["all"]
    named = set(re.findall(r"[\w-]+", everything.partition("[")[2]))
    assert set(PROJECT["optional-dependencies"]) - named == {"all", "postgresql-embedded", "testing"}


def test_readme_lists_every_extra() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Extras")[2]
    assert set(re.findall(r"^\| `([\w-]+)` \|", readme, re.MULTILINE)) == set(PROJECT["optional-dependencies"])
