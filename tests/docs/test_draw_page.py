"""The page on draws: its code made its files, and its commands print what it says they print."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from tests.support.paths import ROOT


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_example", ROOT / "docs" / "draw_example.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_is_a_real_run() -> None:
    """Files and page are what ``python docs/draw_example.py`` writes now."""
    module = example()
    text = module.PAGE.read_text(encoding="utf-8")
    files, printed = module.made_files(text)
    assert sorted(files) == ["applications.jsonl", "capacities.json", "result.jsonl"]
    for name, content in files.items():
        assert (module.FOLDER / name).read_bytes() == content, name
    assert printed == "10 of 29 applications won\n"
    assert module.with_printed(text, files) == text
    assert text.count("$ quota-engine draw verify") == 1
    assert "follows from seed, applications and capacities" in text
