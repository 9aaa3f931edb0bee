"""Build commands and requests from the arguments of calls.

Names become quotas, dates become ordinals, identities become keyed hashes. Nothing behind the builder sees an identity.
"""

from __future__ import annotations

__all__ = ["EVENTS_READ_MAX", "RequestBuilder"]

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec

from quota_engine.admission.policy import Caller
from quota_engine.admission.tickets import TicketKeys
from quota_engine.catalog import Catalog, Selection, get_office
from quota_engine.domain.commands import Command, Reschedule, Reserve
from quota_engine.domain.consumer_groups import PENDING_MAX
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.identity import Pseudonyms
from quota_engine.domain.model import Choice
from quota_engine.domain.outcomes import Outcome
from quota_engine.domain.validation import APPLICANTS_MAX, DURATION_MS_MAX, check_integer, check_name, is_name
from quota_engine.ledger_kinds import check_address
from quota_engine.ports import (
    Acknowledge,
    CreateConsumerGroup,
    DeleteConsumerGroup,
    KnownRefusal,
    ListConsumerGroups,
    ListDay,
    ReadAbandonedHolds,
    ReadConsumerGroup,
    ReadEvents,
    ReadHoldRemainingHistogram,
    ReadWaitListPosition,
    Reconcile,
    RecordedEvent,
    TrimEvents,
)
from quota_engine.workflows.arguments import Applicants, Day, day_number, random_id, ticket_keys_from
from quota_engine.workflows.catalog_plans import BookingNames, CatalogPlans
from quota_engine.workflows.generator_drivers import Apply

EVENTS_READ_MAX: Final = 100_000
BOUNDS_MAX: Final = 16
EVENTS_RESTORED_MAX: Final = 1000
"""A store restores them in one step, during which it does nothing else."""
EVENT_NUMBER_MAX: Final = 2**53


REVEALED_MAX: Final = 1_000


class RevealedEntropies:
    """The first entropy of each draw that an engine has seen, for the last :data:`REVEALED_MAX` draws.

    A failover may lose a run. The run is repeated with the same entropy, or not at all by this engine.
    """

    def __init__(self) -> None:
        self._entropies: dict[tuple[str, str], str] = {}

    def get(self, draw: str, commitment: str) -> str | None:
        """Return the first entropy of a draw, by its id and commitment; ``None`` if none is known."""
        return self._entropies.get((draw, commitment))

    def add(self, draw: str, commitment: str, entropy: str) -> None:
        """Remember the entropy of a draw, unless one is known."""
        self._entropies.setdefault((draw, commitment), entropy)
        while len(self._entropies) > REVEALED_MAX:
            self._entropies.pop(next(iter(self._entropies)), None)


