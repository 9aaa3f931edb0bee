"""Commands and queries of a waiting room, with its settings."""

from __future__ import annotations

__all__ = [
    "ACTIVE_CALLS_MAX",
    "DAYS_MAX",
    "INDEX_NONE",
    "MINUTE_MS",
    "OPEN_MS_MAX",
    "PER_MINUTE_MAX",
    "PLACES_LEFT_MAX",
    "PLACES_LEFT_UNKNOWN",
    "RETENTION_MS_MAX",
    "TICKETS_MAX",
    "TICKETS_PER_CALL_MAX",
    "WINDOWS_MAX",
    "WINDOW_MS_MIN",
    "CallTickets",
    "CloseRoom",
    "CreateRoom",
    "FindTicket",
    "JoinRoom",
    "OpenRoom",
    "RoomCommand",
    "RoomConfig",
    "RoomQuery",
    "SetPace",
    "ViewRoom",
]

from typing import Final

import msgspec

from quota_engine.domain.commands import DAY_MAX
from quota_engine.domain.epochs import EPOCH_FIRST, EPOCH_MAX, AdvanceEpoch
from quota_engine.domain.validation import CAPACITY_MAX, TIME_MS_MAX, check_integer, check_name
from quota_engine.waiting_room.order import check_entropy, check_seed
from quota_engine.waiting_room.permutation import SIZE_MAX

TICKETS_MAX: Final = SIZE_MAX
OPEN_MS_MAX: Final = 7 * 86_400_000
"""The longest time from the opening to the close."""
WINDOWS_MAX: Final = 4096
WINDOW_MS_MIN: Final = 1_000
ACTIVE_CALLS_MAX: Final = 512
"""The most calls whose turns have not ended: the upper bound of ``turn_ms / step_ms``."""
PER_MINUTE_MAX: Final = 6_000_000
TICKETS_PER_CALL_MAX: Final = 1_000_000
DAYS_MAX: Final = 62
RETENTION_MS_MAX: Final = 366 * 86_400_000
PLACES_LEFT_MAX: Final = CAPACITY_MAX * DAYS_MAX
PLACES_LEFT_UNKNOWN: Final = -1
INDEX_NONE: Final = -1
MINUTE_MS: Final = 60_000


