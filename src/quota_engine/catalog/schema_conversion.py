"""Convert raw data of TOML, JSON or YAML to msgspec structs, and report every issue instead of only the first.

``msgspec.convert`` stops at the first error. This converter visits the same types leaf by leaf and continues after each
issue. It is as strict as msgspec: it makes no number from a string and no integer from ``16.0``, and it rejects unknown
keys.

Supported types: ``Struct`` (also as a tagged union), ``tuple``, ``list``, ``dict`` with string keys, ``str``, ``int``,
``float``, ``bool``, ``date``, ``time``, ``Enum`` and ``Literal`` of strings, ``X | None`` and ``Any``. ``msgspec.Meta``
constraints apply. A ``description`` in the ``Meta`` is the expected value in an issue. A pattern must match the whole
string.
"""

from __future__ import annotations

__all__ = ["ISSUES_MAX", "IssueCollector", "convert", "convert_leniently", "format_value", "key_of"]

import datetime
import difflib
import functools
import itertools
import math
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar, cast

from msgspec import inspect

from quota_engine.domain.errors import ValidationIssue
from quota_engine.domain.validation import is_name

ISSUES_MAX: Final = 1_000
"""The most issues in a report. A file of 8 MiB could have a million."""

_HINTS_MAX: Final = 100
"""The most issues with a hint. Searching similar names is slow."""

T = TypeVar("T")

_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}").fullmatch
_ISO_TIME = re.compile(r"\d{2}:\d{2}(:\d{2})?").fullmatch
_SHOWN_MAX = 60

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 50
_repr.maxdict = _repr.maxlist = _repr.maxtuple = 3
_repr.maxlevel = 2


def format_value(value: object) -> str:
    """Return a value as an issue shows it: on one line of at most 60 characters."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, dict):
        value = dict(value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, int) and value.bit_length() > 128:
        return "a very large number"
    text = _repr.repr(value)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."


class IssueCollector:
    """The issues of one file in the order of discovery, at most :data:`ISSUES_MAX`."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._issues: list[ValidationIssue] = []
        self._keys: set[str] = set()
        self._omitted = 0

    def add(self, key: str, value: str, expected: str) -> None:
        """Add an issue.

        Args:
            key: the path of the key; ``""`` for the file as a whole.
            value: the wrong value as :func:`format_value` shows it.
            expected: a valid value, in words.
        """
        if len(self._issues) < ISSUES_MAX:
            self._keys.add(key)
            self._issues.append(ValidationIssue(self.file, key or "file", value, expected))
        else:
            self._omitted += 1

    def hint(self, name: object, known: Iterable[str]) -> str:
        """Return ``"; did you mean 'x'?"`` with the closest known name, or ``""`` if none is close."""
        if not isinstance(name, str) or len(self._issues) >= _HINTS_MAX:
            return ""
        close = difflib.get_close_matches(name[:64], itertools.islice(known, 1_000), n=1)
        return f"; did you mean {close[0]!r}?" if close else ""

    def has(self, *keys: str) -> bool:
        """Return True if one of the keys, or a table or list that contains it, has an issue.

        The value at such a key cannot be checked further.
        """
        return any(key[:end] in self._keys for key in keys for end in _ends_of_parts(key))

    def has_containing(self, part: str) -> bool:
        """Return True if a key that contains ``part`` has an issue."""
        return any(part in key for key in self._keys)

    def issues(self) -> list[ValidationIssue]:
        """Return all issues. If the report was cut, the last one counts the omitted issues."""
        if not self._omitted:
            return list(self._issues)
        return [*self._issues, ValidationIssue(self.file, "file", f"{self._omitted} more issues", "none")]


