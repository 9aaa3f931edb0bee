"""The engine: :class:`QuotaEngine` and :class:`AsyncQuotaEngine`. They have the same methods.

The methods are written once, in ``reservation_methods``, ``day_methods`` and ``event_methods``, and bound here. Only
``reserve`` is written out in both classes, because the binding makes the hot path about 15 % slower in memory.
"""

from __future__ import annotations

__all__ = ["AsyncQuotaEngine", "EngineMethods", "QuotaEngine"]

import time
from collections.abc import Callable
from typing import Self

from quota_engine.admission.policy import Caller, Policy
from quota_engine.admission.tickets import TicketKeys
from quota_engine.catalog import Catalog, Selection
from quota_engine.clocks import SystemClock
from quota_engine.domain.outcomes import Outcome
from quota_engine.engine.bounded_store import AsyncBoundedStore, BoundedStore, end_of, known_refusal_of
from quota_engine.engine.day_methods import DayMethods
from quota_engine.engine.draws import AsyncDraw, Draw
from quota_engine.engine.event_methods import EventMethods
from quota_engine.engine.reservation_methods import ReservationMethods
from quota_engine.engine.room_cache import RoomCache
from quota_engine.engine.store_discovery import identity_key_for, open_async_store, open_store, store_factory
from quota_engine.engine.waiting_rooms import AsyncWaitingRoom, WaitingRoom
from quota_engine.generators import Request, drive, drive_async
from quota_engine.method_binding import AsyncBound, AsyncResource, SyncBound, SyncResource, async_method, sync_method
from quota_engine.ports import AsyncStore, Clock, Observer, Store
from quota_engine.workflows.admission_gate import AdmissionGate
from quota_engine.workflows.arguments import Applicants, Day, random_id
from quota_engine.workflows.entries import reserve
from quota_engine.workflows.generator_drivers import async_handler_of, call_handlers, handler_of
from quota_engine.workflows.jobs import JOB_TIMEOUT_MS, check_timeout
from quota_engine.workflows.request_builder import RequestBuilder
from quota_engine.workflows.room_view_cache import RoomViewCache


class EngineMethods(ReservationMethods, DayMethods, EventMethods):
    """All methods of an engine that a store answers."""


