"""Generate the sections of the documents that follow from the code and from measurements: ``python docs/generate.py``.

Each section is between two marker lines of its page. A test fails if a section differs from the generated one.
"""

from __future__ import annotations

__all__ = ["SECTIONS", "main", "replace_sections"]

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from quota_engine.cli.sizing import FIGURES
from quota_engine.domain import lifecycle, outcomes
from quota_engine.domain.lifecycle import ACTIVE, FINAL, TRANSITIONS, State, Verb
from quota_engine.domain.outcomes import PRECEDENCE, SUCCESSES
from quota_engine.draws import outcomes as draw_outcomes
from quota_engine.service.http.problems import PROBLEM_TYPES, TYPE_PREFIX

DOCS = Path(__file__).parent


def member_docs(module: ModuleType, class_name: str) -> dict[str, str]:
    """Return the docstrings of an enum's members by member name."""
    (definition,) = [
        node
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.ClassDef) and node.name == class_name
    ]
    docs: dict[str, str] = {}
    for node, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            described = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            text = str(following.value.value) if described else ""  # type: ignore[union-attr]
            docs[node.targets[0].id] = " ".join(text.replace("``", "`").split())
    return docs


def diagram() -> str:
    """Return the life cycle as a Mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    {source or '[*]'} --> {target}: {verb}" for (source, verb), target in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL]
    return "\n".join([*lines, "```"])


def transitions() -> str:
    """Return the life cycle as a table with a row per state and a column per verb."""
    used = [verb for verb in Verb if any(verb is one for _, one in TRANSITIONS)]
    lines = [f"| from | {' | '.join(used)} |", f"| --- |{' --- |' * len(used)}"]
    for state in (None, *State):
        cells = [TRANSITIONS.get((state, verb), "") for verb in used]
        if any(cells):
            lines.append(f"| {state or '(none)'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def states() -> str:
    """Return the table of states."""
    docs = member_docs(lifecycle, "State")
    lines = ["| state | counts against the identity limits | final | meaning |", "| --- | --- | --- | --- |"]
    for state in State:
        active, final = ("yes" if state in kinds else "" for kinds in (ACTIVE, FINAL))
        lines.append(f"| `{state}` | {active} | {final} | {docs[state.name]} |")
    return "\n".join(lines)


def statuses() -> str:
    """Return the statuses in order of precedence."""
    docs = member_docs(outcomes, "Status")
    lines = ["| # | status | meaning |", "| --- | --- | --- |"]
    for number, status in enumerate(PRECEDENCE, 1):
        text = docs[status.name] or "Success: the reservation is in this state."
        lines.append(f"| {number} | `{status}`{'' if status in SUCCESSES else ' (refusal)'} | {text} |")
    return "\n".join(lines)


def answers() -> str:
    """Return the HTTP status of each refusal, and the sentence that the pages show for it."""
    from quota_engine.service.http.problems import STATUS_PROBLEMS
    from quota_engine.service.pages.i18n import CITIZEN_TEXTS

    lines = ["| status | HTTP | sentence |", "| --- | --- | --- |"]
    for status in PRECEDENCE:
        if status in STATUS_PROBLEMS:
            text = CITIZEN_TEXTS.get(f"refusal_{status}", CITIZEN_TEXTS["refusal_other"])["en"]
            lines.append(f"| `{status}` | {STATUS_PROBLEMS[status].status} | {text} |")
    return "\n".join(lines)


def draw_statuses() -> str:
    """Return the statuses of draws in order of precedence."""
    docs = member_docs(draw_outcomes, "DrawStatus")
    lines = ["| # | status | |", "| --- | --- | --- |"]
    for number, status in enumerate(draw_outcomes.DrawStatus, 1):
        refusal = "" if draw_outcomes.DrawOutcome(status).ok else " (refusal)"
        lines.append(f"| {number} | `{status}`{refusal} | {docs[status.name]} |")
    return "\n".join(lines)


def http_interface() -> str:
    """Return all endpoints of the HTTP interface with their roles, fields and responses."""
    from quota_engine.service.api import API_SECTIONS
    from quota_engine.service.openapi import openapi_document

    whole = openapi_document(API_SECTIONS)
    schemas = whole["components"]["schemas"]
    lines = [" · ".join(f"[{section.name}](#{section.name})" for section in API_SECTIONS)]
    for section in API_SECTIONS:
        lines += ["", f"## {section.name}", "", section.summary]
        for endpoint in section.endpoints:
            operation = whole["paths"][endpoint.path][endpoint.method.lower()]
            lines += _call(operation, endpoint.method, endpoint.path, schemas)
    lines += [
        "",
        "## problems",
        "",
        f"The `type` of a problem document is `{TYPE_PREFIX}` followed by one of these names.",
    ]
    lines += ["", "| type | status | title |", "| --- | --- | --- |"]
    lines += [f"| `{kind.name}` | {kind.status} | {kind.title} |" for kind in PROBLEM_TYPES.values()]
    return "\n".join(lines)


def _call(operation: dict[str, Any], method: str, path: str, schemas: dict[str, Any]) -> list[str]:
    roles = " or ".join(f"`{role}`" for role in operation.get("x-roles", ())) or "none needed"
    lines = ["", f"### `{method} {path}`", "", f"{operation['summary']} Role: {roles}.", ""]
    rows = [
        (one["name"], one["in"], one["schema"], one["required"], one.get("description", ""))
        for one in operation["parameters"]
        if one["in"] != "path"
    ]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if content:
        body = schemas[content["schema"]["$ref"].rpartition("/")[2]]
        required = body.get("required", ())
        rows += [
            (name, "body", kind, name in required, kind.get("description", ""))
            for name, kind in body["properties"].items()
        ]
    if rows:
        lines += ["| field | in | type | |", "| --- | --- | --- | --- |"]
        for name, where, kind, required, description in rows:
            cell = " ".join(f"{_kind(kind, schemas)}. {description}".split()).replace("|", "\\|")
            lines.append(f"| `{name}` | {where} | {cell} | {'required' if required else ''} |")
        lines.append("")
    if content.get("example"):
        lines += ["```json", json.dumps(content["example"]), "```", ""]
    for http, response in operation["responses"].items():
        kinds = [f"`{kind}`" for kind in response.get("x-types", ()) if kind not in _ANYWHERE]
        if int(http) >= 400 and not kinds:
            continue
        schema = response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
        name = f" `{schema.rpartition('/')[2]}`" if schema else ""
        line = f"- `{http}`{name}{': ' if kinds else ''}{', '.join(kinds)}"
        lines += textwrap.wrap(line, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return lines


_ANYWHERE = {
    "bad-request", "unauthorized", "forbidden", "unprocessable", "request-timeout", "too-large", "headers-too-large",
    "unsupported-media-type", "internal", "unavailable", "outcome-unknown",
}  # fmt: skip
_LIMITS = {
    "minimum": "from {:,}",
    "maximum": "to {:,}",
    "minLength": "at least {} character",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {:,}",
}


def _kind(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """Return the type and limits of a field in words."""
    if "$ref" in schema:
        whole = schemas[schema["$ref"].rpartition("/")[2]]
        if "properties" not in whole:
            return _kind(whole, schemas)
        return "object of " + ", ".join(f"`{name}`" for name in whole["properties"])
    if "anyOf" in schema:
        return " or ".join(_kind(one, schemas) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"])
    words = [schema.get("format") or schema.get("type", "")]
    words += [text.format(schema[limit]) for limit, text in _LIMITS.items() if limit in schema]
    if "description" not in schema and "pattern" in schema:
        words.append(f"pattern `{schema['pattern']}`")
    text = ", ".join(words)
    if "items" in schema:
        text += f" of {_kind(schema['items'], schemas)}"
    if schema.get("default") not in (None, "", {}, []):
        text += f"; default `{json.dumps(schema['default'])}`"
    return text


def _campaign() -> dict[str, Any]:
    """Return the results that ``python -m benchmarks.fairness --write`` has written."""
    data: dict[str, Any] = json.loads((DOCS / "data" / "fairness.json").read_text(encoding="utf-8"))
    return data


def _interval(figure: list[float], digits: int, scale: float = 1.0) -> str:
    """Return a mean with half of its confidence interval, or the mean alone if all seeds agree."""
    mean, half = (round(value / scale, digits) + 0.0 for value in figure)
    text = f"{mean:,.{digits}f}" if half == 0 else f"{mean:,.{digits}f} ± {half:,.{digits}f}"
    return text.replace("-", "\u2212")


def fairness() -> str:
    """Return a table with a row per setting of the campaign."""
    data = _campaign()
    lines = [
        "| setting | seeds | brokers come | places held | handed over | profit, million rupiah "
        "| held, and nobody comes | correlation of success with latency | most engine calls a second |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, figures in data["settings"].items():
        cells = [
            f"{figures['seeds'][0]}",
            f"{100 * figures['entered'][0]:.0f} %",
            _interval(figures["held"], 1),
            _interval(figures["delivered"], 1),
            _interval(figures["profit"], 2, 1e6),
            _interval(figures["idle_of_brokers"], 1),
            _interval(figures["correlation"], 3),
            _interval(figures["calls_per_s_max"], 0),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    people, places = data["people"], data["places"]
    lines.append("")
    lines.append(
        f"Means ± half of the 95 % interval; {people['high']:,} people for {places} places, with low demand "
        f"{people['low']}."
    )
    return "\n".join(lines)


def _php(name: str) -> str:
    return f"```php\n{(DOCS.parent / 'examples' / name).read_text(encoding='utf-8').rstrip()}\n```"


def quota_service_php() -> str:
    """Return the source of the part that the recipes in PHP share."""
    return _php("quota_service.php")


def booking_php() -> str:
    """Return the source of the page in PHP."""
    return _php("booking.php")


def booking_in_room_php() -> str:
    """Return the source of the program in PHP that waits in a room."""
    return _php("booking_in_room.php")


def package_versions() -> str:
    """Return the versions of dependencies that ``make package-matrix`` has tried, as a table."""
    data: dict[str, Any] = json.loads((DOCS / "data" / "packages.json").read_text(encoding="utf-8"))
    found: dict[str, tuple[str, str]] = {}
    for versions in data["extras"].values():
        for name, oldest in versions["oldest"].items():
            found[name] = (oldest, versions["newest"][name])
    lines = ["| dependency | oldest | newest |", "| --- | --- | --- |"]
    lines += [f"| {name} | {oldest} | {newest} |" for name, (oldest, newest) in sorted(found.items())]
    lines += ["", f"Tried with Python {data['python']}, each of {len(data['extras']) - 1} extras alone."]
    return "\n".join(lines)


def load() -> str:
    """Return the results that ``python -m loadtests measure --docs docs`` has written, as three tables."""
    data: dict[str, Any] = json.loads((DOCS / "data" / "load.json").read_text(encoding="utf-8"))
    names = {"press": "a press", "room": "a join"}
    machine, where = data["machine"], "share all cores with the load"
    if data["is_pinned"]:
        where = "have one core, the load has the other"
    lines = [
        f"Measured on {machine['cores']} cores ({machine['processor']}, {machine['system'].partition('-')[0]}, "
        f"Python {machine['python']}).",
        f"The service, with one worker, and its store {where}.",
        "",
        "| an arrival is | most a second | 99 of 100 waited then | half as many: 99 of 100 waited |",
        "| --- | --- | --- | --- |",
    ]
    for name, label in names.items():
        rate, steps = data[name]["capacity"], data[name]["steps"]
        waits = [
            min(steps, key=lambda step: (abs(step["rate"] - wanted), step["p99_ms"]))["p99_ms"]
            for wanted in (rate, rate / 2)
        ]
        lines.append(f"| {label} | {rate:,.0f} | {waits[0]:,.0f} ms | {waits[1]:,.0f} ms |")
    lines += [
        "",
        "| an arrival is | times that, for a second | connections | waited, half | 99 of 100 | answers "
        "| without an answer | all good again after | memory of the service: before, most, after | of the store |",
        f"|{' --- |' * 10}",
    ]
    for name, label in names.items():
        for burst in data[name]["bursts"]:
            answers = ", ".join(
                f"{count:,} × {'turned away' if status == '503' else status}"
                for status, count in burst["by_status"].items()
            )
            recovered, service, store = burst["recovered_s"], burst["service_mib"], burst["store_mib"]
            lines.append(
                f"| {label} | {burst['factor']:g} | {burst['connections']:,} "
                f"| {burst['p50_ms'] / 1000:.1f} s | {burst['p99_ms'] / 1000:.1f} s | {answers} | {burst['lost']} "
                f"| {'later than 13 s' if recovered is None else f'{recovered} s'} "
                f"| {service[0]:.0f}, {max(service):.0f}, {service[-1]:.0f} MiB "
                f"| {store[0]:.0f} to {store[-1]:.0f} MiB |"
            )
    lines += [
        "",
        "| the old application (modeled): people | waited, half | waited, 99 of 100 | requests | without an answer "
        "| sold that do not exist | all over after |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for old in data["old"]:
        lines.append(
            f"| {old['people']:,} | {old['p50_ms'] / 60_000:.1f} min | {old['p99_ms'] / 60_000:.0f} min "
            f"| {old['requests']:,} | {old['errors']:,} | {old['oversold']} | {old['elapsed_s'] / 60:.0f} min |"
        )
    return "\n".join(lines)


def imports() -> str:
    """Return the diagram of imports between the packages."""
    sys.path.insert(0, str(DOCS.parent))
    try:
        from scripts.import_graph import mermaid
    finally:
        sys.path.pop(0)
    return mermaid()


def peers() -> str:
    """Return the results that ``python -m benchmarks.peers --write`` has written."""
    data: dict[str, Any] = json.loads((DOCS / "data" / "peers.json").read_text(encoding="utf-8"))
    servers = " and ".join(dict.fromkeys(one["server"] for one in data["results"]))
    lines = [
        f"Medians of {data['rounds']} rounds with {servers} on {data['processor']}, {data['cores']} cores.",
        f"Client: Python {data['python']}, redis-py {data['redis_py']}, hiredis {data['hiredis']}.",
        "",
        f"| a place from | one caller: p50 | the client's processor | {data['threads']} threads: places a second "
        "| leaves out |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {one['name']} | {one['lone_us']:,} µs | {one['client_us']:,} µs | {one['a_second']:,} "
        f"| {one['leaves_out']} |"
        for one in data["results"]
    ]
    return "\n".join(lines)


def sizing_figures() -> str:
    """Return the figures of ``quota-engine sizing`` with their sources."""
    lines = ["| what | cost | measured in |", "| --- | --- | --- |"]
    lines += [
        f"| {one.meaning} | {one.value:,} {one.unit} | [{one.source.partition('#')[0]}]({one.source}) |"
        for one in FIGURES.values()
    ]
    return "\n".join(lines)


SECTIONS: dict[str, Callable[[], str]] = {
    "booking_in_room_php": booking_in_room_php,
    "booking_php": booking_php,
    "interface": http_interface,
    "draw_statuses": draw_statuses,
    "diagram": diagram,
    "transitions": transitions,
    "states": states,
    "statuses": statuses,
    "answers": answers,
    "fairness": fairness,
    "imports": imports,
    "load": load,
    "package_versions": package_versions,
    "peers": peers,
    "quota_service_php": quota_service_php,
    "sizing_figures": sizing_figures,
}


def replace_sections(text: str) -> str:
    """Return ``text`` with every section between markers generated again."""

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{SECTIONS[match[2]]()}\n\n{match[3]}"

    pattern = r"(<!-- made from the code: (\w+) -->).*?(<!-- end -->)"
    return re.sub(pattern, replaced, text, flags=re.DOTALL)


def main() -> None:
    """Rewrite the generated sections of all pages."""
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        path.write_text(replace_sections(text), encoding="utf-8")


if __name__ == "__main__":
    main()
