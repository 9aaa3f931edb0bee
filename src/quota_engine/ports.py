"""The interfaces between the engine and its surroundings: a store, a clock, an observer.

A store has two ways in. :meth:`Store.apply` applies one command to one ledger and is the hot path.
:meth:`Store.execute` answers every other request; the requests are the classes below. A new backend answers all of them
and keeps every kind of ledger of :mod:`quota_engine.ledger_kinds`. :mod:`quota_engine.conformance` tests it.
"""

from __future__ import annotations

__all__ = [
    "Acknowledge",
    "ApplyMany",
    "AsyncStore",
    "Audit",
    "Batch",
    "CheckIdentityKey",
    "Clock",
    "CreateConsumerGroup",
    "DeleteConsumerGroup",
    "Describe",
    "KnownRefusal",
    "ListConsumerGroups",
    "ListDay",
    "ListOffices",
    "Lookup",
    "Observable",
    "Observer",
    "Query",
    "ReadAbandonedHolds",
    "ReadConsumerGroup",
    "ReadEvents",
    "ReadHoldRemainingHistogram",
    "ReadWaitListPosition",
    "Reconcile",
    "RecordedEvent",
    "ReserveKind",
    "Store",
    "StoreFactory",
    "StoreObserver",
    "StoreRequest",
    "TimedStore",
    "TrimEvents",
    "View",
]

from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import msgspec

from quota_engine.admission.policy import DecisionRecord
from quota_engine.domain.commands import Command
from quota_engine.domain.consumer_groups import ConsumerGroupView
from quota_engine.domain.events import Event
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import AbandonedHolds, DayView, Outcome, WaitListPosition
from quota_engine.domain.reconcile import Reconciliation
from quota_engine.generators import Request

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Clock(Protocol):
    """Source of the time. It may jump back: a ledger never applies a command earlier than its last event."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970, UTC."""
        ...


class Observer(Protocol):
    """Receives notifications of the engine, such as decisions of admission policies.

    The engine calls it from several threads in the middle of a reserve, so its methods must return quickly. The engine
    logs an exception of an observer and continues. An observer never receives an identity.
    """

    def on_decision(self, office: str, record: DecisionRecord) -> None:
        """Receive a policy's refusal, or the chain's admission.

        ``record.enforced`` is false for a refusal in shadow. An admission has the chain's name and ``admit``.
        """
        ...


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Calls that went to the store together.

    Args:
        address: the ledger's address (:mod:`quota_engine.ledger_kinds`).
        reads: true if the calls only read.
        size: number of calls.
        duration_us: microseconds from the start to the response, including pauses and retries.
        error: name of the exception that ended the batch, or ``""``.
        callers: correlation tokens of the calls, from :meth:`StoreObserver.on_enqueue`.
    """

    address: str
    reads: bool
    size: int
    duration_us: int
    error: str
    callers: tuple[Any, ...]


@runtime_checkable
class StoreObserver(Observer, Protocol):
    """Observer that also receives notifications about calls to the store, from every :class:`Observable` store.

    An observer that lacks one of these methods receives decisions only.
    """

    def on_enqueue(self) -> Any:
        """Return a correlation token for a call that starts to wait, passed back in ``Batch.callers``.

        The store calls it in the thread or task of the caller.
        """
        ...

    def on_batch(self, batch: Batch) -> None:
        """Receive a batch that has its responses, or failed."""
        ...

    def on_sold_out(self, office: str) -> None:
        """Receive a reserve that the sold-out cache refused without a call to the store."""
        ...


@runtime_checkable
class Observable(Protocol):
    """Store that notifies a :class:`StoreObserver`."""

    def attach(self, observer: StoreObserver) -> None:
        """Notify ``observer`` from now on. The engine calls it once, before any other call."""
        ...


class StoreRequest(Request[T_co], Generic[T_co], frozen=True, gc=False):
    """Request that :meth:`Store.execute` answers; ``T_co`` is the type of the answer."""


class Query(StoreRequest[Any], frozen=True, gc=False):
    """Answer a question about the ledger at ``address``. Changes nothing."""

    address: str
    question: Any


class ApplyMany(StoreRequest[list[Outcome]], frozen=True, gc=False):
    """Apply several commands to one office, in order. A refused command does not stop the next one."""

    office: str
    commands: tuple[Command, ...]


class Lookup(StoreRequest[Reservation | None], frozen=True, gc=False):
    """Return the current reservation, or ``None``."""

    office: str
    id: str


class ReadWaitListPosition(StoreRequest[WaitListPosition | None], frozen=True, gc=False):
    """Return a reservation's position on its day's wait list, or ``None``.

    See :func:`quota_engine.domain.queries.wait_list_position`.
    """

    office: str
    id: str


class View(StoreRequest[list[DayView]], frozen=True, gc=False):
    """Return the counters of the published days among ``days`` (ordinals), in the order of the request."""

    office: str
    days: tuple[int, ...]


class ListDay(StoreRequest[list[Reservation]], frozen=True, gc=False):
    """Return all reservations of a day: by queue number, then those without one by creation time and id.

    The list is empty for an unknown day.
    """

    office: str
    day: int


class ReadHoldRemainingHistogram(StoreRequest[list[int]], frozen=True, gc=False):
    """Count a day's holds by remaining time: :func:`quota_engine.domain.queries.hold_remaining_histogram`."""

    office: str
    day: int
    bounds_ms: tuple[int, ...]


