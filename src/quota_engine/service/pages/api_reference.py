"""Page ``/docs``: the OpenAPI document for reading, as one page without scripts and without outside addresses."""

from __future__ import annotations

__all__ = ["REFERENCE_HEADERS", "STYLESHEET_PATH", "render_api_reference", "render_stylesheet"]

import importlib.resources
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

import jinja2
from markupsafe import Markup, escape

from quota_engine.service.openapi_examples import QUERY_EXAMPLES

STYLESHEET_PATH: Final = "/docs/reference.css"
REFERENCE_HEADERS: Final = (
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("referrer-policy", "same-origin"),
)
"""Headers of the page. It needs its stylesheet, and nothing else."""
_FOLDER: Final = importlib.resources.files(__package__)
_SUCCESS_STATUSES: Final = 400
_BOUNDS: Final = (
    ("minimum", "from {}"),
    ("maximum", "to {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
)


def render_api_reference(document: Mapping[str, Any]) -> bytes:
    """Return the page of an OpenAPI 3.1 document of this service.

    Args:
        document: as :func:`quota_engine.service.openapi.openapi_document` returns it.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(prose=_prose, type=_type, details=_details, example=_example)
    environment.globals.update(curl=_curl, stylesheet=STYLESHEET_PATH)
    operations: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            operations[operation["tags"][0]].append({"path": path, "method": method.upper(), **operation})
    template = environment.from_string(_read("templates/api_reference.html"))
    return template.render(document=document, operations=operations, success=_SUCCESS_STATUSES).encode()


def render_stylesheet() -> bytes:
    """Return the stylesheet of the page, at :data:`STYLESHEET_PATH`."""
    return _read("static/reference.css").encode()


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _prose(text: str) -> Markup:
    """Return the Markdown of a description as HTML: paragraphs, code spans, and tables."""
    parts = []
    for block in text.strip().split("\n\n"):
        rows = block.split("\n")
        if rows[0].startswith("|"):
            head, _, *body = ([_inline(cell) for cell in row.strip("| ").split(" | ")] for row in rows)
            parts.append(Markup('<div class="scroll"><table><tr>%s</tr>%s</table></div>') % (
                Markup("").join(Markup('<th scope="col">%s</th>') % cell for cell in head),
                Markup("").join(
                    Markup("<tr>%s</tr>") % Markup("").join(Markup("<td>%s</td>") % cell for cell in row)
                    for row in body
                ),
            ))  # fmt: skip
        else:
            parts.append(Markup("<p>%s</p>") % _inline(block))
    return Markup("").join(parts)


def _inline(text: str) -> Markup:
    return Markup(re.sub(r"`+([^`]+)`+", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - the text is escaped


def _type(schema: Mapping[str, Any]) -> Markup:
    """Return the type of a value; a link for a schema that has a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#schema-%s">%s</a>') % (name, name)
    if "anyOf" in schema:
        return Markup(" or ").join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return Markup(" or ").join(Markup("<code>%s</code>") % json.dumps(one) for one in schema["enum"])
    kind = schema.get("type", "any value")
    if kind == "array":
        return Markup("list of %s") % _type(schema.get("items", {}))
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return Markup("object of %s") % _type(schema["additionalProperties"])
    return escape(schema.get("format") or kind)


def _details(schema: Mapping[str, Any]) -> Markup:
    """Return bounds, pattern and default of a value."""
    parts = [escape(text.format(f"{schema[name]:,}")) for name, text in _BOUNDS if name in schema]
    if "pattern" in schema:
        parts.append(Markup("pattern <code>%s</code>") % schema["pattern"])
    if "default" in schema:
        parts.append(Markup("default <code>%s</code>") % json.dumps(schema["default"]))
    return Markup(", ").join(parts)


def _example(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def _curl(operation: Mapping[str, Any]) -> str:
    """Return a command that sends the example of a call."""
    values = {one["name"]: str(one["example"]) for one in operation["parameters"] if one["in"] == "path"}
    query = urlencode(QUERY_EXAMPLES.get(operation["operationId"], {}))
    path = operation["path"].format(**values) + (f"?{query}" if query else "")
    lines = [f'curl -X {operation["method"]} "$URL{path}"' if operation["method"] != "GET" else f'curl "$URL{path}"']
    if "security" in operation:
        lines.append('-H "Authorization: Bearer $TOKEN"')
    if any(one["name"] == "Idempotency-Key" for one in operation["parameters"]):
        lines.append('-H "Idempotency-Key: $(openssl rand -hex 16)"')
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    if body is not None:
        lines += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}"]
    return " \\\n  ".join(lines)
