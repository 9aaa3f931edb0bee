"""Calls about events and consumer groups."""

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
from quota_engine.client.call_protocol import CallBase, CallFlow, segment
from quota_engine.client.calls.common import office_path, optional_text
from quota_engine.client.decoding import event_of, group_of
from quota_engine.domain.consumer_groups import PENDING_MAX, ConsumerGroupView
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_integer
from quota_engine.ports import RecordedEvent
from quota_engine.workflows.request_builder import EVENTS_READ_MAX

_READ_MAX = 1_000
"""Events in one response, and numbers in one acknowledgment."""


class EventCalls(CallBase):
    """Events and consumer groups."""

    def events(
        self,
        office: str,
        after: int = 0,
        limit: int = 1000,
        *,
        consumer_group: str | None = None,
        consumer: str | None = None,
        min_idle_ms: int = 60_000,
    ) -> CallFlow[list[RecordedEvent]]:
        """See :meth:`quota_engine.QuotaEngine.events`.

        A group receives at most 1,000 events a call.
        """
        query: dict[str, object] = {"after": after, "limit": limit}
        if consumer_group is not None or consumer is not None:
            query |= {
                "consumer_group": optional_text(consumer_group, "consumer_group"),
                "consumer": optional_text(consumer, "consumer"),
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

    def _read(self, office: str, query: dict[str, object]) -> CallFlow[list[RecordedEvent]]:
        found = yield from self._request("GET", office_path(office, "events"), EventsBody, query=query)
        return [event_of(one) for one in found.events]

    def trim_events(self, office: str, through: int) -> CallFlow[int]:
        """See :meth:`quota_engine.QuotaEngine.trim_events`."""
        body = {"through": through}
        return (
            yield from self._request("POST", office_path(office, "events/trim"), TrimmedBody, body=body)
        ).events_left

    def list_consumer_groups(self, office: str) -> CallFlow[list[ConsumerGroupView]]:
        """See :meth:`quota_engine.QuotaEngine.list_consumer_groups`."""
        found = yield from self._request("GET", office_path(office, "consumer-groups"), ConsumerGroupsBody)
        return [group_of(one) for one in found.consumer_groups]

    def create_consumer_group(self, office: str, consumer_group: str, after: int = 0) -> CallFlow[bool]:
        """See :meth:`quota_engine.QuotaEngine.create_consumer_group`."""
        return (
            yield from self._request(
                "POST", _group_path(office, consumer_group), ConsumerGroupCreatedBody, body={"after": after}
            )
        ).created

    def delete_consumer_group(self, office: str, consumer_group: str) -> CallFlow[bool]:
        """See :meth:`quota_engine.QuotaEngine.delete_consumer_group`."""
        return (
            yield from self._request("DELETE", _group_path(office, consumer_group), ConsumerGroupDeletedBody)
        ).deleted

    def acknowledge(self, office: str, consumer_group: str, numbers: Iterable[int]) -> CallFlow[int]:
        """See :meth:`quota_engine.QuotaEngine.acknowledge`.

        Many numbers are sent in several calls.
        """
        left = list(islice(numbers, PENDING_MAX + 1))
        if len(left) > PENDING_MAX:
            raise InvalidRequest("numbers", "too many", f"at most {PENDING_MAX} numbers")
        path = _group_path(office, consumer_group) + "/acknowledge"
        acknowledged = 0
        for first in range(0, len(left) or 1, _READ_MAX):
            body = {"numbers": left[first : first + _READ_MAX]}
            acknowledged += (yield from self._request("POST", path, AcknowledgedBody, body=body)).acknowledged
        return acknowledged


def _group_path(office: str, group: str) -> str:
    return office_path(office, f"consumer-groups/{segment(group, 'consumer_group')}")
