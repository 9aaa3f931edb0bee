"""Events, for those who consume them: alone, or as a group that shares the work."""

from __future__ import annotations

__all__ = ["EventCalls"]

from collections.abc import Iterable
from itertools import islice

from quota_engine.api_schema.events import (
    AcknowledgedBody,
    ConsumerGroupCreatedBody,
    ConsumerGroupDeletedBody,
    ConsumerGroupsBody,
    EventsBody,
    TrimmedBody,
)
from quota_engine.client.call_protocol import Speaker, Talk, segment
from quota_engine.client.calls.common import given, of_office
from quota_engine.client.decoding import event_of, group_of
from quota_engine.domain.consumer_groups import PENDING_MAX, ConsumerGroupView
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_integer
from quota_engine.ports import RecordedEvent
from quota_engine.workflows.request_builder import EVENTS_READ_MAX

_READ_MAX = 1_000
"""Events in one answer, and numbers in one acknowledgement."""


class EventCalls(Speaker):
    """Reading and trimming, and groups of consumers."""

    def events(
        self,
        office: str,
        after: int = 0,
        limit: int = 1000,
        *,
        consumer_group: str | None = None,
        consumer: str | None = None,
        min_idle_ms: int = 60_000,
    ) -> Talk[list[RecordedEvent]]:
        """See :meth:`quota_engine.QuotaEngine.events`; for a group at most 1,000 at a time."""
        query: dict[str, object] = {"after": after, "limit": limit}
        if consumer_group is not None or consumer is not None:
            query |= {
                "consumer_group": given(consumer_group, "consumer_group"),
                "consumer": given(consumer, "consumer"),
            }
            return (yield from self._read(office, query | {"min_idle_ms": min_idle_ms}))
        check_integer(limit, "limit", 1, EVENTS_READ_MAX)
        found: list[RecordedEvent] = []
        while True:
            wanted = min(limit - len(found), _READ_MAX)
            some = yield from self._read(office, {"after": after, "limit": wanted})
            found += some
            if len(some) < wanted or len(found) >= limit:
                return found
            after = some[-1].number

    def _read(self, office: str, query: dict[str, object]) -> Talk[list[RecordedEvent]]:
        found = yield from self._ask("GET", of_office(office, "events"), EventsBody, query=query)
        return [event_of(one) for one in found.events]

    def trim_events(self, office: str, through: int) -> Talk[int]:
        """See :meth:`quota_engine.QuotaEngine.trim_events`."""
        body = {"through": through}
        return (yield from self._ask("POST", of_office(office, "events/trim"), TrimmedBody, body=body)).events_left

    def list_consumer_groups(self, office: str) -> Talk[list[ConsumerGroupView]]:
        """See :meth:`quota_engine.QuotaEngine.groups`."""
        found = yield from self._ask("GET", of_office(office, "consumer-groups"), ConsumerGroupsBody)
        return [group_of(one) for one in found.consumer_groups]

    def create_consumer_group(self, office: str, consumer_group: str, after: int = 0) -> Talk[bool]:
        """See :meth:`quota_engine.QuotaEngine.create_consumer_group`."""
        return (
            yield from self._ask(
                "POST", _of_group(office, consumer_group), ConsumerGroupCreatedBody, body={"after": after}
            )
        ).created

    def delete_consumer_group(self, office: str, consumer_group: str) -> Talk[bool]:
        """See :meth:`quota_engine.QuotaEngine.delete_consumer_group`."""
        return (yield from self._ask("DELETE", _of_group(office, consumer_group), ConsumerGroupDeletedBody)).deleted

    def acknowledge(self, office: str, consumer_group: str, numbers: Iterable[int]) -> Talk[int]:
        """See :meth:`quota_engine.QuotaEngine.acknowledge`; many are sent in parts, one after the other."""
        left = list(islice(numbers, PENDING_MAX + 1))
        if len(left) > PENDING_MAX:
            raise InvalidRequest("numbers", "too many", f"at most {PENDING_MAX} numbers")
        path = _of_group(office, consumer_group) + "/acknowledge"
        acknowledged = 0
        for first in range(0, len(left) or 1, _READ_MAX):
            body = {"numbers": left[first : first + _READ_MAX]}
            acknowledged += (yield from self._ask("POST", path, AcknowledgedBody, body=body)).acknowledged
        return acknowledged


def _of_group(office: str, group: str) -> str:
    return of_office(office, f"consumer-groups/{segment(group, 'consumer_group')}")
