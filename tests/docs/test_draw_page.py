"""The page on draws: its code makes its files, and its commands print the output that it shows."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from tests.support.paths import ROOT


def load_example() -> ModuleType:
    """Return the module ``docs/draw_example.py``, which is not in a package."""
    spec = importlib.util.spec_from_file_location("draw_example", ROOT / "docs" / "draw_example.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_page_and_files_match_a_run_of_the_example() -> None:
    """If this fails after a change of the code, run ``python docs/draw_example.py``."""
    example = load_example()
    text = example.PAGE.read_text(encoding="utf-8")
    files, output = example.run_python(text)
    assert sorted(files) == ["applications.jsonl", "capacities.json", "result.jsonl"]
    for name, content in files.items():
        assert (example.FOLDER / name).read_bytes() == content, name
    assert output == "10 of 29 applications won\n"
    assert example.run_commands(text, files) == text
    assert text.count("$ quota-engine draw verify") == 1
    assert "the result follows from its seed, applications and capacities" in text