class ReadAbandonedHolds(StoreRequest[AbandonedHolds], frozen=True, gc=False):
    """Return how many of an office's holds ended without a confirm, and how many blocks followed."""

    office: str


class RecordedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event and its number. Numbers run 1, 2, 3 … within an office without gaps, and identify the event forever."""

    number: int
    event: Event


class ReadEvents(StoreRequest[list[RecordedEvent]], frozen=True, gc=False):
    """Return up to ``limit`` events with numbers above ``after``, in order."""

    office: str
    after: int
    limit: int


class TrimEvents(StoreRequest[int], frozen=True, gc=False):
    """Drop the events up to number ``through``, except those that a consumer group has not acknowledged.

    Return the number of events that remain.
    """

    office: str
    through: int


class ReadConsumerGroup(StoreRequest[list[RecordedEvent]], frozen=True, gc=False):
    """Return up to ``limit`` events for a consumer of a group, in order.

    See :func:`quota_engine.domain.consumer_groups.take`.

    The first read creates the group, before the first event that the store keeps. An office without events has no
    groups, and a read creates none. A repeated read returns the same events, and perhaps more.

    Raises:
        InvalidRequest: the group is unknown, and the office has ``GROUPS_MAX`` groups.
    """

    office: str
    consumer_group: str
    consumer: str
    limit: int
    min_idle_ms: int


class Acknowledge(StoreRequest[int], frozen=True, gc=False):
    """Acknowledge events for a group, whichever consumer has them. Return how many were pending."""

    office: str
    consumer_group: str
    numbers: tuple[int, ...]


class CreateConsumerGroup(StoreRequest[bool], frozen=True, gc=False):
    """Create a group that starts after event ``after``, within the events that the store keeps.

    Return true if the group is new.

    Raises:
        InvalidRequest: the office has ``GROUPS_MAX`` groups.
    """

    office: str
    consumer_group: str
    after: int


class DeleteConsumerGroup(StoreRequest[bool], frozen=True, gc=False):
    """Delete a group. Return true if it existed."""

    office: str
    consumer_group: str


class ListConsumerGroups(StoreRequest[list[ConsumerGroupView]], frozen=True, gc=False):
    """Return an office's consumer groups, sorted by name."""

    office: str


class CheckIdentityKey(StoreRequest[str], frozen=True, gc=False):
    """Return the fingerprint of the identity key that the store was first opened with.

    A store that has none stores this one in the same atomic step. It never replaces one, so a repeated or delayed
    request is harmless. Each namespace of a server has a separate fingerprint, without an expiry.
    An empty fingerprint stores nothing; the result is then ``""`` for a store that has none.
    """

    fingerprint: str


class ListOffices(StoreRequest[list[str]], frozen=True, gc=False):
    """Return the offices that have a ledger, sorted."""


class Audit(StoreRequest[list[str]], frozen=True, gc=False):
    """Return the inconsistencies of one office's ledger: :func:`quota_engine.domain.audit.audit`."""

    office: str