def _local_clock(clock: Clock | None) -> Callable[[], int]:
    """Return a clock of this process in milliseconds, to compute the age of a view without the store."""
    return (lambda: time.monotonic_ns() // 1_000_000) if clock is None else clock.now_ms


def _gate(
    policy: Policy | None, observer: Observer | None, clock: Clock | None, requests: RequestBuilder
) -> AdmissionGate | None:
    return None if policy is None else AdmissionGate(policy, observer, clock or SystemClock(), requests.opens_at_ms)


class QuotaEngine(SyncBound[EngineMethods], SyncResource):
    """Reserves places. Safe to share between threads.

    Open one with :meth:`open`; use it as a context manager, or call :meth:`close`. Methods return an
    :class:`~quota_engine.Outcome`, whose ``status`` is the result: a full day is an outcome, not an error.

    Raises:
        InvalidRequest: from every method, for a call that can never succeed;
            :class:`~quota_engine.UnknownName` for an id that the catalog does not have.
        BackendUnavailable: the store was not reached; nothing was done.
        OutcomeUnknown: the response was lost. Repeat the call with the same key or reference.
    """

    def __init__(
        self,
        store: Store,
        requests: RequestBuilder,
        gate: AdmissionGate | None = None,
        *,
        clock: Clock | None = None,
        rooms: RoomCache[WaitingRoom] | None = None,
        job_timeout_ms: int = JOB_TIMEOUT_MS,
    ) -> None:
        """Use a store of your own; :meth:`open` is the usual way."""
        handle = handler_of(store)
        super().__init__(EngineMethods(requests, gate), handle, call_handlers(store, handle, job_timeout_ms))
        self._store = store
        self._known_refusal = known_refusal_of(store)
        self._job_timeout_ms = job_timeout_ms
        local_ms = _local_clock(clock)
        self._rooms = (
            rooms
            if rooms is not None
            else RoomCache(
                lambda room: RoomViewCache(requests, room, local_ms), lambda view_cache: WaitingRoom(store, view_cache)
            )
        )

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
        call_timeout_ms: int | None = None,
        job_timeout_ms: int = JOB_TIMEOUT_MS,
    ) -> Self:
        """Open the store at ``url``.

        Args:
            url: ``memory://``, or a URL whose scheme an installed backend serves.
            identity_key: 16 to 64 secret bytes that key the hashes of identities, the same for all processes on a
                store. Only ``memory://`` works without: it generates one.
            catalog: the offices; :meth:`publish` sets them, too.
            clock: source of the time; ``None`` for the store's own clock, in memory the machine's.
            id_factory: generates idempotency keys for calls without one; ``None`` for 128 random bits.
            admission: the policy that decides who may reserve, usually a
                :class:`~quota_engine.admission.PolicyChain`.
            observer: receives the policies' decisions; a :class:`~quota_engine.ports.StoreObserver` also receives
                batches and refusals from the sold-out cache.
            ticket_keys: sign tickets and passes of waiting rooms, the same for all processes on a store; ``None``
                derives them from the identity key.
            call_timeout_ms: time that a call has with all attempts, in milliseconds, 200 to 3,600,000. A call that has
                not ended by then raises ``BackendUnavailable`` if nothing was sent, else ``OutcomeUnknown``. ``None``
                for the store's setting: 5,000 for one server, 10,000 behind Sentinels and in a cluster.
            job_timeout_ms: time that a call of many steps has, such as :meth:`publish`, in milliseconds, 200 to
                3,600,000. Each request of it to the store has ``call_timeout_ms`` as well. A call that has not ended by
                then stops between two steps and raises :class:`~quota_engine.JobTimeout`.

        Raises:
            InvalidRequest: the URL, the identity key, the catalog or the time is not valid.
            WrongIdentityKey: the store was first opened with another identity key.
            BackendUnavailable: no server answers there.
        """
        check_timeout(job_timeout_ms, "job_timeout_ms")
        factory = store_factory(url)
        requests = RequestBuilder(identity_key_for(url, identity_key), catalog, id_factory or random_id, ticket_keys)
        store = open_store(factory, url, clock, requests.identity_key, observer, call_timeout_ms)
        return cls(
            store, requests, _gate(admission, observer, clock, requests), clock=clock, job_timeout_ms=job_timeout_ms
        )

    def close(self) -> None:
        """Close the store. A second call does nothing."""
        self._store.close()

    def with_timeout(self, timeout_ms: int) -> Self:
        """Return this engine with an end for its calls, such as ``engine.with_timeout(800).reserve(...)``.

        The time counts from now and is for all calls of the returned engine together, so use a new one for each
        request. A call that has not ended by then raises ``BackendUnavailable`` if nothing was sent, else
        ``OutcomeUnknown``; a call of many steps, such as :meth:`publish`, raises ``JobTimeout``. Nothing of it takes
        effect later. The engines share the store and everything else.

        Args:
            timeout_ms: time in milliseconds, 200 to 3,600,000.
        """
        methods = self._methods
        return type(self)(
            BoundedStore(self._store, end_of(timeout_ms)),
            methods.requests,
            methods.gate,
            rooms=self._rooms,
            job_timeout_ms=self._job_timeout_ms,
        )

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
        """Hold places for a party, all or nothing, until ``outcome.reservation.deadline_at_ms``.

        Args:
            office: id of the office in the catalog.
            day: a date, an ISO date, or a date's ordinal.
            applicants: one identity, or a list of them. They are hashed at once; only the hash is kept.
            service: id of the service; ``""`` if the office has only one.
            service_unit: id of the service unit; ``""`` if it does not matter.
            session: id of the session; ``""`` if the office has only one, or the service needs none.
            channel: id of the channel.
            group: id of the applicant group; ``""`` for the general public.
            idempotency_key: 1 to 64 of ``A-Z a-z 0-9 _ -``. The same key finds the same reservation. It is the
                reservation's id, so make it hard to guess and new for each request. ``None`` generates one.
            join_wait_list: join the wait list if there is no place.
            hold_ttl_ms: length of the hold in milliseconds; 0 for the office's rule.
            caller: the caller, for the admission policies; hashed at once.
            admission_pass: the caller's pass from a waiting room, for the admission policies.

        Returns:
            ``HELD``, or ``WAITING`` on the wait list. The same applicant on the same day gets the same reservation back
            (``resumed``), and so does the same key (``replayed``). Refusals, in this order: ``CONFLICT``,
            ``RESERVATION_ENDED``, ``NOT_ADMITTED`` and ``THROTTLED`` (by a policy, see ``outcome.reason``),
            ``UNKNOWN_DAY``, ``UNKNOWN_QUOTA``, ``DAY_CLOSED``, ``DAY_OVER``, ``SESSION_OVER``, ``NOT_OPEN``,
            ``PARTY_TOO_LARGE``, ``BLOCKED``, ``IDENTITY_LIMIT``, ``SOLD_OUT``, ``WAIT_LIST_FULL``. A policy that
            refuses without the store precedes all of them.

        Raises:
            UnknownName: the catalog does not have one of the ids.
            InvalidRequest: an argument is not valid, or ``admission_pass`` is given and the engine has no policies.
        """
        requests = self._methods.requests
        # The hot path: one command, without the cost of a workflow.
        if self._methods.gate is None and not admission_pass and not requests.has_national_limit:
            names = (office, day, service, service_unit, session, channel, group)
            planned = requests.reserve_or_refuse(
                names, applicants, idempotency_key, join_wait_list, hold_ttl_ms, self._known_refusal
            )
            if isinstance(planned, Outcome):
                return planned
            outcome: Outcome = self._store.apply(office, planned)
            return outcome
        selection = Selection(service, service_unit, session, channel, group)
        command = requests.reserve(office, day, applicants, selection, idempotency_key, join_wait_list, hold_ttl_ms)
        work = reserve(requests, self._methods.gate, office, command, caller, admission_pass)
        handle = self._begin()
        result: Outcome = handle(work) if isinstance(work, Request) else drive(work, handle)
        return result

    def room(self, room: str) -> WaitingRoom:
        """Return the waiting room of this name. Sends nothing.

        Args:
            room: 1 to 64 of ``A-Z a-z 0-9 _ -``.
        """
        if isinstance(self._store, BoundedStore):
            return WaitingRoom(self._store, self._rooms.view_cache(room))
        return self._rooms.get(room)

    def draw(self, draw: str) -> Draw:
        """Return the draw of this id. Sends nothing.

        Args:
            draw: 1 to 64 of ``A-Z a-z 0-9 _ -``.
        """
        return Draw(self._store, self._methods.requests, draw, self._job_timeout_ms)

    confirm = sync_method(ReservationMethods.confirm)
    extend = sync_method(ReservationMethods.extend)
    remove_applicant = sync_method(ReservationMethods.remove_applicant)
    replace_applicant = sync_method(ReservationMethods.replace_applicant)
    release = sync_method(ReservationMethods.release)
    decline = sync_method(ReservationMethods.decline)
    cancel = sync_method(ReservationMethods.cancel)
    check_in = sync_method(ReservationMethods.check_in)
    mark_no_show = sync_method(ReservationMethods.mark_no_show)
    undo_attendance = sync_method(ReservationMethods.undo_attendance)
    reschedule = sync_method(ReservationMethods.reschedule)
    recover_moves = sync_method(ReservationMethods.recover_moves)
    find_moved = sync_method(ReservationMethods.find_moved)
    lookup = sync_method(ReservationMethods.lookup)
    wait_list_position = sync_method(ReservationMethods.wait_list_position)

    publish = sync_method(DayMethods.publish)
    availability = sync_method(DayMethods.availability)
    list_reservations = sync_method(DayMethods.list_reservations)
    hold_remaining_histogram = sync_method(DayMethods.hold_remaining_histogram)
    abandoned_holds = sync_method(DayMethods.abandoned_holds)
    set_capacity = sync_method(DayMethods.set_capacity)
    close_day = sync_method(DayMethods.close_day)
    relocate_day = sync_method(DayMethods.relocate_day)
    open_day = sync_method(DayMethods.open_day)
    reallocate_unused = sync_method(DayMethods.reallocate_unused)
    release_parked = sync_method(DayMethods.release_parked)
    expire = sync_method(DayMethods.expire)
    list_offices = sync_method(DayMethods.list_offices)
    audit = sync_method(DayMethods.audit)
    reconcile = sync_method(DayMethods.reconcile)

    events = sync_method(EventMethods.events)
    acknowledge = sync_method(EventMethods.acknowledge)
    create_consumer_group = sync_method(EventMethods.create_consumer_group)
    delete_consumer_group = sync_method(EventMethods.delete_consumer_group)
    list_consumer_groups = sync_method(EventMethods.list_consumer_groups)
    trim_events = sync_method(EventMethods.trim_events)


