"""Settings of admission: token buckets, waiting rooms, and the keys that sign tickets and passes.

Every error is reported with its key in the file.
"""

from __future__ import annotations

__all__ = [
    "AdmissionTable",
    "TicketKeysTable",
    "TicketSecrets",
    "WaitingRoomsConfig",
    "WaitingRoomsTable",
    "build_admission",
    "build_policies",
    "build_waiting_rooms",
    "decode_ticket_secrets",
    "rate_limit_policies",
]

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from quota_engine.admission import (
    BucketScope,
    LimitKey,
    Policy,
    PolicyChain,
    ScopedPolicy,
    ShadowPolicy,
    TokenBucketPolicy,
)
from quota_engine.admission.tickets import TicketKeys
from quota_engine.admission.token_bucket import AMOUNT_MAX, CHARGES_MAX, Limit, SlidingWindow
from quota_engine.catalog import Catalog
from quota_engine.domain.errors import InvalidRequest, ValidationIssue
from quota_engine.domain.identity_key import SECRET_EXPECTED, decode_secret
from quota_engine.waiting_room.commands import OPEN_MS_MAX, CreateRoom
from quota_engine.waiting_room.releases import (
    CHANNEL,
    ROOM_POLICY,
    ReleasePassPolicy,
    Releases,
    WaitingRoomSchedule,
    room_id,
)
from quota_engine.workflows.arguments import ticket_keys_from
from quota_engine.workflows.request_builder import RequestBuilder
from quota_engine.workflows.room_config import RoomArguments, RoomSettings, build_room_config

POLICIES_MAX: Final = 16
ALL_OFFICES: Final = "*"
_PERIODS_MS: Final = {"per_second": 1_000, "per_minute": 60_000, "per_hour": 3_600_000, "per_day": 86_400_000}
_RESERVED_NAMES: Final = frozenset({ROOM_POLICY, "chain"})
_DAY_MS: Final = 86_400_000
_TRIAL_DAY: Final = 20_000
"""Day, counted from 1970, of the room that is drafted to check the settings."""

Id = Annotated[str, Meta(pattern="[A-Za-z0-9_-]{1,64}", description="1 to 64 of A-Z a-z 0-9 _ -")]
Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]


class AdmissionTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one token bucket that limits attempts to reserve.

    Attributes:
        by: the key of a bucket, such as each network or each identity.
        burst: attempts that are possible at once; left out, as many as the period's amount. A full bucket lets up to
            ``burst + amount - 1`` attempts through in its first period.
        sliding_window: exactly the amount in any period, at most 100, instead of a bucket; without ``burst``.
        scope: ``store`` for buckets that all processes share, ``process`` for buckets of each process alone.
        shadow: count decisions, but do not enforce them.
        optional: admit callers without the value that ``by`` names.
        counts_refusals: charge also attempts that another bucket or the waiting room's pass refuses.
        channels: channels that the limit applies to; left out, all.

    Exactly one of the ``per_…`` amounts is given.
    """

    name: Id
    by: LimitKey
    per_second: Amount | None = None
    per_minute: Amount | None = None
    per_hour: Amount | None = None
    per_day: Amount | None = None
    burst: Amount | None = None
    sliding_window: bool = False
    scope: BucketScope = BucketScope.STORE
    shadow: bool = False
    optional: bool = False
    counts_refusals: bool = False
    channels: Annotated[tuple[Id, ...], Meta(max_length=64)] = ()


class WaitingRoomsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of waiting rooms. ``offices`` may be ``"*"``: all offices that can be booked online.

    See :class:`~quota_engine.waiting_room.releases.WaitingRoomSchedule` for the times.
    """

    offices: Annotated[tuple[str, ...], Meta(max_length=10_000)] = ()
    join_opens_before_ms: Annotated[int, Meta(ge=0, le=366 * _DAY_MS)] = 3_600_000
    duration_ms: Annotated[int, Meta(ge=1_000, le=OPEN_MS_MAX)] = 7_200_000
    settings: RoomSettings = RoomSettings()