class RoomConfig(msgspec.Struct, frozen=True):
    """Settings of a room. They are fixed when the room is created.

    Moments are in milliseconds since 1970 (UTC).

    Attributes:
        office: Id of the office that the room serves.
        first_day: First day that the room serves (a date's ordinal).
        last_day: Last day that the room serves (a date's ordinal). At most 62 days from the first.
        join_opens_at_ms: Time from which the room gives tickets.
        opens_at_ms: Time at which the room opens.
        closes_at_ms: Time at which the room closes. At most 7 days after the opening.
        forget_at_ms: Time at which the store deletes the room.
        commitment: Hash that commits to both seeds; see :mod:`quota_engine.waiting_room.order`.
        key_id: Id of the secret from which the seeds are derived.
        nonce: Id from which the seeds are derived. It follows from the settings that are public.
        entropy_source: Public source of entropy. The room opens only with a text from it. ``""``: no entropy is used.
        channel: Channel of the places that the room is for.
        group: Applicant group of the places that the room is for. ``""``: all applicants.
        tickets_max: The most tickets that the room gives.
        window_ms: Length of the windows into which tickets fall after the opening, in milliseconds.
        step_ms: The shortest time between two calls, in milliseconds (100 to 60,000).
        turn_ms: Length of a turn, in milliseconds.
        pass_grace_ms: Time for which a pass stays valid after its turn, in milliseconds.
        per_minute_min: Lowest pace, in tickets a minute.
        per_minute_max: Highest pace, in tickets a minute.
        burst: The most tickets of one call.
        latency_max_ms: Response time of the store above which the pace falls, in milliseconds.
        calls_per_100_places: Called tickets without a place that are allowed for 100 places left.
        units_max: The most places that one ticket can take (1 to 100).

    Raises:
        InvalidRequest: A value is out of its range.
    """

    office: str
    first_day: int
    last_day: int
    join_opens_at_ms: int
    opens_at_ms: int
    closes_at_ms: int
    forget_at_ms: int
    commitment: str
    key_id: str
    nonce: str
    entropy_source: str = ""
    channel: str = "online"
    group: str = ""
    tickets_max: int = TICKETS_MAX
    window_ms: int = 10_000
    step_ms: int = 1_000
    turn_ms: int = 300_000
    pass_grace_ms: int = 900_000
    per_minute_min: int = 60
    per_minute_max: int = 6_000
    burst: int = 200
    latency_max_ms: int = 200
    calls_per_100_places: int = 150
    units_max: int = 1

    def __post_init__(self) -> None:
        check_name(self.office, "office")
        check_integer(self.first_day, "first_day", 1, DAY_MAX)
        check_integer(self.last_day, "last_day", self.first_day, self.first_day + DAYS_MAX - 1)
        check_integer(self.join_opens_at_ms, "join_opens_at_ms", 0, TIME_MS_MAX)
        check_integer(self.opens_at_ms, "opens_at_ms", self.join_opens_at_ms, TIME_MS_MAX)
        check_integer(self.closes_at_ms, "closes_at_ms", self.opens_at_ms + 1, self.opens_at_ms + OPEN_MS_MAX)
        check_seed(self.commitment, "commitment")
        check_name(self.key_id, "key_id")
        check_name(self.nonce, "nonce")
        check_entropy(self.entropy_source, "entropy_source")
        check_name(self.channel, "channel")
        if self.group:
            check_name(self.group, "group")
        check_integer(self.tickets_max, "tickets_max", 1, TICKETS_MAX)
        window_ms_min = max(WINDOW_MS_MIN, -(-(self.closes_at_ms - self.opens_at_ms) // WINDOWS_MAX))
        check_integer(self.window_ms, "window_ms", window_ms_min, OPEN_MS_MAX)
        check_integer(self.step_ms, "step_ms", 100, 60_000)
        check_integer(self.turn_ms, "turn_ms", self.step_ms, self.step_ms * ACTIVE_CALLS_MAX)
        check_integer(self.pass_grace_ms, "pass_grace_ms", 1_000, OPEN_MS_MAX)
        check_integer(
            self.forget_at_ms,
            "forget_at_ms",
            self.closes_at_ms + self.turn_ms + self.pass_grace_ms,
            self.closes_at_ms + RETENTION_MS_MAX,
        )
        check_integer(self.per_minute_min, "per_minute_min", 1, PER_MINUTE_MAX)
        check_integer(self.per_minute_max, "per_minute_max", self.per_minute_min, PER_MINUTE_MAX)
        # A smaller burst could not keep up the highest pace from step to step.
        check_integer(self.burst, "burst", -(-self.per_minute_max * self.step_ms // MINUTE_MS), TICKETS_PER_CALL_MAX)
        check_integer(self.latency_max_ms, "latency_max_ms", 1, 60_000)
        check_integer(self.calls_per_100_places, "calls_per_100_places", 1, 100_000)
        check_integer(self.units_max, "units_max", 1, 100)


class CreateRoom(msgspec.Struct, frozen=True):
    """Create the room. Replayed if it exists with the same settings."""

    config: RoomConfig


class JoinRoom(msgspec.Struct, frozen=True, gc=False):
    """Take a ticket. An applicant who has one gets the same ticket again.

    Attributes:
        applicant: Keyed hash of the applicant.
        replaces_ticket: Index of a ticket that missed its turn, to get a new one behind. ``INDEX_NONE`` otherwise.
        replaces_epoch: Epoch of that ticket.
    """

    applicant: str
    replaces_ticket: int = INDEX_NONE
    replaces_epoch: int = EPOCH_FIRST

    def __post_init__(self) -> None:
        check_name(self.applicant, "applicant")
        if self.replaces_ticket != INDEX_NONE:
            check_integer(self.replaces_ticket, "replaces_ticket", 0, TICKETS_MAX - 1)
            check_integer(self.replaces_epoch, "replaces_epoch", EPOCH_FIRST, EPOCH_MAX)


class OpenRoom(msgspec.Struct, frozen=True):
    """Open the room by revealing its seed.

    Attributes:
        seed: The seed, in hex.
        entropy: Text from the entropy source. ``""`` if the room uses none.
        epoch: Epoch of the room that the sender has seen. 0: the first one.
    """

    seed: str
    entropy: str = ""
    epoch: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed, "seed")
        check_entropy(self.entropy, "entropy")
        check_integer(self.epoch, "epoch", 0, EPOCH_MAX)


class CallTickets(msgspec.Struct, frozen=True, gc=False):
    """Call the next tickets and set the pace, if ``step_ms`` has passed since the last step.

    The pace up to now decides how many tickets are called.

    Attributes:
        per_minute: Pace from now on, in tickets a minute. The room's bounds limit it.
        tickets_max: The most tickets to call.
        places_left: Places left, or ``PLACES_LEFT_UNKNOWN``.
    """

    per_minute: int
    tickets_max: int = TICKETS_PER_CALL_MAX
    places_left: int = PLACES_LEFT_UNKNOWN

    def __post_init__(self) -> None:
        check_integer(self.per_minute, "per_minute", 0, PER_MINUTE_MAX)
        check_integer(self.tickets_max, "tickets_max", 0, TICKETS_PER_CALL_MAX)
        if self.places_left != PLACES_LEFT_UNKNOWN:
            check_integer(self.places_left, "places_left", 0, PLACES_LEFT_MAX)


class CloseRoom(msgspec.Struct, frozen=True):
    """Close the room and reveal its closing seed, in hex."""

    closing_seed: str

    def __post_init__(self) -> None:
        check_seed(self.closing_seed, "closing_seed")


class SetPace(msgspec.Struct, frozen=True, gc=False):
    """Replace the bounds of the pace, in tickets a minute. They take precedence over the room's settings."""

    per_minute_min: int
    per_minute_max: int

    def __post_init__(self) -> None:
        check_integer(self.per_minute_min, "per_minute_min", 1, PER_MINUTE_MAX)
        check_integer(self.per_minute_max, "per_minute_max", self.per_minute_min, PER_MINUTE_MAX)


RoomCommand = CreateRoom | JoinRoom | OpenRoom | CallTickets | CloseRoom | SetPace | AdvanceEpoch


class ViewRoom(msgspec.Struct, frozen=True, gc=False):
    """Query the state of the room."""


class FindTicket(msgspec.Struct, frozen=True, gc=False):
    """Query the ticket that the room has of an applicant, and the epoch of the room.

    Attributes:
        applicant: Keyed hash of the applicant.
    """

    applicant: str

    def __post_init__(self) -> None:
        check_name(self.applicant, "applicant")


RoomQuery = ViewRoom | FindTicket
