"""The selection of a booking, by ids of the catalog."""

from __future__ import annotations

__all__ = ["Selection"]

import msgspec


class Selection(msgspec.Struct, frozen=True, gc=False):
    """The service, service unit, session, channel and applicant group of a booking.

    Each is an id of the catalog. ``""`` is allowed if the office has only one such entry, or if none is needed. A
    ``group`` of ``""`` is the general public. A selection is hashable and cheap, because each reserve makes one.
    """

    service: str = ""
    service_unit: str = ""
    session: str = ""
    channel: str = "online"
    group: str = ""
