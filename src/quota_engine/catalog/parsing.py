"""Parse TOML, JSON and YAML files to raw data. Syntax errors become issues with line and column."""

from __future__ import annotations

__all__ = ["FILE_BYTES_MAX", "SUFFIXES", "parse", "read_raw"]

import json
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from quota_engine.catalog.schema_conversion import IssueCollector, format_value, key_of

FILE_BYTES_MAX: Final = 8 * 1024 * 1024
"""The largest file: 8 MiB."""
SUFFIXES: Final = (".toml", ".json", ".yaml", ".yml")
"""The supported file name suffixes."""

_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_YAML_INTEGER = re.compile(r"[-+]?[0-9]{1,40}").fullmatch
_YAML_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?").fullmatch
_YAML_WORDS: Final = {"": None, "~": None, "null": None, "true": True, "false": False}
_ONCE = "each key once in a table"


def read_raw(path: str | os.PathLike[str], collector: IssueCollector) -> Any:
    """Read and parse a file. Return its raw data, or ``None`` after adding issues to ``collector``."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        collector.add("", f"a file that ends in {format_value(suffix)}", f"a file that ends in {', '.join(SUFFIXES)}")
        return None
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or "not a path"
        collector.add("", f"cannot be read: {reason}", "a file that exists and can be read")
        return None
    return parse(content, suffix, collector)


def parse(content: bytes, suffix: str, collector: IssueCollector) -> Any:
    """Parse the content of a file whose name ends in ``suffix``, one of :data:`SUFFIXES`.

    Returns:
        The raw data, or ``None`` after adding issues to ``collector``.
    """
    if len(content) > FILE_BYTES_MAX:
        collector.add("", f"more than {FILE_BYTES_MAX} bytes", f"at most {FILE_BYTES_MAX} bytes")
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        collector.add(f"line {line}", "invalid UTF-8", "text in UTF-8")
        return None
    parser = _PARSERS[suffix]
    try:
        return parser(text, collector)
    except RecursionError:
        collector.add("", "nested too deeply", "a few levels of tables and lists")
        return None


def _parse_toml(text: str, collector: IssueCollector) -> Any:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        message = str(error)
        place = _TOML_PLACE.search(message)
        if place is None:
            key = ""
        elif place[1] is None:
            key = f"line {text.count(chr(10)) + 1} (end of the file)"
        else:
            key = f"line {place[1]}, column {place[2]}"
        collector.add(key, _one_line(_TOML_PLACE.sub("", message)), "valid TOML")
        return None


def _parse_json(text: str, collector: IssueCollector) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not valid JSON")

    try:
        raw = json.loads(text, object_pairs_hook=_ObjectWithDuplicates, parse_constant=refuse)
    except json.JSONDecodeError as error:
        collector.add(f"line {error.lineno}, column {error.colno}", _one_line(error.msg), "valid JSON")
        return None
    except ValueError as error:
        collector.add("", _one_line(str(error)), "valid JSON")
        return None
    _report_duplicates(raw, collector)
    return raw


class _ObjectWithDuplicates(dict[str, Any]):
    """A JSON object that records its duplicate keys."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: list[str] = []
        if len(self) < len(pairs):
            seen: set[str] = set()
            for name, _ in pairs:
                if name in seen:
                    self.repeated.append(name)
                seen.add(name)


def _report_duplicates(raw: Any, collector: IssueCollector) -> None:
    """Report the duplicate keys of all objects. Iterative, because the parser nests deeper than Python recurses."""
    pending = [("", raw)]
    while pending:
        key, value = pending.pop()
        if isinstance(value, _ObjectWithDuplicates):
            for name in value.repeated:
                collector.add(key_of(key, name), "given twice", _ONCE)
            pending.extend((key_of(key, name), item) for name, item in value.items())
        elif isinstance(value, list):
            pending.extend((f"{key}[{index}]", item) for index, item in enumerate(value))


def _parse_yaml(text: str, collector: IssueCollector) -> Any:
    try:
        import yaml
    except ImportError:
        collector.add(
            "", "PyYAML is not installed", "the extra 'yaml' (pip install 'quota-engine[yaml]'), or TOML or JSON"
        )
        return None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        key = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        collector.add(key, _one_line(error.problem or error.context or "cannot be parsed"), "valid YAML")
        return None
    except (yaml.YAMLError, ValueError) as error:
        collector.add("", _one_line(str(error)), "valid YAML")
        return None
    return None if root is None else _YamlConverter(collector).value(root, "")


class _YamlConverter:
    """Converts YAML nodes to data by the core schema of YAML 1.2.

    PyYAML's own loader follows YAML 1.1, in which ``at: 14:00`` is the number 840 and ``no`` is false. Aliases are
    rejected, because a small file could otherwise expand to gigabytes.
    """

    def __init__(self, collector: IssueCollector) -> None:
        self._collector = collector
        self._seen: set[int] = set()

    def value(self, node: Any, key: str) -> Any:
        if id(node) in self._seen:
            self._collector.add(key, "an alias", "the data itself: aliases are not supported")
            return None
        self._seen.add(id(node))
        if node.id == "mapping":
            return self._mapping(node, key)
        if node.id == "sequence":
            return [self.value(item, f"{key}[{index}]") for index, item in enumerate(node.value)]
        return _yaml_scalar(node.value) if node.style is None else node.value

    def _mapping(self, node: Any, key: str) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for name_node, item in node.value:
            line = name_node.start_mark.line + 1
            if name_node.id != "scalar":
                self._collector.add(key, f"a key on line {line}", "keys that are strings")
                continue
            name = name_node.value
            if name in table:
                self._collector.add(key_of(key, name), f"given twice, again on line {line}", _ONCE)
            table[name] = self.value(item, key_of(key, name))
        return table


def _yaml_scalar(text: str) -> Any:
    if text in _YAML_WORDS:
        return _YAML_WORDS[text]
    if _YAML_INTEGER(text):
        return int(text)
    return float(text) if len(text) <= 40 and _YAML_FLOAT(text) else text


def _one_line(message: str) -> str:
    """Return a parser's message on one line of at most 120 characters. The message may quote the file."""
    message = " ".join(message.split())
    return message if len(message) <= 120 else message[:117] + "..."


_PARSERS: Final[dict[str, Callable[[str, IssueCollector], Any]]] = {
    ".toml": _parse_toml,
    ".json": _parse_json,
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
}
