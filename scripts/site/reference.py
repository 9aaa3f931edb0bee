"""Pages of the reference that follow from the code. They are made at each build of the site, and never committed."""

from __future__ import annotations

__all__ = ["reference_pages"]

import ast
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, Final

import msgspec
from msgspec import inspect as msgspec_inspect

from scripts.site.python_reference import python_pages
from scripts.site.remedies import ERROR_REMEDIES, PROBLEM_REMEDIES, STATUS_REMEDIES


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return a table of Markdown. Cells lose their line breaks."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return lines + [
        f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in row)} |" for row in rows
    ]


def _prose(docstring: str | None) -> str:
    """Return a docstring as Markdown: single backticks, names without their roles."""
    text = inspect.cleandoc(docstring or "")
    text = re.sub(r":\w+:`[~]?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def _field_docs(definition: type) -> dict[str, str]:
    """Return the strings after the fields of a class, and after those of its bases, by field."""
    docs: dict[str, str] = {}
    for base in reversed(definition.__mro__):
        if not base.__module__.startswith("quota_engine"):
            continue
        (node,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(base))).body
        assert isinstance(node, ast.ClassDef)
        for one, following in zip(node.body, node.body[1:], strict=False):
            match one, following:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = _prose(text)
    return docs


# --- The command line ---


def command_line_page() -> str:
    """Return the page of all commands, from their docstrings and options."""
    from quota_engine.cli.main import COMMANDS, command_app

    made = command_app(list(COMMANDS)).generate_docs(output_format="markdown", recursive=True)
    body = re.sub(r"^# quota-engine\n.*?(?=^## quota-engine )", "", made, flags=re.MULTILINE | re.DOTALL)
    # The library repeats an empty first choice. Subcommands inherit the setting without negative options and defaults
    # only when they run.
    body = body.replace("[choices: , ", "[choices: ")
    body = re.sub(r", --no-[\w-]+`", "`", body)
    body = re.sub(r" \*\[default: False\]\*$", "", body, flags=re.MULTILINE)
    overview = [(f"[`{name}`](#quota-engine-{name})", line) for name, (_, line) in COMMANDS.items()]
    lines = [
        "# Command line",
        "",
        "This page lists every command and option of `quota-engine`. It is generated from the code of the commands.",
        "Each command that reports has `--json`. Install the commands with the extra `cli`.",
        "",
        *_table(("command", "task"), overview),
        "",
        *_table(
            ("exit code", "meaning"),
            [
                ("0", "done"),
                ("1", "the finding is bad, such as an oversell or a failed verification"),
                ("2", "bad usage or input"),
                ("3", "the store or the service cannot be reached"),
                ("130", "interrupted"),
            ],
        ),
        "",
        body,
    ]
    return "\n".join(lines)


# --- Keys of the catalog ---


def _described(kind: msgspec_inspect.Type, structs: dict[str, type]) -> str:
    """Return the type of a key in words, and note the tables that it refers to."""
    match kind:
        case msgspec_inspect.Metadata():
            text = (kind.extra_json_schema or {}).get("description")
            return str(text) if text else _described(kind.type, structs)
        case msgspec_inspect.UnionType():
            shown = [_described(one, structs) for one in kind.types if not isinstance(one, msgspec_inspect.NoneType)]
            return " or ".join(shown)
        case msgspec_inspect.StructType():
            structs.setdefault(kind.cls.__name__, kind.cls)
            return f"[{kind.cls.__name__}](#{kind.cls.__name__.lower()})"
        case msgspec_inspect.VarTupleType() | msgspec_inspect.ListType():
            inner = _described(kind.item_type, structs)
            return f"list of {inner}"
        case msgspec_inspect.DictType():
            return f"table of {_described(kind.value_type, structs)}"
        case msgspec_inspect.EnumType():
            return " or ".join(f'`"{one.value}"`' for one in kind.cls)
        case msgspec_inspect.LiteralType():
            return " or ".join(f'`"{one}"`' for one in kind.values)
        case msgspec_inspect.IntType():
            bounds = [
                f"from {kind.ge:,}" if kind.ge is not None else "",
                f"to {kind.le:,}" if kind.le is not None else "",
            ]
            return " ".join(["a whole number", *filter(None, bounds)])
        case msgspec_inspect.StrType():
            return "a text" + (f" of at most {kind.max_length:,} characters" if kind.max_length else "")
        case msgspec_inspect.BoolType():
            return "`true` or `false`"
        case msgspec_inspect.DateType():
            return "a date"
        case msgspec_inspect.TimeType():
            return "a time of the day"
        case _:
            return type(kind).__name__.removesuffix("Type").lower()


