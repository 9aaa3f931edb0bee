"""What the engine needs from outside: a store, and the time.

A store takes one command through ``send``, the hot path, and everything else it is asked as data (the classes below)
through ``perform``, so that what stands above it is written once for sync and async. A new backend answers each of
them, keeps each kind of ledger in ``quota_engine.ledger_kinds``, and is held to the rules by
``quota_engine.conformance``.
"""

from __future__ import annotations

__all__ = [
    "Acknowledge",
    "Apply",
    "ApplyMany",
    "AsyncStore",
    "Audit",
    "Batch",
    "Clock",
    "CreateConsumerGroup",
    "DeleteConsumerGroup",
    "Describe",
    "ListConsumerGroups",
    "ListDay",
    "ListOffices",
    "Lookup",
    "Observable",
    "Observer",
    "Query",
    "ReadConsumerGroup",
    "ReadEvents",
    "ReadHoldRemainingHistogram",
    "ReadWaitListPosition",
    "Reconcile",
    "RecordedEvent",
    "Store",
    "StoreFactory",
    "StoreObserver",
    "StoreRequest",
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
from quota_engine.domain.outcomes import DayView, Outcome, WaitListPosition
from quota_engine.domain.reconcile import Reconciliation

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Clock(Protocol):
    """Where the time comes from. It may jump: the ledger sees to it that no command is earlier than the last event."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...


class Observer(Protocol):
    """Is told what the engine notices: today, what its admission policies say. Called wherever that happens, from
    several threads, so it must be quick; an error of it is logged and stops nothing. It never sees an identity.
    """

    def on_decision(self, office: str, record: DecisionRecord) -> None:
        """A policy has waved somebody off, or would have (``finding.enforced`` is false: it is in shadow); or the chain
        has let somebody through, in which case the finding has its name and ``admit``.
        """
        ...


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Calls that went to the store together.

    ``place`` is an office, or another ledger's place (:mod:`quota_engine.ledger_kinds`); ``reads`` says that they only
    looked.
    ``duration_us`` is how long it took from setting out to the answer, pauses and further attempts among it. ``error``
    is the name of the exception that it ended with, or ``""``. ``callers`` is what
    :meth:`StoreObserver.on_enqueue` gave
    for each call.
    """

    address: str
    reads: bool
    size: int
    duration_us: int
    error: str
    callers: tuple[Any, ...]


@runtime_checkable
class StoreObserver(Observer, Protocol):
    """An observer that is told of the way to the store, too. One that lacks any of these methods is told of verdicts
    only; one that has them all is, by every store that can tell (:class:`Observable`).
    """

    def on_enqueue(self) -> Any:
        """A call begins to wait for its turn, here in its own thread or task. Returns what is to be had again with its
        batch: what tells whose call it is, or ``None``.
        """
        ...

    def on_batch(self, batch: Batch) -> None:
        """A batch has its answer, or never will."""
        ...

    def on_sold_out(self, office: str) -> None:
        """Somebody was told that all is sold out from what is remembered here, without asking the store."""
        ...


@runtime_checkable
class Observable(Protocol):
    """A backend that tells of its way to its store, if anybody wants to know."""

    def attach(self, observer: StoreObserver) -> None:
        """Tell ``observer`` from now on. Called once, before any other call."""
        ...


class StoreRequest(msgspec.Struct, Generic[T_co], frozen=True, gc=False):
    """Something a store can be asked; ``T_co`` is the type of the answer."""


class Apply(StoreRequest[Any], frozen=True, gc=False):
    """Apply one command to the ledger at ``place``, of whatever kind it is (see ``quota_engine.ledger_kinds``), and
    answer as
    that kind does. Those that meet share their way to the store, as ``send`` calls do.
    """

    address: str
    command: Any


class Query(StoreRequest[Any], frozen=True, gc=False):
    """Ask the ledger at ``place`` something that changes nothing."""

    address: str
    question: Any


class ApplyMany(StoreRequest[list[Outcome]], frozen=True, gc=False):
    """Apply several commands to one office, one after the other; one that is refused does not stop the others."""

    office: str
    commands: tuple[Command, ...]


class Lookup(StoreRequest[Reservation | None], frozen=True, gc=False):
    """The reservation as it stands now, or ``None``."""

    office: str
    id: str


class ReadWaitListPosition(StoreRequest[WaitListPosition | None], frozen=True, gc=False):
    """Where a reservation stands on its day's wait list now, or ``None``: see
    :func:`quota_engine.domain.queries.wait_list_position`.
    """

    office: str
    id: str


class View(StoreRequest[list[DayView]], frozen=True, gc=False):
    """The counters of those of ``days`` (ordinals) that are known, in the order asked."""

    office: str
    days: tuple[int, ...]


class ListDay(StoreRequest[list[Reservation]], frozen=True, gc=False):
    """All reservations of a day as they stand now: in the order of their queue numbers, and those without one behind
    them, by creation and id. None for a day that is not known.
    """

    office: str
    day: int


class ReadHoldRemainingHistogram(StoreRequest[list[int]], frozen=True, gc=False):
    """How many holds of a day have how much of their time left, see
    :func:`quota_engine.domain.queries.hold_remaining_histogram`."""

    office: str
    day: int
    bounds_ms: tuple[int, ...]


class RecordedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event and its number: 1, 2, 3 … within the office, without gaps; it identifies the event for good."""

    number: int
    event: Event


class ReadEvents(StoreRequest[list[RecordedEvent]], frozen=True, gc=False):
    """Up to ``limit`` events with numbers above ``after``, in order."""

    office: str
    after: int
    limit: int


class TrimEvents(StoreRequest[int], frozen=True, gc=False):
    """Drop the events up to number ``through``, but none that a group has not acknowledged; the answer is how many are
    left.
    """

    office: str
    through: int


class ReadConsumerGroup(StoreRequest[list[RecordedEvent]], frozen=True, gc=False):
    """Up to ``limit`` events for a consumer of a group, in order: :func:`quota_engine.domain.consumer_groups.take`.

    The group comes into being with this, before the first event that is kept. An office without events has no groups,
    and gets none. Repeating it is harmless: it gives the same events, and perhaps more.

    Raises:
        InvalidRequest: the office has ``GROUPS_MAX`` groups, and this is not one of them.
    """

    office: str
    consumer_group: str
    consumer: str
    limit: int
    min_idle_ms: int


class Acknowledge(StoreRequest[int], frozen=True, gc=False):
    """A group is done with these events, whoever of its consumers had them; the answer is how many were still open."""

    office: str
    consumer_group: str
    numbers: tuple[int, ...]


class CreateConsumerGroup(StoreRequest[bool], frozen=True, gc=False):
    """Let a group begin after event number ``after`` (or before the first that is kept, or after the last that there
    is); the answer is whether it is new. Raises as :class:`ReadConsumerGroup` does.
    """

    office: str
    consumer_group: str
    after: int


class DeleteConsumerGroup(StoreRequest[bool], frozen=True, gc=False):
    """Forget a group; the answer is whether there was one."""

    office: str
    consumer_group: str


class ListConsumerGroups(StoreRequest[list[ConsumerGroupView]], frozen=True, gc=False):
    """The groups of an office as they stand, sorted by name."""

    office: str


class ListOffices(StoreRequest[list[str]], frozen=True, gc=False):
    """The offices that have a ledger, sorted."""


class Audit(StoreRequest[list[str]], frozen=True, gc=False):
    """What is wrong with one office's ledger: :func:`quota_engine.domain.audit.audit`."""

    office: str


class Reconcile(StoreRequest[Reconciliation], frozen=True, gc=False):
    """Look an office's ledger through, put right what is wrong, and let ``events`` happen that it has lost, as a
    consumer outside has them (:mod:`quota_engine.domain.reconcile`). Meanwhile the office is closed.

    Raises:
        InvalidRequest: ``events`` are not those that follow on the ledger's own; nothing has been restored.
    """

    office: str
    events: tuple[RecordedEvent, ...] = ()


class Describe(StoreRequest[dict[str, Any]], frozen=True, gc=False):
    """The whole state of one office: :func:`quota_engine.domain.ledger.describe`. For tests and for repairs."""

    office: str


class Store(Protocol):
    """A store, called synchronously. Safe to use from several threads."""

    def apply(self, office: str, command: Command) -> Outcome:
        """Apply one command to one office's ledger, now, in one atomic step.

        Raises:
            BackendUnavailable: the store was not reached, and nothing has been done.
            OutcomeUnknown: the answer was lost; asking again with the same id tells.
        """
        ...

    def execute(self, request: StoreRequest[T]) -> T:
        """Carry out any other request. Raises as :meth:`send` does."""
        ...

    def close(self) -> None:
        """Give back what the backend holds. Calling it twice is harmless."""
        ...


class AsyncStore(Protocol):
    """The same store, called from asyncio. Cancelling a call may leave its effect, as a lost answer may."""

    async def apply(self, office: str, command: Command) -> Outcome:
        """See :meth:`Backend.send`."""
        ...

    async def execute(self, request: StoreRequest[T]) -> T:
        """See :meth:`Backend.perform`."""
        ...

    async def close(self) -> None:
        """See :meth:`Backend.close`."""
        ...


class StoreFactory(Protocol):
    """What an entry point of the group ``quota_engine.backends`` names: a module, or any object, that opens a store.

    The entry point's name is the URL's scheme, so ``memory = "quota_engine.stores.memory"`` serves ``memory://``.
    """

    def open_store(self, url: str, clock: Clock | None) -> Store:
        """Open the store that ``url`` names. Without a clock it takes the time from where it is best known.

        Raises:
            InvalidRequest: the URL is not of the scheme's form.
            BackendUnavailable: nothing answers there.
        """
        ...

    async def open_async_store(self, url: str, clock: Clock | None) -> AsyncStore:
        """The same for asyncio."""
        ...