def convert(raw: object, kind: type[T], file: str) -> tuple[T | None, list[ValidationIssue]]:
    """Convert raw data to a type.

    Args:
        raw: a parser's result: dicts, lists, strings, numbers, booleans, dates and times.
        kind: a msgspec struct type, or another supported type.
        file: the file name in the issues.

    Returns:
        The value and no issues, or ``None`` and all issues.

    Raises:
        TypeError: ``kind`` contains an unsupported type.
    """
    collector = IssueCollector(file)
    value = convert_leniently(raw, kind, collector)
    issues = collector.issues()
    return (None, issues) if issues else (value, [])


def convert_leniently(raw: object, kind: type[T], collector: IssueCollector) -> T:
    """Convert raw data to a type, with placeholders for invalid parts.

    The result has the shape of ``kind`` and keeps the positions of list items, so that references between its parts can
    still be checked. If there are issues, it must not be used for anything else.

    Args:
        raw: a parser's result.
        kind: a supported type.
        collector: receives the issues.
    """
    value: T = _Converter(collector).value(_type_info(cast("Any", kind)), raw, "")
    return value


@functools.cache
def _type_info(kind: type[Any]) -> inspect.Type:
    """Return the description of a type. Kept, because making one takes longer than converting a catalog."""
    return inspect.type_info(kind)


def key_of(parent: str, name: str) -> str:
    """Return the path of ``name`` in the table ``parent``: ``a.b``, or ``a['b c']`` for a name that is not an id."""
    if is_name(name) is None:
        return f"{parent}[{format_value(name)}]"
    return f"{parent}.{name}" if parent else name


def _ends_of_parts(key: str) -> Iterator[int]:
    """Yield the lengths of a path's prefixes and of the path itself: 1, 4 and 6 for ``"a[0].b"``."""
    yield from (end for end, letter in enumerate(key) if letter in ".[")
    yield len(key)


