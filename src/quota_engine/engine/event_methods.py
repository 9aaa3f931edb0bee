"""Methods of an engine about events and the consumer groups that share them."""

from __future__ import annotations

__all__ = ["EventMethods"]

from collections.abc import Iterable

from quota_engine.domain.consumer_groups import ConsumerGroupView
from quota_engine.ports import RecordedEvent, StoreRequest
from quota_engine.workflows.request_builder import RequestBuilder


class EventMethods:
    """Events and consumer groups."""

    requests: RequestBuilder

    def events(
        self,
        office: str,
        after: int = 0,
        limit: int = 1000,
        *,
        consumer_group: str | None = None,
        consumer: str | None = None,
        min_idle_ms: int = 60_000,
    ) -> StoreRequest[list[RecordedEvent]]:
        """Return events of an office in order: all of them, or those for one consumer of a group.

        With ``consumer_group`` and ``consumer``, several consumers share the work. Each event goes to one of them until
        it is acknowledged (:meth:`acknowledge`). A consumer first receives its own pending events, so it continues
        after a crash; then the events that another consumer has had pending for ``min_idle_ms``; then new ones. It
        never has more than ``limit`` events pending.

        Each event arrives at least once. It arrives again if its consumer dies between the effect and the
        acknowledgment, or is slower than ``min_idle_ms``: store its number together with its effect.

        Args:
            office: id of the office.
            after: number of the last event that the caller knows; only without a group.
            limit: most events to return, 1 to 100,000; for a group 1 to 10,000. A group receives no new events while
                10,000 of its events are pending.
            consumer_group: name of the group. The first read creates it, unless :meth:`create_consumer_group` did.
            consumer: name of the consumer within the group, the same after a restart.
            min_idle_ms: longer than a consumer ever takes between two calls, in milliseconds.
        """
        return self.requests.events(office, after, limit, consumer_group, consumer, min_idle_ms)

    def acknowledge(self, office: str, consumer_group: str, numbers: Iterable[int]) -> StoreRequest[int]:
        """Acknowledge events for a group: it does not receive them again, whichever consumer had them.

        Args:
            office: id of the office.
            consumer_group: name of the group.
            numbers: at most 10,000 numbers of events.

        Returns:
            Number of them that were pending.
        """
        return self.requests.acknowledge(office, consumer_group, numbers)

    def create_consumer_group(self, office: str, consumer_group: str, after: int = 0) -> StoreRequest[bool]:
        """Create a consumer group, so that its events are not trimmed.

        Args:
            office: id of the office. An office without events has no groups.
            consumer_group: name of the group.
            after: number of the event after which the group starts. A number beyond the last event starts the group
                with the next event.

        Returns:
            True if the group is new. An existing group stays as it is.
        """
        return self.requests.create_consumer_group(office, consumer_group, after)

    def delete_consumer_group(self, office: str, consumer_group: str) -> StoreRequest[bool]:
        """Delete a consumer group with its pending events. Return True if it existed.

        Args:
            office: id of the office.
            consumer_group: name of the group.
        """
        return self.requests.delete_consumer_group(office, consumer_group)

    def list_consumer_groups(self, office: str) -> StoreRequest[list[ConsumerGroupView]]:
        """Return an office's groups sorted by name: progress, pending events and since when, and lag.

        Args:
            office: id of the office.
        """
        return self.requests.list_consumer_groups(office)

    def trim_events(self, office: str, through: int) -> StoreRequest[int]:
        """Drop the events up to a number, except those that a group has not acknowledged.

        A reader without a group is not waited for.

        Args:
            office: id of the office.
            through: number of the last event to drop.

        Returns:
            Number of events that remain.
        """
        return self.requests.trim_events(office, through)