class WaitingRoomsConfig(msgspec.Struct, frozen=True):
    """The offices that have waiting rooms, the rooms' times, and the settings of each room."""

    schedule: WaitingRoomSchedule
    settings: RoomSettings = RoomSettings()


class TicketKeysTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Secrets that sign tickets and passes, by id, as base64. New ones are signed with the ``active`` one."""

    active: str
    secrets: dict[str, str]


class TicketSecrets(msgspec.Struct, frozen=True):
    """Decoded secrets. Unlike :class:`TicketKeys` they can be pickled for a worker process."""

    active: str
    secrets: tuple[tuple[str, bytes], ...]

    def __repr__(self) -> str:
        return "TicketSecrets(...)"

    def keys(self) -> TicketKeys:
        """Return the signing keys.

        Raises:
            InvalidRequest: the active key is missing, or there are too many keys.
        """
        return TicketKeys(self.active, dict(self.secrets))


def build_admission(
    policies: tuple[Policy, ...], secrets: TicketSecrets | None, identity_key: bytes, releases: Releases | None
) -> tuple[Policy | None, TicketKeys]:
    """Return the engine's policy and the keys of tickets and passes.

    The policy of waiting rooms comes first, if there are ``releases``. Without ``secrets`` the keys derive from the
    identity key.
    """
    keys = ticket_keys_from(identity_key) if secrets is None else secrets.keys()
    if releases is not None:
        policies = (ReleasePassPolicy(releases, keys), *policies)
    return PolicyChain(policies) if policies else None, keys


def decode_ticket_secrets(
    table: TicketKeysTable | None, file: str, issues: list[ValidationIssue]
) -> TicketSecrets | None:
    """Return the secrets of a table, or ``None`` without one. Errors are appended to ``issues``."""
    if table is None:
        return None
    count_before = len(issues)
    secrets = {key_id: decode_secret(text) for key_id, text in table.secrets.items()}
    issues += [
        ValidationIssue(file, f"ticket_keys.secrets.{key_id}", "not shown", SECRET_EXPECTED)
        for key_id, secret in secrets.items()
        if not secret
    ]
    decoded = TicketSecrets(table.active, tuple(secrets.items()))
    if len(issues) == count_before:
        try:
            decoded.keys()
        except InvalidRequest as error:
            key = "ticket_keys.active" if "active" in error.where else "ticket_keys.secrets"
            issues.append(ValidationIssue(file, key, error.problem, error.expected))
    return decoded


def build_policies(
    tables: Sequence[AdmissionTable], catalog: Catalog, file: str, issues: list[ValidationIssue]
) -> tuple[Policy, ...]:
    """Return the policies of the tables, in their order. Errors are appended to ``issues``."""
    policies: list[Policy] = []
    charges = 0
    party_max = max(office.rules.party_max for office in catalog.offices.values())
    for index, table in enumerate(tables):
        key = f"admission[{index}]"
        if table.name in _RESERVED_NAMES or table.name in [other.name for other in tables[:index]]:
            expected = "names that are unique, and not room or chain"
            issues.append(ValidationIssue(file, f"{key}.name", repr(table.name), expected))
        issues += [
            ValidationIssue(
                file, f"{key}.channels", repr(channel), f"channels of the catalog: {', '.join(catalog.channels)}"
            )
            for channel in table.channels
            if channel not in catalog.channels
        ]
        limit = _build_limit(table, key, file, issues)
        if limit is None:
            continue
        policy: Policy = TokenBucketPolicy(
            table.name,
            table.by,
            limit,
            table.scope,
            optional=table.optional,
            counts_refusals=table.counts_refusals,
        )
        if table.shadow:
            policy = ShadowPolicy(policy)
        policies.append(ScopedPolicy(policy, channels=frozenset(table.channels)) if table.channels else policy)
        charges += party_max if table.by is LimitKey.IDENTITY else 1
    if charges > CHARGES_MAX:
        expected = f"at most {CHARGES_MAX} for the largest party ({party_max}): use fewer buckets by identity"
        issues.append(ValidationIssue(file, "admission", f"{charges} buckets for one reserve", expected))
    return tuple(policies)


def rate_limit_policies(policies: Sequence[Policy]) -> dict[str, str]:
    """Return the ``RateLimit-Policy`` header of each token bucket, by the policy's name.

    The format is that of draft-ietf-httpapi-ratelimit-headers-10: ``q`` is the burst, and ``w`` the seconds in which an
    empty bucket refills.
    """
    headers: dict[str, str] = {}
    for policy in policies:
        inner = policy.policy if isinstance(policy, ScopedPolicy) else policy
        if isinstance(inner, TokenBucketPolicy):
            headers[inner.name] = f'"{inner.name}";q={inner.limit.burst};w={-(-inner.limit.refill_ms // 1000)}'
    return headers


def _build_limit(table: AdmissionTable, key: str, file: str, issues: list[ValidationIssue]) -> Limit | None:
    given = [(name, getattr(table, name)) for name in _PERIODS_MS if getattr(table, name) is not None]
    if len(given) != 1:
        found = " and ".join(name for name, _ in given) or "missing"
        issues.append(ValidationIssue(file, f"{key}.per_minute", found, f"one of {', '.join(_PERIODS_MS)}"))
        return None
    ((name, amount),) = given
    if table.sliding_window and table.burst is not None:
        issues.append(ValidationIssue(file, f"{key}.burst", str(table.burst), "no burst, or no sliding_window"))
        return None
    try:
        kind = SlidingWindow if table.sliding_window else Limit
        return kind(amount, _PERIODS_MS[name], table.burst or amount)
    except InvalidRequest as error:
        field = "burst" if table.burst is not None else name
        issues.append(ValidationIssue(file, f"{key}.{field}", error.problem, error.expected))
        return None


def build_waiting_rooms(
    table: WaitingRoomsTable | None, catalog: Catalog, file: str, issues: list[ValidationIssue]
) -> WaitingRoomsConfig | None:
    """Return the waiting rooms of a table, or ``None`` if no office has any. Errors are appended to ``issues``.

    A room is drafted for each office, so that an error is reported now and not at the next opening.
    """
    if table is None or not table.offices:
        return None
    unknown = [office for office in table.offices if office != ALL_OFFICES and office not in catalog.offices]
    issues += [
        ValidationIssue(file, "waiting_rooms.offices", repr(office), "offices of the catalog, or *")
        for office in unknown
    ]
    has_all = ALL_OFFICES in table.offices
    offices: list[str] = []
    for office in catalog.offices:
        if not has_all and office not in table.offices:
            continue
        error = _draft_room(catalog, office, table)
        if error is None:
            offices.append(office)
        elif error.where.removeprefix("settings.") in RoomSettings.__struct_fields__:
            key = f"waiting_rooms.settings.{error.where.removeprefix('settings.')}"
            issues.append(ValidationIssue(file, key, error.problem, error.expected))
            break  # every office has the same settings
        elif office in table.offices or error.where == "room":
            issues.append(ValidationIssue(file, "waiting_rooms.offices", f"{office}: {error.problem}", error.expected))
    schedule = WaitingRoomSchedule(tuple(offices), table.join_opens_before_ms, table.duration_ms)
    return WaitingRoomsConfig(schedule, table.settings)


def _draft_room(catalog: Catalog, office: str, table: WaitingRoomsTable) -> InvalidRequest | None:
    """Build the command that creates a room of this office, without sending it; return the error, if there is one."""
    opens_at_ms = _DAY_MS * _TRIAL_DAY
    closes_at_ms = opens_at_ms + table.duration_ms
    try:
        arguments = RoomArguments(
            office, _TRIAL_DAY, None, opens_at_ms, closes_at_ms, 0, "", CHANNEL, "", table.settings
        )
        CreateRoom(build_room_config(RequestBuilder(bytes(32), catalog), room_id(office, opens_at_ms), arguments))
    except InvalidRequest as error:
        return error
    return None