class _Converter:
    """One conversion. Each method returns a value of the node's type, or a placeholder after adding an issue."""

    def __init__(self, collector: IssueCollector) -> None:
        self._collector = collector

    def value(self, node: inspect.Type, raw: object, key: str, expected: str = "") -> Any:
        if isinstance(node, inspect.Metadata):
            return self.value(node.type, raw, key, (node.extra_json_schema or {}).get("description", expected))
        leaf = _LEAVES.get(type(node))
        if leaf is not None:
            return self._leaf(leaf, node, raw, key, expected)
        match node:
            case inspect.AnyType():
                return raw
            case inspect.StructType():
                return self._struct(node, raw, key)
            case inspect.UnionType():
                return self._union(node, raw, key, expected)
            case inspect.VarTupleType():
                return tuple(self._items(node, raw, key))
            case inspect.ListType():
                return self._items(node, raw, key)
            case inspect.DictType():
                return self._dict(node, raw, key)
        raise TypeError(f"{key or 'the type'}: no conversion to {node!r}")

    def _leaf(self, leaf: _Leaf, node: inspect.Type, raw: object, key: str, expected: str) -> Any:
        try:
            return leaf(node, raw)
        except _InvalidLeaf as wrong:
            hint = self._collector.hint(raw, wrong.choices)
            self._collector.add(key, format_value(raw), (expected or wrong.expected) + hint)
            return wrong.placeholder

    def _items(self, node: inspect.VarTupleType | inspect.ListType, raw: object, key: str) -> list[Any]:
        if not isinstance(raw, list | tuple):
            self._collector.add(key, format_value(raw), "a list")
            return []
        minimum, maximum = node.min_length or 0, node.max_length
        if len(raw) < minimum or (maximum is not None and len(raw) > maximum):
            self._collector.add(key, f"{len(raw)} entries", _range_text(minimum, maximum, "entries"))
            raw = raw[:maximum]
        return [self.value(node.item_type, item, f"{key}[{index}]") for index, item in enumerate(raw)]

    def _dict(self, node: inspect.DictType, raw: object, key: str) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self._collector.add(key, format_value(raw), "a table")
            return {}
        converted = {}
        for name, item in raw.items():
            if isinstance(name, str):
                converted[name] = self.value(node.value_type, item, key_of(key, name))
            else:
                self._collector.add(key, f"the key {format_value(name)}", "keys that are strings")
        return converted

    def _union(self, node: inspect.UnionType, raw: object, key: str, expected: str) -> Any:
        kinds = [kind for kind in node.types if not isinstance(kind, inspect.NoneType)]
        if raw is None and len(kinds) < len(node.types):
            return None
        if len(kinds) == 1:
            return self.value(kinds[0], raw, key, expected)
        structs = {kind.tag: kind for kind in kinds if isinstance(kind, inspect.StructType)}
        if len(structs) != len(kinds) or None in structs:
            raise TypeError(f"{key}: no conversion to a union of {kinds!r}")
        first = kinds[0]
        assert isinstance(first, inspect.StructType)  # just checked
        if not isinstance(raw, dict):
            return self._struct(first, raw, key)
        tag = raw.get(first.tag_field)
        if isinstance(tag, str) and tag in structs:
            return self._struct(structs[tag], raw, key)
        names = [str(name) for name in structs]
        value = format_value(tag) if first.tag_field in raw else "missing"
        expected = _choice_text(names) + self._collector.hint(tag, names)
        self._collector.add(key_of(key, str(first.tag_field)), value, expected)
        return _placeholder(first, raw)

    def _struct(self, node: inspect.StructType, raw: object, key: str) -> Any:
        if not isinstance(raw, dict):
            self._collector.add(key, format_value(raw), "a table")
            return _placeholder(node, {})
        fields = {field.encode_name: field for field in node.fields}
        self._report_unknown(raw, [*fields, *([node.tag_field] if node.tag_field else [])], key)
        values = {}
        for name, field in fields.items():
            if name in raw:
                values[field.name] = self.value(field.type, raw[name], key_of(key, name))
            elif field.required:
                self._collector.add(key_of(key, name), "missing", _expected_of(field.type))
                values[field.name] = _placeholder(field.type, None)
        try:
            return node.cls(**values)
        except (ValueError, TypeError) as error:  # raised by a __post_init__
            self._collector.add(key, "invalid", str(error))
            return None

    def _report_unknown(self, raw: dict[Any, Any], known: list[str], key: str) -> None:
        for name in raw:
            if not isinstance(name, str):
                self._collector.add(key, f"the key {format_value(name)}", "keys that are strings")
            elif name not in known:
                expected = _choice_text(known) + self._collector.hint(name, known)
                self._collector.add(key_of(key, name), "unknown key", expected)


def _placeholder(node: inspect.Type, raw: object) -> Any:
    """Return a value of the node's type, as close to ``raw`` as possible. Its issues are dropped."""
    return _Converter(IssueCollector("")).value(node, raw, "")


class _InvalidLeaf(Exception):
    """An invalid leaf. ``placeholder`` is a placeholder of the right Python type."""

    def __init__(self, expected: str, placeholder: object, choices: Iterable[str] = ()) -> None:
        self.expected = expected
        self.placeholder = placeholder
        self.choices = choices


_Leaf = Callable[[Any, Any], Any]


def _string(node: inspect.StrType, raw: object) -> str:
    minimum, maximum = node.min_length or 0, node.max_length
    expected = "a string" if node.max_length is None else f"a string of {_range_text(minimum, maximum, 'characters')}"
    if not isinstance(raw, str):
        raise _InvalidLeaf(expected, "")
    # The invalid text is its own placeholder, so that a reference with the same spelling is not reported as well.
    if len(raw) < minimum or (maximum is not None and len(raw) > maximum):
        raise _InvalidLeaf(expected, raw)
    if node.pattern is not None and re.fullmatch(node.pattern, raw) is None:
        raise _InvalidLeaf(f"a string that matches {node.pattern}", raw)
    return raw


def _integer(node: inspect.IntType, raw: object) -> int:
    expected = "an integer" + _bounds_text(node)
    if type(raw) is not int:
        raise _InvalidLeaf(expected, 0)
    if not _within(node, raw):
        raise _InvalidLeaf(expected, raw)
    return raw


