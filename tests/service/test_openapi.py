"""The OpenAPI document is valid, and its examples match its schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from quota_engine.service.api import API_SECTIONS, ENDPOINTS
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.http.problems import PROBLEM_TYPES
from quota_engine.service.openapi_examples import BODY_EXAMPLES, QUERY_EXAMPLES
from tests.support.in_process_service import Client
from tests.support.malformed_requests import DOCUMENT


def operation(endpoint: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]
    return found


def is_valid(value: object, schema: dict[str, Any]) -> bool:
    """Return True if a value matches a schema."""
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]}).is_valid(value)


@pytest.mark.slow
async def test_document_is_valid_openapi_and_served(client: Client) -> None:
    """The document validates against OpenAPI 3.1's schema and refers to nothing outside."""
    from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR  # slow to import

    OPENAPI_31_VALIDATOR.validate(DOCUMENT)
    served = await client.http.get("/openapi.json")
    assert served.json() == json.loads(json.dumps(DOCUMENT))
    assert "http://" not in served.text
    assert "https://" not in served.text


def test_operations_have_unique_names_one_tag_and_a_summary() -> None:
    tags = {tag["name"]: tag["description"] for tag in DOCUMENT["tags"]}
    assert len(tags) == len(API_SECTIONS)
    assert all(text.endswith(".") for text in tags.values())
    assert len({endpoint.name for endpoint in ENDPOINTS}) == len(ENDPOINTS)
    for endpoint in ENDPOINTS:
        found = operation(endpoint)
        (tag,) = found["tags"]
        assert tag in tags
        assert found["summary"].endswith("."), endpoint.name
        assert ("security" in found) is (endpoint.roles is not None)
        assert found.get("x-roles", []) == sorted(endpoint.roles or ())


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: one.name)
def test_examples_match_their_schemas(endpoint: Endpoint) -> None:
    """Each problem type of a response has that response's status."""
    found = operation(endpoint)
    for parameter in found["parameters"]:
        if "example" in parameter:
            assert is_valid(parameter["example"], parameter["schema"]), parameter["name"]
    assert {one["name"] for one in found["parameters"] if one["in"] == "query"} >= set(
        QUERY_EXAMPLES.get(endpoint.name, ())
    )
    if endpoint.body_type is not None:
        content = found["requestBody"]["content"]["application/json"]
        assert is_valid(content["example"], content["schema"])
        assert content["example"] or not DOCUMENT["components"]["schemas"][endpoint.body_type.__name__]["properties"]
    for http, response in found["responses"].items():
        assert response["description"]
        assert "X-Request-Id" in response["headers"]
        for kind in response.get("x-types", ()):
            assert PROBLEM_TYPES[kind].status == int(http)
        if int(http) >= 400:
            assert response.get("x-types") or endpoint.name == "ready"


def test_examples_belong_to_endpoints() -> None:
    names = {endpoint.name for endpoint in ENDPOINTS}
    assert names >= BODY_EXAMPLES.keys() | QUERY_EXAMPLES.keys()