class AsyncQuotaEngine(AsyncBound[EngineMethods], AsyncResource):
    """:class:`QuotaEngine` for asyncio: the same methods, awaited. :meth:`room` and :meth:`draw` are not awaited."""

    def __init__(
        self,
        store: AsyncStore,
        requests: RequestBuilder,
        gate: AdmissionGate | None = None,
        *,
        clock: Clock | None = None,
        rooms: RoomCache[AsyncWaitingRoom] | None = None,
        job_timeout_ms: int = JOB_TIMEOUT_MS,
    ) -> None:
        """Use a store of your own; :meth:`open` is the usual way."""
        handle = async_handler_of(store)
        super().__init__(EngineMethods(requests, gate), handle, call_handlers(store, handle, job_timeout_ms))
        self._store = store
        self._known_refusal = known_refusal_of(store)
        self._job_timeout_ms = job_timeout_ms
        local_ms = _local_clock(clock)
        self._rooms = (
            rooms
            if rooms is not None
            else RoomCache(
                lambda room: RoomViewCache(requests, room, local_ms),
                lambda view_cache: AsyncWaitingRoom(store, view_cache),
            )
        )

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
        call_timeout_ms: int | None = None,
        job_timeout_ms: int = JOB_TIMEOUT_MS,
    ) -> Self:
        """See :meth:`QuotaEngine.open`."""
        check_timeout(job_timeout_ms, "job_timeout_ms")
        factory = store_factory(url)
        requests = RequestBuilder(identity_key_for(url, identity_key), catalog, id_factory or random_id, ticket_keys)
        store = await open_async_store(factory, url, clock, requests.identity_key, observer, call_timeout_ms)
        return cls(
            store, requests, _gate(admission, observer, clock, requests), clock=clock, job_timeout_ms=job_timeout_ms
        )

    async def close(self) -> None:
        """Close the store. A second call does nothing."""
        await self._store.close()

    def with_timeout(self, timeout_ms: int) -> Self:
        """See :meth:`QuotaEngine.with_timeout`."""
        methods = self._methods
        return type(self)(
            AsyncBoundedStore(self._store, end_of(timeout_ms)),
            methods.requests,
            methods.gate,
            rooms=self._rooms,
            job_timeout_ms=self._job_timeout_ms,
        )

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
        requests = self._methods.requests
        # The hot path: one command, without the cost of a workflow.
        if self._methods.gate is None and not admission_pass and not requests.has_national_limit:
            names = (office, day, service, service_unit, session, channel, group)
            planned = requests.reserve_or_refuse(
                names, applicants, idempotency_key, join_wait_list, hold_ttl_ms, self._known_refusal
            )
            if isinstance(planned, Outcome):
                return planned
            outcome: Outcome = await self._store.apply(office, planned)
            return outcome
        selection = Selection(service, service_unit, session, channel, group)
        command = requests.reserve(office, day, applicants, selection, idempotency_key, join_wait_list, hold_ttl_ms)
        work = reserve(requests, self._methods.gate, office, command, caller, admission_pass)
        handle = self._begin()
        result: Outcome = await (handle(work) if isinstance(work, Request) else drive_async(work, handle))
        return result

    def room(self, room: str) -> AsyncWaitingRoom:
        """See :meth:`QuotaEngine.room`."""
        if isinstance(self._store, AsyncBoundedStore):
            return AsyncWaitingRoom(self._store, self._rooms.view_cache(room))
        return self._rooms.get(room)

    def draw(self, draw: str) -> AsyncDraw:
        """See :meth:`QuotaEngine.draw`."""
        return AsyncDraw(self._store, self._methods.requests, draw, self._job_timeout_ms)

    confirm = async_method(ReservationMethods.confirm)
    extend = async_method(ReservationMethods.extend)
    remove_applicant = async_method(ReservationMethods.remove_applicant)
    replace_applicant = async_method(ReservationMethods.replace_applicant)
    release = async_method(ReservationMethods.release)
    decline = async_method(ReservationMethods.decline)
    cancel = async_method(ReservationMethods.cancel)
    check_in = async_method(ReservationMethods.check_in)
    mark_no_show = async_method(ReservationMethods.mark_no_show)
    undo_attendance = async_method(ReservationMethods.undo_attendance)
    reschedule = async_method(ReservationMethods.reschedule)
    recover_moves = async_method(ReservationMethods.recover_moves)
    find_moved = async_method(ReservationMethods.find_moved)
    lookup = async_method(ReservationMethods.lookup)
    wait_list_position = async_method(ReservationMethods.wait_list_position)

    publish = async_method(DayMethods.publish)
    availability = async_method(DayMethods.availability)
    list_reservations = async_method(DayMethods.list_reservations)
    hold_remaining_histogram = async_method(DayMethods.hold_remaining_histogram)
    abandoned_holds = async_method(DayMethods.abandoned_holds)
    set_capacity = async_method(DayMethods.set_capacity)
    close_day = async_method(DayMethods.close_day)
    relocate_day = async_method(DayMethods.relocate_day)
    open_day = async_method(DayMethods.open_day)
    reallocate_unused = async_method(DayMethods.reallocate_unused)
    release_parked = async_method(DayMethods.release_parked)
    expire = async_method(DayMethods.expire)
    list_offices = async_method(DayMethods.list_offices)
    audit = async_method(DayMethods.audit)
    reconcile = async_method(DayMethods.reconcile)

    events = async_method(EventMethods.events)
    acknowledge = async_method(EventMethods.acknowledge)
    create_consumer_group = async_method(EventMethods.create_consumer_group)
    delete_consumer_group = async_method(EventMethods.delete_consumer_group)
    list_consumer_groups = async_method(EventMethods.list_consumer_groups)
    trim_events = async_method(EventMethods.trim_events)