def _number(node: inspect.FloatType, raw: object) -> float:
    expected = "a number" + _bounds_text(node)
    if type(raw) is int and raw.bit_length() <= 64:
        raw = float(raw)
    if type(raw) is not float or not math.isfinite(raw):
        raise _InvalidLeaf(expected, 0.0)
    if not _within(node, raw):
        raise _InvalidLeaf(expected, raw)
    return raw


def _boolean(_node: inspect.BoolType, raw: object) -> bool:
    if type(raw) is not bool:
        raise _InvalidLeaf("true or false", False)
    return raw


def _date(_node: inspect.DateType, raw: object) -> datetime.date:
    if type(raw) is datetime.date:
        return raw
    try:
        if isinstance(raw, str) and _ISO_DATE(raw) is not None:
            return datetime.date.fromisoformat(raw)
    except ValueError:
        pass  # the form is right, but there is no such date
    raise _InvalidLeaf('a date such as "2026-08-17"', datetime.date.min)


def _time(_node: inspect.TimeType, raw: object) -> datetime.time:
    if isinstance(raw, datetime.time) and raw.tzinfo is None and not raw.microsecond:
        return raw
    try:
        if isinstance(raw, str) and _ISO_TIME(raw) is not None:
            return datetime.time.fromisoformat(raw)
    except ValueError:
        pass  # 25:00
    raise _InvalidLeaf('a time of the day such as "09:00"', datetime.time.min)


def _literal(node: inspect.LiteralType, raw: object) -> Any:
    return _one_of({str(value): value for value in node.values}, raw)


def _enum(node: inspect.EnumType, raw: object) -> Any:
    return _one_of({str(member.value): member for member in node.cls}, raw)


def _one_of(choices: dict[str, Any], raw: object) -> Any:
    if isinstance(raw, str) and raw in choices:
        return choices[raw]
    raise _InvalidLeaf(_choice_text(list(choices)), next(iter(choices.values())), choices)


def _nothing(_node: inspect.NoneType, raw: object) -> None:
    if raw is not None:
        raise _InvalidLeaf("nothing", None)


_LEAVES: Final[dict[type, _Leaf]] = {
    inspect.StrType: _string,
    inspect.IntType: _integer,
    inspect.FloatType: _number,
    inspect.BoolType: _boolean,
    inspect.DateType: _date,
    inspect.TimeType: _time,
    inspect.LiteralType: _literal,
    inspect.EnumType: _enum,
    inspect.NoneType: _nothing,
}


def _within(node: inspect.IntType | inspect.FloatType, number: float) -> bool:
    return (
        (node.ge is None or number >= node.ge)
        and (node.gt is None or number > node.gt)
        and (node.le is None or number <= node.le)
        and (node.lt is None or number < node.lt)
    )


def _bounds_text(node: inspect.IntType | inspect.FloatType) -> str:
    if node.ge is not None and node.le is not None:
        return f" from {node.ge} to {node.le}"
    bounds = [("of at least", node.ge), ("above", node.gt), ("of at most", node.le), ("below", node.lt)]
    return "".join(f" {words} {bound}" for words, bound in bounds if bound is not None)


def _range_text(minimum: int, maximum: int | None, noun: str) -> str:
    if maximum is None:
        return f"at least {minimum} {noun}"
    return f"{minimum} to {maximum} {noun}" if minimum else f"at most {maximum} {noun}"


def _choice_text(names: list[str]) -> str:
    return names[0] if len(names) == 1 else "one of " + ", ".join(names)


def _expected_of(node: inspect.Type) -> str:
    """Return the expectation for a missing value of this type: the same as for an invalid one."""
    collector = IssueCollector("")
    _Converter(collector).value(node, None, "")
    found = collector.issues()
    return found[0].expected if found else "a value"
