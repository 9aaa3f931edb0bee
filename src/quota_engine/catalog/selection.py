"""What a booking asks for, by ids of the catalog."""

from __future__ import annotations

__all__ = ["Selection"]

import msgspec


class Selection(msgspec.Struct, frozen=True, gc=False):
    """Service, service unit, session, channel and applicant group that a booking asks for, by ids of the catalog.

    ``""`` stands for an id that the office has only one of, or that does not matter; for ``group``, for the general
    public. Hashable, and as cheap as a tuple: one is made for each reserve.
    """

    service: str = ""
    service_unit: str = ""
    session: str = ""
    channel: str = "online"
    group: str = ""
