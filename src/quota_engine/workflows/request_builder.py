"""The desk takes calls: names become quotas, dates become numbers, identities become keyed hashes, and a call a
request.
"""

from __future__ import annotations

__all__ = ["Applicants", "Day", "RequestBuilder", "Selection", "day_number", "random_id", "ticket_keys_from"]

import base64
import datetime
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final

from quota_engine.admission.policy import Caller
from quota_engine.admission.tickets import TicketKeys
from quota_engine.catalog import Catalog, choice_of, day_terms, get_office
from quota_engine.domain.commands import DAY_MAX, Command, Reschedule, Reserve
from quota_engine.domain.consumer_groups import PENDING_MAX
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.identity import Pseudonyms
from quota_engine.domain.model import Choice
from quota_engine.domain.validation import APPLICANTS_MAX, DURATION_MS_MAX, check_integer, check_name, is_name
from quota_engine.ports import (
    Acknowledge,
    CreateConsumerGroup,
    DeleteConsumerGroup,
    ListConsumerGroups,
    ListDay,
    ReadConsumerGroup,
    ReadEvents,
    ReadHoldRemainingHistogram,
    ReadWaitListPosition,
    Reconcile,
    RecordedEvent,
    TrimEvents,
)

Day = datetime.date | str | int
"""A date, an ISO date such as ``"2026-12-01"``, or a date's ordinal."""

Applicants = str | Sequence[str]
"""One identity, or a party of several. In clear: the desk hashes them, and nothing behind it ever sees them."""

OfficeCommand = tuple[str, Command]
"""An office and a command to its ledger: the arguments of ``send``."""

Selection = tuple[str, str, str, str, str]
"""Service, service unit, session, channel and group, by ids of the catalog; ``""`` for what does not matter."""

EVENTS_READ_MAX: Final = 100_000
BOUNDS_MAX: Final = 16
EVENTS_RESTORED_MAX: Final = 1000
"""They are put back in one step, in which a store does nothing else."""
EVENT_NUMBER_MAX: Final = 2**53
_PLANS_MAX: Final = 10_000
_EPOCH_DAY: Final = datetime.date(1970, 1, 1).toordinal()


def _ends_at_ms(catalog: Catalog | None, office: str, day: int) -> int:
    if catalog is not None and office in catalog.offices:
        try:
            terms = day_terms(catalog, office, datetime.date.fromordinal(day))
        except InvalidRequest:  # a year that no catalog plans
            terms = None
        if terms is not None:
            return terms.ends_at_ms
    return (day - _EPOCH_DAY + 2) * 86_400_000


def random_id() -> str:
    """A new idempotency key: 128 random bits in 22 characters."""
    return base64.urlsafe_b64encode(os.urandom(16))[:22].decode()


def ticket_keys_from(identity_key: bytes) -> TicketKeys:
    """What tickets and passes are signed with where nobody says otherwise: a key that comes from the identity key."""
    derived = hashlib.blake2b(b"tickets", key=identity_key, digest_size=32, person=b"waiting rooms").digest()
    return TicketKeys("identity", {"identity": derived})


class _Known:
    """A catalog, and what has been worked out from it."""

    __slots__ = ("catalog", "choices", "ends_at_ms", "plans")

    def __init__(self, catalog: Catalog | None) -> None:
        if catalog is not None and not isinstance(catalog, Catalog):
            raise InvalidRequest("catalog", f"a {type(catalog).__name__}", "what load_catalog() returns")
        self.catalog = catalog
        self.choices: dict[tuple[str, Selection], Choice] = {}
        self.plans: dict[tuple[str, Day, Selection], tuple[int, Choice]] = {}
        self.ends_at_ms: dict[tuple[str, int], int] = {}

    def given_catalog(self) -> Catalog:
        if self.catalog is None:
            raise InvalidRequest("catalog", "none has been given", "one with open(..., catalog=...) or publish(...)")
        return self.catalog


def day_number(day: Day) -> int:
    """The ordinal of a day.

    Raises:
        InvalidRequest: no such date.
    """
    if type(day) is int:
        check_integer(day, "day", 1, DAY_MAX)
        return day
    if isinstance(day, datetime.date) and not isinstance(day, datetime.datetime):
        return day.toordinal()
    expected = "a date, an ISO date such as 2026-12-01, or a date's ordinal"
    if not isinstance(day, str):
        raise InvalidRequest("day", f"a {type(day).__name__}", expected)
    try:
        if len(day) != len("2026-12-01"):
            raise ValueError
        return datetime.date.fromisoformat(day).toordinal()
    except ValueError:
        raise InvalidRequest("day", "no date that exists", expected) from None


