"""Types and base classes of all bodies."""

from __future__ import annotations

__all__ = [
    "Id",
    "Identity",
    "NoFields",
    "NonNegativeInt",
    "OptionalId",
    "RequestBody",
    "ResponseBody",
    "Revision",
    "SelectionBody",
    "SelectionFields",
    "TimeMs",
    "Version",
    "selection_fields",
]

from typing import Annotated, TypedDict

import msgspec
from msgspec import Meta

from quota_engine.domain.commands import REVISION_MAX
from quota_engine.domain.model import Choice
from quota_engine.domain.validation import TIME_MS_MAX

Identity = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        description="An identity in clear text, hashed at once. Its characters are printable: none is a control, "
        "format or unassigned character, and the only separator is the space.",
    ),
]
Id = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
OptionalId = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{0,64}$", description="An id of the catalog; empty for none.")]
NonNegativeInt = Annotated[int, Meta(ge=0, le=2**53 - 1)]
TimeMs = Annotated[int, Meta(ge=0, le=TIME_MS_MAX)]
"""A time in a request, in milliseconds since 1970, UTC."""
Version = Annotated[int, Meta(ge=0, le=2**31)]
Revision = Annotated[
    int,
    Meta(ge=0, le=REVISION_MAX, description="Refuse if the day has another revision; 0: do not check."),
]


class RequestBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of request bodies; unknown fields are rejected."""


class NoFields(RequestBody, frozen=True, kw_only=True):
    """An empty body, which may be left out."""


class ResponseBody(msgspec.Struct, frozen=True, kw_only=True):
    """Base of response bodies."""


class SelectionFields(TypedDict):
    """Service, service unit, session, channel and applicant group of a booking."""

    service: str
    service_unit: str
    session: str
    channel: str
    group: str


class SelectionBody(RequestBody, frozen=True, kw_only=True):
    """Base of request bodies that select a service, a session and so on."""

    service: OptionalId = ""
    service_unit: OptionalId = ""
    session: OptionalId = ""
    channel: Id = "online"
    group: OptionalId = ""

    def selection(self) -> SelectionFields:
        """Return the selection as keyword arguments of the engine's methods."""
        return SelectionFields(
            service=self.service,
            service_unit=self.service_unit,
            session=self.session,
            channel=self.channel,
            group=self.group,
        )


def selection_fields(choice: Choice) -> SelectionFields:
    """Return the selection of a choice."""
    return SelectionFields(
        service=choice.service,
        service_unit=choice.service_unit,
        session=choice.session,
        channel=choice.channel,
        group=choice.group,
    )
