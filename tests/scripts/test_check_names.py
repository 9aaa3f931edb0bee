"""Retired names and class names with two meanings, as ``scripts/check_names.py`` finds them."""

from __future__ import annotations

import pytest

from scripts.check_names import RetiredNames, definitions, duplicate_classes

RETIRED = RetiredNames(
    {
        "words": {"old_call": "new_call"},
        "classes": {"Old": "New", "service:Call": "Request"},
        "parameters": {"engine:key": "idempotency_key", "Engine.lookup.version": "expected_version"},
        "fields": {"left": "places_left"},
        "members": {"Status.OVER": "DAY_OVER"},
        "paths": {"src/quota_engine/flow": "workflows", "src/quota_engine/domain/units.py": "domain.inventory"},
    }
)
ENGINE = """
class Engine:
    left: int

    def reserve(self, key): ...
    def lookup(self, version): ...
    def cancel(self, version): ...
    def _send(self, key): ...
"""


def names(path: str, text: str) -> list[str]:
    """Return the retired names that a module defines."""
    return [found.name for found in RETIRED.in_definitions(definitions(path, text))]


def test_definitions_are_found_in_their_scope() -> None:
    found = names("src/quota_engine/engine/quota_engine.py", ENGINE)
    assert found == ["left", "engine:key", "Engine.lookup.version"]
    assert names("src/quota_engine/client/clients.py", ENGINE) == ["left", "Engine.lookup.version"]


def test_classes_can_be_retired_in_one_folder() -> None:
    assert names("src/quota_engine/service/app.py", "class Call: ...\nclass _Old: ...\n") == ["service:Call"]
    assert names("src/quota_engine/waiting_room/machine.py", "class Call: ...\nclass Old: ...\n") == ["Old"]


def test_members_of_enumerations_are_found() -> None:
    assert names("src/quota_engine/domain/outcomes.py", "class Status:\n    OVER = 1\n") == ["Status.OVER"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("`engine.old_call()` waits.", "old_call"),
        ("The outcome is `Status.OVER`.", "Status.OVER"),
        ("from quota_engine.flow.desk import x", "quota_engine.flow"),
        ("See src/quota_engine/domain/units.py.", "quota_engine/domain/units"),
    ],
)
def test_words_are_found_in_texts(text: str, name: str) -> None:
    assert [found.name for found in RETIRED.in_text("docs/a.md", text)] == [name]


def test_parts_of_words_are_not_found() -> None:
    text = "my_old_call, old_calls, quota_engine.flows, Status.OVERLOADED"
    assert list(RETIRED.in_text("docs/a.md", text)) == []


def test_files_at_retired_paths_are_found() -> None:
    paths = ["src/quota_engine/flow/desk.py", "src/quota_engine/flower.py", "src/quota_engine/domain/units.py"]
    assert [found.path for found in RETIRED.in_paths(paths)] == [paths[0], paths[2]]


def test_a_public_class_name_has_one_module() -> None:
    modules = ["admission/policy.py", "catalog/schema.py", "conformance/world.py"]
    found = [
        one for path in modules for one in definitions(f"src/quota_engine/{path}", "class Rule: ...\nclass _A: ...")
    ]
    assert [str(one) for one in duplicate_classes(found)] == [
        "src/quota_engine/admission/policy.py:1: Rule: also defined in catalog/schema.py"
    ]


def test_unknown_tables_are_rejected() -> None:
    with pytest.raises(ValueError, match="unknown tables: modules"):
        RetiredNames({"modules": {}})