class RequestBuilder:
    """Builds the requests of one engine. It holds the catalog and the identity key, and no state of any reservation."""

    def __init__(
        self,
        identity_key: bytes,
        catalog: Catalog | None,
        id_factory: Callable[[], str] = random_id,
        ticket_keys: TicketKeys | None = None,
    ) -> None:
        """Without ``ticket_keys`` tickets and passes are signed with a key that comes from the identity key."""
        self._pseudonyms = Pseudonyms(identity_key)
        self.id_factory = id_factory
        self.ticket_keys = ticket_keys_from(identity_key) if ticket_keys is None else ticket_keys
        self._known = _Known(catalog)

    @property
    def catalog(self) -> Catalog:
        """The catalog in use.

        Raises:
            InvalidRequest: none has been given yet.
        """
        return self._known.given_catalog()

    @property
    def jitter_seed(self) -> str:
        """The seed of cooling times."""
        return self._pseudonyms.jitter_seed

    @property
    def national(self) -> bool:
        """Whether an applicant may have one active place over all offices, and no more."""
        return self._known.catalog is not None and self._known.catalog.national is not None

    @property
    def national_lease_ms(self) -> int:
        """How long a claim keeps others off that no reservation stands behind yet."""
        national = self.catalog.national
        assert national is not None, "asked only where there is such a limit"
        return national.lease_ms

    def ends_at_ms(self, office: str, day: int) -> int:
        """When an office's day is over, by the catalog; for what that does not know, when the date is over anywhere."""
        known = self._known
        ends_at_ms = known.ends_at_ms.get((office, day))
        if ends_at_ms is None:
            ends_at_ms = _ends_at_ms(known.catalog, office, day)
            if len(known.ends_at_ms) >= _PLANS_MAX:
                known.ends_at_ms.clear()
            known.ends_at_ms[office, day] = ends_at_ms
        return ends_at_ms

    def use_catalog(self, catalog: Catalog) -> None:
        """Take this catalog from now on."""
        self._known = _Known(catalog)

    def reserve(
        self,
        office: str,
        day: Day,
        applicants: Applicants,
        wanted: Selection,
        idempotency_key: str | None,
        join_wait_list: bool,
        hold_ttl_ms: int,
    ) -> Reserve:
        """The command of a reserve; see :meth:`quota_engine.QuotaEngine.reserve`."""
        try:
            plan = self._known.plans.get((office, day, wanted))
        except TypeError:  # something that is no name, and not even hashable
            plan = None
        number, choice = plan or self._plan(office, day, wanted)
        if idempotency_key is None:
            idempotency_key = self.id_factory()
        elif type(idempotency_key) is not str or is_name(idempotency_key) is None:
            check_name(idempotency_key, "idempotency_key")
        if join_wait_list is not False and join_wait_list is not True:
            raise InvalidRequest("join_wait_list", f"a {type(join_wait_list).__name__}", "True or False")
        if hold_ttl_ms:
            check_integer(hold_ttl_ms, "hold_ttl_ms", 0, DURATION_MS_MAX)
        party = (self._pseudonyms.of(applicants),) if isinstance(applicants, str) else self._party(applicants)
        return Reserve(idempotency_key, number, party, choice, join_wait_list, hold_ttl_ms)

    def reschedule(
        self, reference: str, day: Day, wanted: Selection, owner: str | None, expected_version: int
    ) -> tuple[str, Reschedule]:
        """The command of a reschedule; see :meth:`quota_engine.QuotaEngine.reschedule`."""
        office, reservation_id = self.parse(reference)
        number, choice = self._plan(office, day, wanted)
        return office, Reschedule(reservation_id, number, choice, self.owner(owner), expected_version)

    def step(
        self, command: Callable[..., Command], reference: str, owner: str | None, expected_version: int, *rest: object
    ) -> OfficeCommand:
        """The command of a step of one reservation's life: ``command(id, owner, version, *rest)``."""
        office, reservation_id = self.parse(reference)
        return office, command(reservation_id, self.owner(owner), expected_version, *rest)

    def on_day(self, office: str, day: Day, command: Callable[..., Command], *rest: object) -> OfficeCommand:
        """The command of an operator's command on one office-day: ``command(day, *rest)``."""
        return self.office(office), command(self.day_number(day), *rest)

    def wait_list_position(self, reference: str) -> ReadWaitListPosition:
        """The request for where somebody stands on a wait list."""
        return ReadWaitListPosition(*self.parse(reference))

    def list_day(self, office: str, day: Day) -> ListDay:
        """The request for a day's reservations."""
        return ListDay(self.office(office), self.day_number(day))

    def hold_remaining_histogram(self, office: str, day: Day, bounds_ms: Sequence[int]) -> ReadHoldRemainingHistogram:
        """The request for how much time a day's holds have left."""
        if not isinstance(bounds_ms, list | tuple) or len(bounds_ms) > BOUNDS_MAX:
            raise InvalidRequest("bounds_ms", "not such a list", f"a list of at most {BOUNDS_MAX} bounds that rise")
        lowest = 0
        for index, bound_ms in enumerate(bounds_ms):
            check_integer(bound_ms, f"bounds_ms[{index}]", lowest, DURATION_MS_MAX)
            lowest = bound_ms + 1
        return ReadHoldRemainingHistogram(self.office(office), self.day_number(day), tuple(bounds_ms))

    def events(
        self, office: str, after: int, limit: int, consumer_group: str | None, consumer: str | None, min_idle_ms: int
    ) -> ReadEvents | ReadConsumerGroup:
        """The request for an office's events, all of them or those for one consumer of a group."""
        if consumer_group is not None or consumer is not None:
            if after:
                raise InvalidRequest("after", "given with a group", "nothing: a group knows where it is")
            return self._read_group(office, consumer_group, consumer, limit, min_idle_ms)
        check_integer(after, "after", 0, EVENT_NUMBER_MAX)
        check_integer(limit, "limit", 1, EVENTS_READ_MAX)
        return ReadEvents(self.office(office), after, limit)

    def trim_events(self, office: str, through: int) -> TrimEvents:
        """The request to drop an office's events up to a number."""
        check_integer(through, "through", 0, EVENT_NUMBER_MAX)
        return TrimEvents(self.office(office), through)

    def _read_group(
        self, office: str, consumer_group: str | None, consumer: str | None, limit: int, min_idle_ms: int
    ) -> ReadConsumerGroup:
        if consumer_group is None or consumer is None:
            raise InvalidRequest("group, consumer", "only one of them", "both, or neither")
        check_name(consumer_group, "group")
        check_name(consumer, "consumer")
        check_integer(limit, "limit", 1, PENDING_MAX)
        check_integer(min_idle_ms, "min_idle_ms", 0, DURATION_MS_MAX)
        return ReadConsumerGroup(self.office(office), consumer_group, consumer, limit, min_idle_ms)

    def acknowledge(self, office: str, consumer_group: str, numbers: Iterable[int]) -> Acknowledge:
        """The request that a group is done with events."""
        check_name(consumer_group, "group")
        if not isinstance(numbers, Iterable):
            raise InvalidRequest("numbers", f"a {type(numbers).__name__}", "numbers of events")
        several = tuple(islice(numbers, PENDING_MAX + 1))
        if len(several) > PENDING_MAX:
            raise InvalidRequest("numbers", f"more than {PENDING_MAX}", f"at most {PENDING_MAX} at a time")
        for number in several:
            check_integer(number, "numbers", 1, EVENT_NUMBER_MAX)
        return Acknowledge(self.office(office), consumer_group, several)

    def create_consumer_group(self, office: str, consumer_group: str, after: int) -> CreateConsumerGroup:
        """The request to let a group begin."""
        check_name(consumer_group, "group")
        check_integer(after, "after", 0, EVENT_NUMBER_MAX)
        return CreateConsumerGroup(self.office(office), consumer_group, after)

    def delete_consumer_group(self, office: str, consumer_group: str) -> DeleteConsumerGroup:
        """The request to forget a group."""
        check_name(consumer_group, "group")
        return DeleteConsumerGroup(self.office(office), consumer_group)

    def list_consumer_groups(self, office: str) -> ListConsumerGroups:
        """The request for an office's groups."""
        return ListConsumerGroups(self.office(office))

    def reconcile(self, office: str, events: Sequence[RecordedEvent]) -> Reconcile:
        """The request to look an office through and put it right."""
        if not isinstance(events, list | tuple) or not all(isinstance(one, RecordedEvent) for one in events):
            raise InvalidRequest("events", "not a list of events", "events as events() returns them")
        if len(events) > EVENTS_RESTORED_MAX:
            raise InvalidRequest("events", f"{len(events)} events", f"at most {EVENTS_RESTORED_MAX} at a time")
        return Reconcile(self.office(office), tuple(events))

    def parse(self, reference: str) -> tuple[str, str]:
        """Office and id of a reference such as ``surabaya~9f2c``.

        Raises:
            InvalidRequest: it is not of that form.
        """
        if not isinstance(reference, str) or reference.count("~") != 1:
            raise InvalidRequest(
                "reference", "not a reference", "an office and an id with ~ between, as outcomes have it"
            )
        office, reservation_id = reference.split("~")
        check_name(office, "reference (its office)")
        check_name(reservation_id, "reference (its id)")
        return office, reservation_id

    def owner(self, owner: str | None) -> str:
        """The keyed hash to check the owner by; ``""`` leaves it unchecked."""
        return "" if owner is None else self._pseudonyms.of(owner, "applicant")

    def caller(self, caller: Caller | None) -> tuple[str, str, str]:
        """The keyed hashes of a caller's account, network and device; ``""`` for what is not known."""
        if caller is None:
            return "", "", ""
        if not isinstance(caller, Caller):
            raise InvalidRequest("caller", f"a {type(caller).__name__}", "a Caller")
        one, of = caller.canonical(), self._pseudonyms.of
        return (
            of(one.account, "caller.account") if one.account else "",
            of(one.network, "caller.network") if one.network else "",
            of(one.device, "caller.device") if one.device else "",
        )

    def office(self, office: str) -> str:
        """The office's id, if the catalog has it.

        Raises:
            UnknownName: it has not.
        """
        get_office(self.catalog, office)
        return office

    def day_number(self, day: Day) -> int:
        """See :func:`day_number`."""
        return day_number(day)

    def party(self, applicants: Applicants) -> tuple[str, ...]:
        """The keyed hashes of one identity, or of a party of several.

        Raises:
            InvalidRequest: not such identities, too many, or one of them twice.
        """
        return (self._pseudonyms.of(applicants),) if isinstance(applicants, str) else self._party(applicants)

    def planned(self, office: str, day: Day, wanted: Selection) -> tuple[int, Choice]:
        """The day's number, and the choice that the wanted names come to.

        Raises:
            UnknownName: a name that the catalog does not have.
            InvalidRequest: no such day; or something is missing, or no allotment admits it.
        """
        return self._plan(office, day, wanted)

    def secret_for(self, purpose: str) -> bytes:
        """32 secret bytes for a purpose, which follow from the identity key."""
        return self._pseudonyms.secret_for(purpose)

    def _party(self, applicants: Sequence[str]) -> tuple[str, ...]:
        if not isinstance(applicants, list | tuple) or not 1 <= len(applicants) <= APPLICANTS_MAX:
            size = f"{len(applicants)} applicants" if isinstance(applicants, list | tuple) else "not a list"
            raise InvalidRequest("applicants", size, f"an identity, or a list of 1 to {APPLICANTS_MAX}")
        if len(applicants) == 1:  # as nearly all are: without what only several need
            return (self._pseudonyms.of(applicants[0], "applicants[0]"),)
        party = tuple(self._pseudonyms.of(one, f"applicants[{index}]") for index, one in enumerate(applicants))
        if len(set(party)) != len(party):
            raise InvalidRequest("applicants", "one applicant twice", "each applicant once")
        return party

    def _plan(self, office: str, day: Day, wanted: Selection) -> tuple[int, Choice]:
        """The day's number, and the choice that the wanted names come to; kept, because thousands ask for the same."""
        number = self.day_number(day)
        service, service_unit, session, channel, group = wanted
        if not all(isinstance(name, str) for name in (office, *wanted)):
            raise InvalidRequest("office, service, session, channel, group", "not all are strings", "names")
        known = self._known  # one look: another thread may be publishing a new catalog
        choice = choice_of(
            known.given_catalog(),
            office,
            service=service,
            service_unit=service_unit,
            session=session,
            channel=channel,
            group=group,
        )
        # Choices are shared, whatever the day, so that a reservation's costs it one pointer.
        choice = known.choices.setdefault((office, wanted), choice)
        if len(known.plans) >= _PLANS_MAX:
            known.plans.clear()
        known.plans[office, day, wanted] = number, choice
        return number, choice
