"""Office, service and applicant group that a visitor has chosen."""

from __future__ import annotations

__all__ = ["BookingSelection", "read_selection"]

import dataclasses
from collections.abc import Mapping

from quota_engine.catalog import Catalog, ResolvedOffice, name_of


@dataclasses.dataclass(frozen=True, slots=True)
class BookingSelection:
    """A visitor's choice. The choice of a reservation may name a service or a group that has left the catalog."""

    office: ResolvedOffice
    service: str
    group: str
    """Id of the applicant group, or ``""``."""

    @property
    def url(self) -> str:
        """Address of the start page with this choice."""
        return f"/?office={self.office.id}&service={self.service}&group={self.group}"

    @property
    def sessions(self) -> list[str]:
        """Ids of the sessions to choose from; ``[""]`` if the service takes the whole day."""
        service = self.office.services.get(self.service)
        needs_session = bool(self.office.sessions) and service is not None and service.needs_session
        return list(self.office.sessions) if needs_session else [""]

    def service_name(self, language: str) -> str:
        """Return the name of the service in a language, or its id if it has left the catalog."""
        return name_of(self.office.services, self.service, language)


def read_selection(catalog: Catalog, fields: Mapping[str, str]) -> BookingSelection:
    """Return the selection of some fields. The first office or service of the catalog replaces an unknown one."""
    office = catalog.offices.get(fields.get("office", "")) or next(iter(catalog.offices.values()))
    service = fields.get("service", "")
    group = fields.get("group", "")
    return BookingSelection(
        office,
        service if service in office.services else next(iter(office.services)),
        group if group in catalog.groups else "",
    )
