"""Settings from environment variables: ``QUOTA_ENGINE_PUBLISH_DAYS``, and ``QUOTA_ENGINE_LIMITS__REQUESTS_MAX``.

Two underscores lead into a table of the settings file. Lists are texts with commas.
"""

from __future__ import annotations

__all__ = ["PREFIX", "with_variables"]

from collections.abc import Collection, Mapping
from typing import Any, Final

from msgspec import Struct, inspect

from quota_engine.domain.errors import ValidationIssue

PREFIX: Final = "QUOTA_ENGINE_"
_TABLE_MARK: Final = "__"
_LISTS: Final = (inspect.ListType, inspect.VarTupleType)


def with_variables(
    raw: Mapping[str, Any],
    environment: Mapping[str, str],
    settings: type[Struct],
    others: Collection[str],
) -> tuple[dict[str, Any], dict[str, str], list[ValidationIssue]]:
    """Return the data of a settings file with the values of variables in their places.

    Args:
        raw: the data of the file.
        environment: the variables.
        settings: the type of the settings.
        others: variables that another source reads.

    Returns:
        The data; the variable by the key that it sets; and an issue for each variable that names a key of no table.
    """
    data = dict(raw)
    variable_of: dict[str, str] = {}
    issues: list[ValidationIssue] = []
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in others or not text:
            continue
        *tables, name = variable.removeprefix(PREFIX).lower().split(_TABLE_MARK)
        target = _type_at(settings, [*tables, name])
        if target is None and tables:
            issues.append(ValidationIssue(variable, ".".join([*tables, name]), "unknown", "a key of docs/service.md"))
        if target is None:
            continue  # a variable of another program, such as QUOTA_ENGINE_TOKEN
        table = data
        for part in tables:
            inner = table.get(part)
            table[part] = table = dict(inner) if isinstance(inner, dict) else {}
        table[name] = _value(text, target)
        variable_of[".".join([*tables, name])] = variable
    return data, variable_of, issues


def _type_at(settings: type[Struct], path: list[str]) -> inspect.Type | None:
    """Return the type of a value of the settings, or ``None`` if there is none, or it is a table or a list of them."""
    found: inspect.Type = inspect.type_info(settings)
    for part in path:
        found = _without_none(found)
        if not isinstance(found, inspect.StructType):
            return None
        field = next((one for one in found.fields if one.name == part), None)
        if field is None:
            return None
        found = field.type
    found = _without_none(found)
    is_table = isinstance(found, inspect.StructType | inspect.DictType | inspect.UnionType)
    is_list_of_tables = isinstance(found, _LISTS) and not isinstance(_plain(found.item_type), inspect.StrType)
    return None if is_table or is_list_of_tables else found


def _without_none(found: inspect.Type) -> inspect.Type:
    found = _plain(found)
    if isinstance(found, inspect.UnionType):
        kinds = [one for one in found.types if not isinstance(one, inspect.NoneType)]
        if len(kinds) == 1:
            return _plain(kinds[0])
    return found


def _plain(found: inspect.Type) -> inspect.Type:
    return found.type if isinstance(found, inspect.Metadata) else found


def _value(text: str, target: inspect.Type) -> Any:
    """Return the value that a text stands for. A text that stands for none stays, and is an issue of its key."""
    if isinstance(target, inspect.IntType) and text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20:
        return int(text)
    if isinstance(target, inspect.BoolType) and text in ("true", "false"):
        return text == "true"
    if isinstance(target, _LISTS):
        return [part.strip() for part in text.split(",")]
    return text