class Reconcile(StoreRequest[Reconciliation], frozen=True, gc=False):
    """Repair an office's ledger and append ``events`` that it has lost (:mod:`quota_engine.domain.reconcile`).

    The office is closed meanwhile. A ledger of another kind has no events, and nothing that could be recomputed. If it
    is closed after a failover, it is opened.

    Raises:
        InvalidRequest: ``events`` do not follow the ledger's own, or the ledger has none; nothing was restored.
    """

    address: str
    events: tuple[RecordedEvent, ...] = ()


class Describe(StoreRequest[dict[str, Any]], frozen=True, gc=False):
    """Return the whole state of one ledger: :func:`quota_engine.domain.ledger.describe`. For tests and repairs."""

    office: str


class Store(Protocol):
    """A store, called synchronously. Safe to use from several threads.

    A call is final: when it has ended, with a result or with an error, nothing of it takes effect any more. A network
    may deliver a copy of a request after its caller has the answer of a later copy, and after other calls. A store
    that sends copies makes each of them harmless then. It gives each a last moment by its own clock, for example, or
    decides under a lock that it was the last to take. A store that sends every request at most once, and waits for its
    end, need do nothing.
    """

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """Apply one command to the ledger at ``address`` in one atomic step.

        Args:
            address: an office, or the address of another ledger (:mod:`quota_engine.ledger_kinds`).
            command: a command of that kind of ledger.
            ends_at_ms: the time by which the call ends, in milliseconds of :func:`quota_engine.clocks.monotonic_ms`.
                The command is not applied later. ``None`` leaves it to the store. The engine leaves the argument out
                unless it has an end.

        Returns:
            The outcome of that kind of ledger; an :class:`~quota_engine.Outcome` for an office.

        Raises:
            BackendUnavailable: the store was not reached, or there was no time left; nothing was done.
            OutcomeUnknown: the response was lost; the same command with the same id returns the outcome.
        """
        ...

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """Answer any other request. Arguments and errors as for :meth:`apply`."""
        ...

    def close(self) -> None:
        """Release the store's resources. A second call does nothing."""
        ...


class AsyncStore(Protocol):
    """A store, called from asyncio. A cancelled call may still take effect, like one whose response was lost.

    It does so within a time that the store documents, and not after the call's end.
    """

    async def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`Store.apply`."""
        ...

    async def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`Store.execute`."""
        ...

    async def close(self) -> None:
        """See :meth:`Store.close`."""
        ...


@runtime_checkable
class TimedStore(Protocol):
    """A store that bounds calls without another end. A store need not be one.

    Attributes:
        call_timeout_ms: the time that such a call has, in milliseconds, 200 to 3,600,000. An engine gives all requests
            of one of its calls this time together, and sets it if the engine was opened with another time.
    """

    call_timeout_ms: int


ReserveKind = tuple[int, int, int, bool]
"""A kind of reserve: the choice's ``id()``, day, number of applicants, wait list."""


class KnownRefusal(Protocol):
    """Method ``known_refusal`` of a store that knows some refusals without a call to its server.

    A store need not have it, and its attribute may be ``None``. The engine calls it before it builds the command of a
    plain reserve. The answer is one that :meth:`Store.apply` could give to that command.
    """

    def __call__(self, address: str, kind: ReserveKind, id_: str, applicants: tuple[str, ...], /) -> Outcome | None:
        """Return the refusal of a reserve, or ``None`` if the store does not know it now.

        Args:
            address: the office.
            kind: the kind of the reserve, whose choice is kept by the caller.
            id_: the id of the reserve.
            applicants: keyed hashes of the applicants.
        """
        ...


class StoreFactory(Protocol):
    """Opens stores: the object that an entry point of the group ``quota_engine.backends`` names, often a module.

    The entry point's name is the URL's scheme. For example ``memory = "quota_engine.stores.memory"`` serves
    ``memory://``.
    """

    def open_store(self, url: str, clock: Clock | None) -> Store:
        """Open the store at ``url``.

        Args:
            url: a URL of the factory's scheme.
            clock: source of the time; ``None`` for the store's own clock.

        Raises:
            InvalidRequest: the URL does not have the scheme's form.
            BackendUnavailable: no server answers there.
        """
        ...

    async def open_async_store(self, url: str, clock: Clock | None) -> AsyncStore:
        """See :meth:`open_store`."""
        ...
