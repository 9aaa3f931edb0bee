"""What all bodies have in common."""

from __future__ import annotations

__all__ = ["Id", "Identity", "MaybeId", "Millis", "Moment", "NoFields", "RequestBody", "ResponseBody"]

from typing import Annotated

import msgspec
from msgspec import Meta

from quota_engine.domain.validation import TIME_MS_MAX

Identity = Annotated[
    str,
    Meta(min_length=1, max_length=256, description="An identity in clear, in printable characters; hashed at once."),
]
Id = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
MaybeId = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{0,64}$", description="An id of the catalog; empty: not given.")]
Millis = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Moment = Annotated[int, Meta(ge=0, le=TIME_MS_MAX)]
"""A time that comes in."""


class RequestBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body that comes in: a field that is not known is a mistake."""


class NoFields(RequestBody, frozen=True, kw_only=True):
    """A body that says nothing, and may be left out."""


class ResponseBody(msgspec.Struct, frozen=True, kw_only=True):
    """A body that goes out."""
