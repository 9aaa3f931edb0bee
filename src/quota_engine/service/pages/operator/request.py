"""A signed-in operator's request, and the errors that a page shows."""

from __future__ import annotations

__all__ = ["CHANGE_ROLES", "READ_ROLES", "STAFF_ROLES", "FieldError", "OperatorRequest", "PageError", "is_allowed"]

import dataclasses
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request

from quota_engine.catalog import ResolvedOffice
from quota_engine.service.http.auth import Grant, Role
from quota_engine.service.pages.i18n import Translator
from quota_engine.service.pages.operator.fields import is_count

CHANGE_ROLES: Final = frozenset({Role.OPERATOR})
STAFF_ROLES: Final = frozenset({Role.OFFICE, Role.OPERATOR})
_CHANGES_LENGTH_MAX: Final = 4_000
READ_ROLES: Final = frozenset({Role.AUDITOR, Role.OPERATOR})


class PageError(Exception):
    """A request that is answered by an error page."""

    def __init__(self, status: int, text: str, **gaps: object) -> None:
        """Store the response.

        Args:
            status: HTTP status.
            text: Key of the text that the page shows.
            **gaps: Values of the text's gaps.
        """
        super().__init__(text)
        self.status = status
        self.text = text
        self.gaps = gaps


@dataclasses.dataclass(frozen=True, slots=True)
class FieldError:
    """An error of a form field, shown beside the field.

    Attributes:
        field: Name of the field.
        message: Text in the operator's language.
        value: Submitted value, which the form shows again.
    """

    field: str
    message: str
    value: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class OperatorRequest:
    """A request of a signed-in operator.

    Attributes:
        request: The HTTP request.
        translator: Texts in the operator's language.
        grant: Grant of the operator's token.
        office: Office that the request is about.
        fields: Fields of the form, or of the query if there is no form.
    """

    request: Request
    translator: Translator
    grant: Grant
    office: ResolvedOffice
    fields: Mapping[str, str]

    @property
    def is_post(self) -> bool:
        """True if the request submits a form."""
        return self.request.method == "POST"

    @property
    def is_confirmed(self) -> bool:
        """True if the operator has confirmed what the form does."""
        return self.fields.get("confirm") == "yes"

    @property
    def revision(self) -> int:
        """The day's revision that the submitted page showed; 0 if it showed none."""
        value = self.fields.get("revision", "")
        return int(value) if is_count(value) else 0

    def has_role(self, roles: frozenset[Role]) -> bool:
        """Return True if the operator has one of the roles at the office."""
        return is_allowed(self.grant, roles, self.office.id)

    def field(self, name: str) -> str:
        """Return a field without surrounding spaces, or ``""``."""
        return self.fields.get(name, "").strip()

    def query(self, *names: str) -> str:
        """Return a query string with the office and those of the named fields that are not empty."""
        given = {name: self.fields[name] for name in names if self.fields.get(name)}
        return urlencode({"office": self.office.id, **given})

    def changes(self, name: str) -> list[tuple[str, int, int]]:
        """Return the changes that a form has made, as its redirect names them: what, before and after."""
        found: list[tuple[str, int, int]] = []
        for part in ("" if self.is_post else self.field(name)[:_CHANGES_LENGTH_MAX]).split(","):
            what, _, numbers = part.partition(":")
            before, _, after = numbers.partition(":")
            if is_count(before) and is_count(after):
                found.append((what, int(before), int(after)))
        return found

    def done(self, *names: str) -> str:
        """Return which of the named forms redirected here, or ``""``."""
        name = "" if self.is_post else self.fields.get("done", "")
        return name if name in names else ""


def is_allowed(grant: Grant, roles: frozenset[Role], office: str) -> bool:
    """Return True if a grant has one of the roles at an office."""
    return grant.role in roles and (not grant.offices or office in grant.offices)