class RequestBuilder:
    """Builds the requests of one engine. It holds the catalog and the identity key, and no state of any reservation."""

    def __init__(
        self,
        identity_key: bytes,
        catalog: Catalog | None,
        id_factory: Callable[[], str] = random_id,
        ticket_keys: TicketKeys | None = None,
    ) -> None:
        """Set the keys and the first catalog.

        Args:
            identity_key: 16 to 64 secret bytes that key the hashes of identities.
            catalog: the offices; ``None`` until :meth:`use_catalog`.
            id_factory: makes an idempotency key for a call without one.
            ticket_keys: sign tickets and passes; ``None`` derives them from the identity key.
        """
        self._pseudonyms = Pseudonyms(identity_key)
        self.id_factory = id_factory
        self.ticket_keys = ticket_keys_from(identity_key) if ticket_keys is None else ticket_keys
        self._plans = CatalogPlans(catalog)
        self.has_national_limit = self._plans.has_national_limit
        """True if an applicant may have one active place over all offices. Each reserve reads it."""
        self.revealed_entropies = RevealedEntropies()
        if catalog is not None:
            self.use_catalog(catalog)

    @property
    def catalog(self) -> Catalog:
        """The current catalog.

        Raises:
            InvalidRequest: there is none yet.
        """
        return self._plans.catalog

    @property
    def identity_key(self) -> bytes:
        """The identity key."""
        return self._pseudonyms.key

    @property
    def jitter_seed(self) -> str:
        """The seed of cooling times."""
        return self._pseudonyms.jitter_seed

    @property
    def national_lease_ms(self) -> int:
        """Milliseconds for which a national claim without a reservation excludes others."""
        national = self.catalog.national
        assert national is not None, "read only where there is such a limit"
        return national.lease_ms

    def use_catalog(self, catalog: Catalog) -> None:
        """Use ``catalog`` from now on."""
        self._plans = CatalogPlans(catalog)
        self.has_national_limit = self._plans.has_national_limit
        self.revealed_entropies = RevealedEntropies()
        if catalog.identity_format != self._pseudonyms.identity_format:
            self._pseudonyms = self._pseudonyms.with_format(catalog.identity_format)

    def known_office(self, office: str) -> str:
        """Return the office's id.

        Raises:
            UnknownName: the catalog does not have it.
        """
        get_office(self.catalog, office)
        return office

    def plan(self, office: str, day: Day, selection: Selection) -> tuple[int, Choice]:
        """Return the day's ordinal and the choice: :meth:`CatalogPlans.plan`."""
        number, choice, _ = self._plans.plan((office, day, *msgspec.structs.astuple(selection)))
        return number, choice

    def opens_at_ms(self, office: str, day: int) -> int:
        """Return when an office's day opens for booking: :meth:`CatalogPlans.opens_at_ms`."""
        return self._plans.opens_at_ms(office, day)

    def ends_at_ms(self, office: str, day: int) -> int:
        """Return when an office's day is over: :meth:`CatalogPlans.ends_at_ms`."""
        return self._plans.ends_at_ms(office, day)

    # --- Identities and references

    def party_hashes(self, applicants: Applicants) -> tuple[str, ...]:
        """Return the keyed hashes of one identity, or of a party of several.

        Raises:
            InvalidRequest: not an identity, too many of them, or one of them twice.
        """
        if isinstance(applicants, str):
            return (self._pseudonyms.of(applicants),)
        if not isinstance(applicants, list | tuple) or not 1 <= len(applicants) <= APPLICANTS_MAX:
            size = f"{len(applicants)} applicants" if isinstance(applicants, list | tuple) else "not a list"
            raise InvalidRequest("applicants", size, f"an identity, or a list of 1 to {APPLICANTS_MAX}")
        if len(applicants) == 1:  # nearly all calls; skips the check for duplicates
            return (self._pseudonyms.of(applicants[0], "applicants[0]"),)
        party = tuple(self._pseudonyms.of(one, f"applicants[{index}]") for index, one in enumerate(applicants))
        if len(set(party)) != len(party):
            raise InvalidRequest("applicants", "one applicant twice", "each applicant once")
        return party

    def owner_hash(self, identity: str | None, where: str = "owner") -> str:
        """Return the keyed hash to check an owner by; ``""`` for ``None``, which leaves the owner unchecked.

        ``where`` is the argument's name, for the error.
        """
        return "" if identity is None else self._pseudonyms.of(identity, where)

    def caller_hashes(self, caller: Caller | None) -> tuple[str, str, str]:
        """Return the keyed hashes of a caller's account, network and device; ``""`` for an unknown one."""
        if caller is None:
            return "", "", ""
        if not isinstance(caller, Caller):
            raise InvalidRequest("caller", f"a {type(caller).__name__}", "a Caller")
        canonical, hash_of = caller.canonical(), self._pseudonyms.of_key
        return (
            hash_of(canonical.account, "caller.account") if canonical.account else "",
            hash_of(canonical.network, "caller.network") if canonical.network else "",
            hash_of(canonical.device, "caller.device") if canonical.device else "",
        )

    def secret_for(self, purpose: str) -> bytes:
        """Derive 32 secret bytes for ``purpose`` from the identity key."""
        return self._pseudonyms.secret_for(purpose)

    def parse_reference(self, reference: str) -> tuple[str, str]:
        """Return office and id of a reference such as ``surabaya~9f2c``.

        Raises:
            InvalidRequest: it does not have that form.
        """
        if not isinstance(reference, str) or reference.count("~") != 1:
            raise InvalidRequest(
                "reference", "not a reference", "an office and an id with ~ between, as outcomes have it"
            )
        office, reservation_id = reference.split("~")
        check_name(office, "reference (its office)")
        check_name(reservation_id, "reference (its id)")
        return office, reservation_id

    # --- Commands

    def reserve(
        self,
        office: str,
        day: Day,
        applicants: Applicants,
        selection: Selection,
        idempotency_key: str | None,
        join_wait_list: bool,
        hold_ttl_ms: int,
    ) -> Reserve:
        """Return the command of :meth:`quota_engine.QuotaEngine.reserve`."""
        names = (office, day, *msgspec.structs.astuple(selection))
        command = self.reserve_or_refuse(names, applicants, idempotency_key, join_wait_list, hold_ttl_ms, None)
        assert isinstance(command, Reserve), "no store is asked"
        return command

    def reserve_or_refuse(
        self,
        names: BookingNames,
        applicants: Applicants,
        idempotency_key: str | None,
        join_wait_list: bool,
        hold_ttl_ms: int,
        known_refusal: KnownRefusal | None,
    ) -> Reserve | Outcome:
        """Return the command of :meth:`quota_engine.QuotaEngine.reserve`, or its refusal if the store knows one."""
        try:
            plan = self._plans.plans.get(names)
        except TypeError:  # an argument that is not even hashable
            plan = None
        day, choice, kind = plan or self._plans.plan(names)
        if idempotency_key is None:
            idempotency_key = self.id_factory()
        elif type(idempotency_key) is not str or is_name(idempotency_key) is None:
            check_name(idempotency_key, "idempotency_key")
        if join_wait_list is not False or hold_ttl_ms:
            if join_wait_list is not True and join_wait_list is not False:
                raise InvalidRequest("join_wait_list", f"a {type(join_wait_list).__name__}", "True or False")
            if hold_ttl_ms:
                check_integer(hold_ttl_ms, "hold_ttl_ms", 0, DURATION_MS_MAX)
        party = (self._pseudonyms.of(applicants),) if isinstance(applicants, str) else self.party_hashes(applicants)
        if known_refusal is not None:
            if join_wait_list or len(party) > 1:
                kind = id(choice), day, len(party), join_wait_list
            refusal = known_refusal(names[0], kind, idempotency_key, party)
            if refusal is not None:
                return refusal
        return Reserve(idempotency_key, day, party, choice, join_wait_list, hold_ttl_ms)

    def reschedule(
        self, reference: str, day: Day, selection: Selection, owner: str | None, expected_version: int
    ) -> tuple[str, Reschedule]:
        """Return office and command of :meth:`quota_engine.QuotaEngine.reschedule` within the office."""
        office, reservation_id = self.parse_reference(reference)
        number, choice = self.plan(office, day, selection)
        return office, Reschedule(reservation_id, number, choice, self.owner_hash(owner), expected_version)

    def reservation_command(
        self,
        command: Callable[..., Command],
        reference: str,
        owner: str | None,
        expected_version: int,
        *arguments: object,
    ) -> Apply[Outcome]:
        """Return the request for ``command(id, owner, expected_version, *arguments)`` on one reservation."""
        office, reservation_id = self.parse_reference(reference)
        return Apply(office, command(reservation_id, self.owner_hash(owner), expected_version, *arguments))

    def day_command(self, command: Callable[..., Command], office: str, day: Day, *arguments: object) -> Apply[Outcome]:
        """Return the request for ``command(day, *arguments)`` on one office-day."""
        return Apply(self.known_office(office), command(day_number(day), *arguments))

    # --- Requests that read

    def wait_list_position(self, reference: str) -> ReadWaitListPosition:
        """Return the request of :meth:`quota_engine.QuotaEngine.wait_list_position`."""
        return ReadWaitListPosition(*self.parse_reference(reference))

    def list_day(self, office: str, day: Day) -> ListDay:
        """Return the request of :meth:`quota_engine.QuotaEngine.list_reservations`."""
        return ListDay(self.known_office(office), day_number(day))

    def hold_remaining_histogram(self, office: str, day: Day, bounds_ms: Sequence[int]) -> ReadHoldRemainingHistogram:
        """Return the request of :meth:`quota_engine.QuotaEngine.hold_remaining_histogram`."""
        if not isinstance(bounds_ms, list | tuple) or len(bounds_ms) > BOUNDS_MAX:
            raise InvalidRequest("bounds_ms", "not such a list", f"a list of at most {BOUNDS_MAX} bounds that rise")
        lowest = 0
        for index, bound_ms in enumerate(bounds_ms):
            check_integer(bound_ms, f"bounds_ms[{index}]", lowest, DURATION_MS_MAX)
            lowest = bound_ms + 1
        return ReadHoldRemainingHistogram(self.known_office(office), day_number(day), tuple(bounds_ms))

    def abandoned_holds(self, office: str) -> ReadAbandonedHolds:
        """Return the request of :meth:`quota_engine.QuotaEngine.abandoned_holds`."""
        return ReadAbandonedHolds(self.known_office(office))

    # --- Events and consumer groups

    def events(
        self, office: str, after: int, limit: int, consumer_group: str | None, consumer: str | None, min_idle_ms: int
    ) -> ReadEvents | ReadConsumerGroup:
        """Return the request of :meth:`quota_engine.QuotaEngine.events`."""
        if consumer_group is not None or consumer is not None:
            if after:
                raise InvalidRequest("after", "given with a group", "nothing: a group knows where it is")
            return self._read_group(office, consumer_group, consumer, limit, min_idle_ms)
        check_integer(after, "after", 0, EVENT_NUMBER_MAX)
        check_integer(limit, "limit", 1, EVENTS_READ_MAX)
        return ReadEvents(self.known_office(office), after, limit)

    def _read_group(
        self, office: str, consumer_group: str | None, consumer: str | None, limit: int, min_idle_ms: int
    ) -> ReadConsumerGroup:
        if consumer_group is None or consumer is None:
            raise InvalidRequest("consumer_group, consumer", "only one of them", "both, or neither")
        check_name(consumer_group, "consumer_group")
        check_name(consumer, "consumer")
        check_integer(limit, "limit", 1, PENDING_MAX)
        check_integer(min_idle_ms, "min_idle_ms", 0, DURATION_MS_MAX)
        return ReadConsumerGroup(self.known_office(office), consumer_group, consumer, limit, min_idle_ms)

    def acknowledge(self, office: str, consumer_group: str, numbers: Iterable[int]) -> Acknowledge:
        """Return the request of :meth:`quota_engine.QuotaEngine.acknowledge`."""
        check_name(consumer_group, "consumer_group")
        if not isinstance(numbers, Iterable):
            raise InvalidRequest("numbers", f"a {type(numbers).__name__}", "numbers of events")
        several = tuple(islice(numbers, PENDING_MAX + 1))
        if len(several) > PENDING_MAX:
            raise InvalidRequest("numbers", f"more than {PENDING_MAX}", f"at most {PENDING_MAX} at a time")
        for number in several:
            check_integer(number, "numbers", 1, EVENT_NUMBER_MAX)
        return Acknowledge(self.known_office(office), consumer_group, several)

    def create_consumer_group(self, office: str, consumer_group: str, after: int) -> CreateConsumerGroup:
        """Return the request of :meth:`quota_engine.QuotaEngine.create_consumer_group`."""
        check_name(consumer_group, "consumer_group")
        check_integer(after, "after", 0, EVENT_NUMBER_MAX)
        return CreateConsumerGroup(self.known_office(office), consumer_group, after)

    def delete_consumer_group(self, office: str, consumer_group: str) -> DeleteConsumerGroup:
        """Return the request of :meth:`quota_engine.QuotaEngine.delete_consumer_group`."""
        check_name(consumer_group, "consumer_group")
        return DeleteConsumerGroup(self.known_office(office), consumer_group)

    def list_consumer_groups(self, office: str) -> ListConsumerGroups:
        """Return the request of :meth:`quota_engine.QuotaEngine.list_consumer_groups`."""
        return ListConsumerGroups(self.known_office(office))

    def trim_events(self, office: str, through: int) -> TrimEvents:
        """Return the request of :meth:`quota_engine.QuotaEngine.trim_events`."""
        check_integer(through, "through", 0, EVENT_NUMBER_MAX)
        return TrimEvents(self.known_office(office), through)

    def reconcile(self, address: str, events: Sequence[RecordedEvent]) -> Reconcile:
        """Return the request of :meth:`quota_engine.QuotaEngine.reconcile`."""
        if not isinstance(events, list | tuple) or not all(isinstance(one, RecordedEvent) for one in events):
            raise InvalidRequest("events", "not a list of events", "events as events() returns them")
        if len(events) > EVENTS_RESTORED_MAX:
            raise InvalidRequest("events", f"{len(events)} events", f"at most {EVENTS_RESTORED_MAX} at a time")
        if isinstance(address, str) and address.startswith("~"):
            check_address(address, "address")
            return Reconcile(address, tuple(events))
        return Reconcile(self.known_office(address), tuple(events))
