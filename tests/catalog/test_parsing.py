"""Parsing of files: formats, positions of syntax errors, duplicate keys, limits, and built-in names."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_engine.catalog import builtin_names, load_catalog
from quota_engine.catalog.parsing import FILE_BYTES_MAX, SUFFIXES, parse
from quota_engine.catalog.schema_conversion import IssueCollector
from quota_engine.domain.errors import CatalogError, ValidationIssue
from tests.support.catalog_samples import sample


def issues_in(content: str | bytes, suffix: str) -> list[ValidationIssue]:
    """Return the issues of parsing alone."""
    collector = IssueCollector("f" + suffix)
    parse(content.encode() if isinstance(content, str) else content, suffix, collector)
    return collector.issues()


def load_issues(path: str | Path) -> tuple[ValidationIssue, ...]:
    """Return the issues of loading a file."""
    with pytest.raises(CatalogError) as caught:
        load_catalog(path)
    return caught.value.issues


@pytest.mark.parametrize(
    ("suffix", "content", "key", "value", "expected"),
    [
        (".toml", "a = 1\nb = = 2\n", "line 2, column 5", "Invalid value", "valid TOML"),
        (".toml", "a = [1,\n", "line 2 (end of the file)", "Invalid value", "valid TOML"),
        (".toml", "a = 1\na = 2\n", "line 2, column 6", "Cannot overwrite a value", "valid TOML"),
        (".toml", "a = 2026-02-30\n", "line 1, column 5", "Invalid date or datetime", "valid TOML"),
        (".json", '{"a": 1,\n "b": }', "line 2, column 7", "Expecting value", "valid JSON"),
        (".json", '{"a": NaN}', "file", "NaN is not valid JSON", "valid JSON"),
        (".json", '{"a": [{"b": 1, "b": 2}]}', "a[0].b", "given twice", "each key once in a table"),
        (".yaml", "a: 1\nb: [1, 2\n", "line 3, column 1", "expected ',' or ']', but got '<stream end>'", "valid YAML"),
        (".yaml", "a:\n  b: 1\n  b: 2\n", "a.b", "given twice, again on line 3", "each key once in a table"),
        (".yaml", "a: &x 1\nb: *x\n", "b", "an alias", "the data itself: aliases are not supported"),
        (".yaml", "? [1]\n: 2\n", "file", "a key on line 1", "keys that are strings"),
        (".yml", "a: \x07", "file", None, "valid YAML"),
        (".json", "[" * 100_000, "file", "nested too deeply", "a few levels of tables and lists"),
        (".yaml", "[" * 1_000, "file", "nested too deeply", "a few levels of tables and lists"),
        (".toml", b"a = '\xff'\n", "line 1", "invalid UTF-8", "text in UTF-8"),
    ],
)
def test_a_syntax_error_has_line_and_column(
    suffix: str, content: str | bytes, key: str, value: str | None, expected: str
) -> None:
    (found,) = issues_in(content, suffix)
    assert (found.file, found.key, found.expected) == (f"f{suffix}", key, expected)
    assert value is None or found.value == value


def test_a_file_has_at_most_8_mib() -> None:
    (found,) = issues_in(b"#" * (FILE_BYTES_MAX + 1), ".toml")
    assert (found.value, found.expected) == ("more than 8388608 bytes", "at most 8388608 bytes")


@given(st.binary(max_size=60) | st.text(alphabet="[]{}:,'\"-#&*!|>% \n1ea=.", max_size=60).map(str.encode))
def test_parsing_never_raises(content: bytes) -> None:
    for suffix in SUFFIXES:
        issues_in(content, suffix)


def test_json_and_yaml_give_the_same_catalog(tmp_path: Path) -> None:
    text = json.dumps(sample())
    for name in ("c.json", "c.yaml", "c.YML"):
        (tmp_path / name).write_text(text, "utf-8")
    first, *others = (load_catalog(tmp_path / name) for name in ("c.json", "c.yaml", "c.YML"))
    assert all(other == first for other in others)


def test_yaml_values_follow_the_core_schema_of_1_2() -> None:
    collector = IssueCollector("f.yaml")
    raw = parse(b"at: 14:00\nday: 2026-08-17\nname: no\nid: '5'\nn: 010\nf: 1e3\nyes: ~\nt: true\n", ".yaml", collector)
    assert not collector.issues()
    assert raw == {
        "at": "14:00",
        "day": "2026-08-17",
        "name": "no",
        "id": "5",
        "n": 10,
        "f": 1000.0,
        "yes": None,
        "t": True,
    }


def test_yaml_without_its_extra_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_yaml(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "yaml":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_yaml)
    path = tmp_path / "c.yaml"
    path.write_text("{}", "utf-8")
    (found,) = load_issues(path)
    assert found.value == "PyYAML is not installed"
    assert "quota-engine[yaml]" in found.expected


def test_duplicate_keys_and_other_issues_are_reported_together(tmp_path: Path) -> None:
    text = json.dumps(sample()).replace('"hold_ttl_s": 900', '"hold_ttl_s": 900, "hold_ttl_s": 0')
    path = tmp_path / "c.json"
    path.write_text(text, "utf-8")
    assert [(m.key, m.value) for m in load_issues(path)] == [
        ("rules.hold_ttl_s", "given twice"),
        ("rules.hold_ttl_s", "0"),
    ]


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    for path in (tmp_path / "missing.toml", tmp_path / "folder.toml", "nul\0.toml"):
        (found,) = load_issues(path)
        assert found.value.startswith("cannot be read: ")
    (tmp_path / "c.ini").write_text("", "utf-8")
    (found,) = load_issues(tmp_path / "c.ini")
    assert (found.value, found.expected) == (
        "a file that ends in '.ini'",
        "a file that ends in .toml, .json, .yaml, .yml",
    )


def test_an_unknown_built_in_name_gets_a_hint() -> None:
    (found,) = load_issues("surabya")
    assert found == ValidationIssue(
        "surabya",
        "file",
        "no built-in catalog 'surabya'",
        "one of indonesia, surabaya, or a file that ends in .toml, .json, .yaml, .yml; did you mean 'surabaya'?",
    )
    assert builtin_names() == ("indonesia", "surabaya")
