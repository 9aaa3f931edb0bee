"""Settings and configuration of a waiting room."""

from __future__ import annotations

__all__ = ["RoomArguments", "RoomSettings", "build_room_config", "room_choices"]

import hashlib
from typing import Final, NamedTuple

import msgspec

from quota_engine.catalog import Catalog, Selection, choice_of, get_office
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Choice
from quota_engine.domain.validation import TIME_MS_MAX, check_integer, check_name
from quota_engine.waiting_room.commands import TICKETS_MAX, RoomConfig
from quota_engine.waiting_room.order import commitment_of, seed_of
from quota_engine.workflows.arguments import Day, Moment, day_number, moment_ms
from quota_engine.workflows.request_builder import RequestBuilder

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS


class RoomSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a waiting room. All have defaults; 0 has the meaning stated here.

    Args:
        window_ms: arrivals after the opening are shuffled within windows of this length.
        step_ms: the room calls tickets at most once in this time.
        turn_ms: how long a called ticket can get its pass.
        pass_grace_ms: how long a pass is valid after the turn; 0 for the office's hold time, and never less.
        per_minute_min: least tickets called a minute.
        per_minute_max: most tickets called a minute.
        burst: most tickets called in one step; 0 for twice an average step.
        latency_max_ms: the room calls more slowly while the store takes longer than this.
        calls_per_100_places: most tickets in their turn for 100 places that are left.
        units_max: places that one ticket may take; 0 for the office's largest party.
        tickets_max: most tickets of the room.
        retention_ms: how long the store keeps the room after it closes.
    """

    window_ms: int = 10_000
    step_ms: int = 1_000
    turn_ms: int = 300_000
    pass_grace_ms: int = 0
    per_minute_min: int = 60
    per_minute_max: int = 6_000
    burst: int = 0
    latency_max_ms: int = 200
    calls_per_100_places: int = 150
    units_max: int = 0
    tickets_max: int = TICKETS_MAX
    retention_ms: int = 30 * _DAY_MS


class RoomArguments(NamedTuple):
    """Arguments of :meth:`quota_engine.WaitingRoom.create`."""

    office: str
    first_day: Day
    last_day: Day | None
    opens_at: Moment
    closes_at: Moment | None
    join_opens_at: Moment | None
    entropy_source: str
    channel: str
    group: str
    settings: RoomSettings


def build_room_config(requests: RequestBuilder, room: str, arguments: RoomArguments) -> RoomConfig:
    """Build the configuration of a new room.

    The seed follows from the room, its office, days and times, and the active key. So a room that a failover has lost
    is created again with the commitment that was published. It is secret as long as the key is.

    Raises:
        UnknownName: the catalog does not have the office, the channel or the group.
        InvalidRequest: a moment, a day or a setting is out of range; or the office offers nothing in the channel.
    """
    check_name(room, "room")
    office, settings = arguments.office, arguments.settings
    rules = get_office(requests.catalog, office).rules
    first_day = day_number(arguments.first_day)
    opens_at_ms = moment_ms(arguments.opens_at, "opens_at")
    closes_at_ms = opens_at_ms + 2 * _HOUR_MS
    if arguments.closes_at is not None:
        closes_at_ms = moment_ms(arguments.closes_at, "closes_at")
    if not isinstance(settings, RoomSettings):
        raise InvalidRequest("settings", f"a {type(settings).__name__}", "RoomSettings")
    for name in RoomSettings.__struct_fields__:
        check_integer(getattr(settings, name), f"settings.{name}", 0, TIME_MS_MAX)
    if settings.pass_grace_ms and settings.pass_grace_ms < rules.hold_ttl_ms:
        problem = f"{settings.pass_grace_ms}: a pass would end before the hold that it is for"
        raise InvalidRequest(
            "settings.pass_grace_ms", problem, f"at least the office's hold_ttl_ms, {rules.hold_ttl_ms}"
        )
    last_day = first_day if arguments.last_day is None else day_number(arguments.last_day)
    join_opens_at_ms = 0 if arguments.join_opens_at is None else moment_ms(arguments.join_opens_at, "join_opens_at")
    fixed = (
        office, first_day, last_day, join_opens_at_ms, opens_at_ms, closes_at_ms, arguments.entropy_source,
        arguments.channel, arguments.group,
    )  # fmt: skip
    nonce = hashlib.blake2b(msgspec.json.encode(fixed), digest_size=16, person=b"qe room nonce").hexdigest()
    key_id = requests.ticket_keys.active
    closing_seed = requests.ticket_keys.derive_closing_seed(key_id, room, nonce)
    config = RoomConfig(
        office=office,
        first_day=first_day,
        last_day=last_day,
        join_opens_at_ms=join_opens_at_ms,
        opens_at_ms=opens_at_ms,
        closes_at_ms=closes_at_ms,
        forget_at_ms=closes_at_ms + settings.retention_ms,
        commitment=commitment_of(seed_of(closing_seed)),
        key_id=key_id,
        nonce=nonce,
        entropy_source=arguments.entropy_source,
        channel=arguments.channel,
        group=arguments.group,
        tickets_max=settings.tickets_max,
        window_ms=settings.window_ms,
        step_ms=settings.step_ms,
        turn_ms=settings.turn_ms,
        pass_grace_ms=settings.pass_grace_ms or rules.hold_ttl_ms,
        per_minute_min=settings.per_minute_min,
        per_minute_max=settings.per_minute_max,
        burst=settings.burst or -(-2 * settings.per_minute_max * settings.step_ms // 60_000),
        latency_max_ms=settings.latency_max_ms,
        calls_per_100_places=settings.calls_per_100_places,
        units_max=settings.units_max or rules.party_max,
    )
    room_choices(requests.catalog, config)  # rejects a channel or a group that the office does not offer
    return config


def room_choices(catalog: Catalog, config: RoomConfig) -> tuple[Choice, ...]:
    """Return all choices that the room's office offers in the room's channel and applicant group.

    Raises:
        InvalidRequest: there is none.
    """
    office = get_office(catalog, config.office)
    found: dict[tuple[tuple[str, ...], ...], Choice] = {}
    problem: InvalidRequest | None = None
    for service in office.services:
        for unit in ("", *office.service_units):
            for session in ("", *office.sessions):
                selection = Selection(service, unit, session, config.channel, config.group)
                try:
                    choice = choice_of(catalog, config.office, selection)
                except InvalidRequest as error:
                    problem = problem or error
                else:
                    found.setdefault(choice.options, choice)
    if not found and problem is not None:
        raise problem
    return tuple(found.values())
