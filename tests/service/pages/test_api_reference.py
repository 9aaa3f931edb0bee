"""``/docs``: the OpenAPI document as a page, without scripts and without outside addresses."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from quota_engine.service.http.auth import Role
from quota_engine.service.http.problems import PROBLEM_TYPES
from quota_engine.service.pages.api_reference import STYLESHEET_PATH, render_api_reference
from tests.support.in_process_service import TOKENS, Client
from tests.support.malformed_requests import DOCUMENT

MALFORMED = {"bad-request", "unknown-path", "method-not-allowed", "unsupported-media-type", "unprocessable"}


@pytest.fixture(scope="module")
def page() -> str:
    return render_api_reference(DOCUMENT).decode()


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def section(page: str, name: str) -> str:
    """Return the text of the part with an id."""
    found = re.search(rf'<article id="{name}">(.*?)</article>', page, re.DOTALL)
    assert found is not None, name
    return html.unescape(re.sub("<[^>]*>", "", found[1]))


def test_every_call_has_its_parameters_and_responses(page: str) -> None:
    for path, method, operation in operations():
        text = section(page, operation["operationId"])
        assert f"{method} {path}" in text
        assert operation["summary"] in text
        for parameter in operation["parameters"]:
            assert parameter["name"] in text
        for status, response in operation["responses"].items():
            assert f"\n{status}" in text
            assert response["description"] in text


def test_every_body_and_problem_is_there(page: str) -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        text = section(page, f"schema-{name}")
        for field in schema.get("properties", ()):
            assert field in text
    for name in PROBLEM_TYPES:
        assert f"<td><code>{name}</code></td>" in page


def test_links_lead_to_parts_of_the_page(page: str) -> None:
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    links = set(re.findall(r' href="([^"]+)"', page))
    assert {link for link in links if not link.startswith("#")} == {STYLESHEET_PATH, "/openapi.json"}
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_page_needs_no_script_and_no_other_host(page: str) -> None:
    assert not re.search(r"<script|<style| style=| on[a-z]+=|https?://|<img|<iframe", page)


async def test_page_and_stylesheet_are_served(client: Client) -> None:
    served = await client.http.get("/docs")
    assert (served.status_code, served.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = served.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self';")
    assert "script-src" not in policy
    assert served.text == render_api_reference(DOCUMENT).decode()
    again = await client.http.get("/docs", headers={"if-none-match": served.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    style = await client.http.get(STYLESHEET_PATH)
    assert (style.status_code, style.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert "url(" not in style.text


@pytest.mark.slow
async def test_examples_are_well_formed_calls(client: Client, page: str) -> None:
    """The service takes each command for a call of its endpoint. The named object need not exist."""
    for _, method, operation in operations():
        command = re.findall(r"^curl .*?(?=^Responses$)", section(page, operation["operationId"]), re.M | re.S)[0]
        words = shlex.split(command.replace("$(openssl rand -hex 16)", "a-key").replace("\\\n", " "))
        url = next(word.removeprefix("$URL") for word in words if word.startswith("$URL"))
        headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
        headers = {name: value.replace("$TOKEN", TOKENS[Role.OPERATOR]) for name, value in headers.items()}
        content = words[words.index("-d") + 1] if "-d" in words else None
        if url.endswith("/stream"):
            continue
        response = await client.http.request(method, url, headers=headers, content=content)
        kind = response.json().get("type", "") if response.status_code >= 400 else ""
        assert kind.rpartition(":")[2].rpartition("/")[2] not in MALFORMED, (command, response.text)