def _default(field: msgspec_inspect.Field) -> str:
    if field.required:
        return "required"
    if field.default is msgspec.NODEFAULT or field.default in (None, "", ()):
        return ""
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{getattr(value, 'value', value)}`"


def catalog_page() -> str:
    """Return the page of all tables and keys of a catalog file, from its schema."""
    from quota_engine.catalog.schema import CatalogFile

    lines = [
        "# Catalog keys",
        "",
        "This page lists every key of a catalog file. It is generated from the schema that reads the file.",
        "The how-to page on catalogs has an example and the reasons.",
        "A key without a default that is not required may be left out; rules then come from the plan, the file, or the",
        "library. Keys that are not on this page are errors.",
    ]
    structs: dict[str, type] = {"CatalogFile": CatalogFile}
    done: set[str] = set()
    while left := [name for name in structs if name not in done]:
        definition = structs[left[0]]
        done.add(left[0])
        info = msgspec_inspect.type_info(definition)
        assert isinstance(info, msgspec_inspect.StructType)
        docs = _field_docs(definition)
        rows = [
            (f"`{one.encode_name}`", _described(one.type, structs), _default(one), docs.get(one.name, ""))
            for one in info.fields
        ]
        if info.tag is not None:
            rows.insert(0, (f"`{info.tag_field}`", f'`"{info.tag}"`', "required", ""))
        lines += ["", f"## {left[0]}", "", _prose(definition.__doc__), ""]
        lines += _table(("key", "value", "default", "note"), rows)
    return "\n".join(lines)


# --- Events ---


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        return str(annotation).replace("typing.", "").replace("quota_engine.domain.", "")
    return str(getattr(annotation, "__name__", annotation))


def events_page() -> str:
    """Return the page of all events with their fields, and of the verbs of a reservation."""
    from quota_engine.domain import events
    from quota_engine.domain.lifecycle import TRANSITIONS, Verb

    lines = [
        "# Events",
        "",
        "This page lists the events of an office's ledger with their fields. It is generated from the code.",
        "Events alone rebuild the state. Read them with `engine.events(...)` or `GET /v1/offices/{office}/events`.",
        "",
        "`at_ms` is a time in milliseconds since 1970 (UTC), and `day` the ordinal of a date",
        "(`datetime.date.fromordinal`).",
    ]
    for kind in typing.get_args(events.Event):
        hints = typing.get_type_hints(kind)
        rows = [(f"`{name}`", f"`{_type_name(hints[name])}`") for name in kind.__struct_fields__]
        lines += ["", f"## {kind.__name__}", "", _prose(kind.__doc__), "", *_table(("field", "type"), rows)]
    lines += ["", "## Verbs of a reservation", "", "The `verb` of `ReservationChanged` is one of these steps.", ""]
    rows = []
    for verb in Verb:
        steps = [
            f"`{source or '(none)'}` to `{target}`" for (source, one), target in TRANSITIONS.items() if one is verb
        ]
        rows.append((f"`{verb}`", ", ".join(steps)))
    return "\n".join([*lines, *_table(("verb", "from state to state"), rows)])


# --- Metrics ---


def metrics_page() -> str:
    """Return the page of all metrics, as ``/metrics`` names them."""
    from quota_engine.service.observability.metric_families import METRIC_FAMILIES

    rows = [
        (
            f"`{name}{'_total' if family.kind == 'counter' else ''}`",
            family.kind,
            ", ".join(f"`{label}`" for label in family.labels),
            family.help,
        )
        for name, family in METRIC_FAMILIES.items()
    ]
    lines = [
        "# Metrics",
        "",
        "This page lists the metrics of `GET /metrics`. It is generated from the code.",
        "[The page on monitoring](../monitoring.md) has the alarms.",
        "A histogram has the series `_bucket` (with the label `le`), `_sum` and `_count`.",
        "",
        *_table(("metric", "kind", "labels", "meaning"), rows),
    ]
    return "\n".join(lines)


# --- Statuses and errors ---


def _member_docs(module: ModuleType, name: str) -> dict[str, str]:
    (definition,) = [
        node
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    docs = {}
    for node, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(following, ast.Expr):
            assert isinstance(following.value, ast.Constant)
            docs[node.targets[0].id] = _prose(str(following.value.value))
    return docs


def statuses_page() -> str:
    """Return the page of all statuses in their precedence, with HTTP status and remedy."""
    from quota_engine.domain import outcomes
    from quota_engine.domain.outcomes import PRECEDENCE, SUCCESSES
    from quota_engine.service.http.problems import STATUS_PROBLEMS

    docs = _member_docs(outcomes, "Status")
    refusals = [
        (str(number), f"`{one}`", str(STATUS_PROBLEMS[one].status), docs[one.name], STATUS_REMEDIES[one.name])
        for number, one in enumerate(PRECEDENCE, 1)
        if one not in SUCCESSES
    ]
    successes = [(f"`{one}`", docs.get(one.name, "The reservation is in this state.")) for one in SUCCESSES]
    lines = [
        "# Statuses",
        "",
        "This page lists every status of an outcome, with its HTTP status and the next step.",
        "If several apply to a command, the first in this order is its status.",
        "The page is generated from the code. [rules.md](../rules.md) has the statuses of each command.",
        "",
        "## Refusals, in order of precedence",
        "",
        "A refusal leaves no state: the same key may be tried again.",
        "",
        *_table(("#", "status", "HTTP", "meaning", "next step"), refusals),
        "",
        "## Successes",
        "",
        *_table(("status", "meaning"), successes),
    ]
    return "\n".join(lines)


def errors_page() -> str:
    """Return the page of all errors of Python and all problem types of HTTP, with their remedy."""
    from quota_engine.domain import errors
    from quota_engine.service.http.problems import PROBLEM_TYPES, STATUS_PROBLEMS, TYPE_PREFIX

    of_python = [
        (f"`{name}`", _prose(getattr(errors, name).__doc__).partition("\n\n")[0], remedy)
        for name, remedy in ERROR_REMEDIES.items()
    ]
    by_problem = {problem.name: STATUS_REMEDIES[status.name] for status, problem in STATUS_PROBLEMS.items()}
    own = [kind for kind in PROBLEM_TYPES.values() if kind.name in PROBLEM_REMEDIES]
    of_engine = [kind for kind in PROBLEM_TYPES.values() if kind.name in by_problem]
    rest = [kind for kind in PROBLEM_TYPES.values() if kind not in own and kind not in of_engine]
    rows = [(f"`{kind.name}`", str(kind.status), kind.title, PROBLEM_REMEDIES[kind.name]) for kind in own]
    rows += [(f"`{kind.name}`", str(kind.status), kind.title, by_problem[kind.name]) for kind in of_engine]
    lines = [
        "# Errors",
        "",
        "This page lists the errors of the Python library and the problem types of the HTTP service.",
        "It is generated from the code. A full quota is no error: see [the statuses](statuses.md).",
        "",
        "## Python",
        "",
        *_table(("error", "meaning", "next step"), of_python),
        "",
        "## HTTP",
        "",
        "Every error is a problem document (RFC 9457).",
        f"Its `type` is `{TYPE_PREFIX}` followed by a name of this table.",
        "",
        *_table(("type", "HTTP", "title", "next step"), rows),
        "",
        "## HTTP: rooms and draws",
        "",
        "The titles of these problems name the next step.",
        "",
        *_table(("type", "HTTP", "title"), [(f"`{kind.name}`", str(kind.status), kind.title) for kind in rest]),
    ]
    return "\n".join(lines)


_PAGES: Final[dict[str, Callable[[], str]]] = {
    "reference/command-line.md": command_line_page,
    "reference/catalog-keys.md": catalog_page,
    "reference/events.md": events_page,
    "reference/metrics.md": metrics_page,
    "reference/statuses.md": statuses_page,
    "reference/errors.md": errors_page,
}


def reference_pages() -> dict[str, str]:
    """Return the generated pages by their place on the site."""
    return {place: make() + "\n" for place, make in _PAGES.items()} | python_pages()
