"""Who may try, as the configuration says it: token buckets, waiting rooms, and the keys that their passes are signed
with. What is said is put together here, and each mistake named with its key.
"""

from __future__ import annotations

__all__ = [
    "AdmissionTable",
    "TicketKeysTable",
    "TicketSecrets",
    "WaitingRoomsTable",
    "admission_of",
    "policies_of",
    "rate_policies_of",
    "rooms_of",
    "secrets_of",
]

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

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
from quota_engine.admission.token_bucket import AMOUNT_MAX, CHARGES_MAX, Limit
from quota_engine.catalog import Catalog
from quota_engine.domain.errors import InvalidRequest, ValidationIssue
from quota_engine.service.background.room_supervisor import (
    CHANNEL,
    ROOM_POLICY,
    ReleasePass,
    Releases,
    WaitingRooms,
    room_id,
)
from quota_engine.waiting_room.machine import OPEN_MS_MAX
from quota_engine.workflows import waiting_rooms as flow
from quota_engine.workflows.request_builder import RequestBuilder, ticket_keys_from
from quota_engine.workflows.waiting_rooms import RoomBook, RoomSettings

if TYPE_CHECKING:
    from quota_engine.service.config.settings import Configuration

POLICIES_MAX: Final = 16
ALL: Final = "*"
SECRET_EXPECTED: Final = "base64 of 16 to 64 random bytes: openssl rand -base64 32"  # noqa: S105 - how one is made
_PER_MS: Final = {"per_second": 1_000, "per_minute": 60_000, "per_hour": 3_600_000, "per_day": 86_400_000}
_TAKEN: Final = frozenset({ROOM_POLICY, "chain"})

Id = Annotated[str, Meta(pattern="[A-Za-z0-9_-]{1,64}", description="1 to 64 of A-Z a-z 0-9 _ -")]
Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]


class AdmissionTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token bucket in front of ``reserve``: of whom (``by``), how many tries (one of ``per_…``), and how many at once
    (``burst``; as many as come back in the time named, if left out).
    """

    name: Id
    by: LimitKey
    per_second: Amount | None = None
    per_minute: Amount | None = None
    per_hour: Amount | None = None
    per_day: Amount | None = None
    burst: Amount | None = None
    where: BucketScope = BucketScope.STORE
    shadow: bool = False
    optional: bool = False
    channels: Annotated[tuple[Id, ...], Meta(max_length=64)] = ()


class WaitingRoomsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which offices (``"*"``: all that can be booked online) have a waiting room for each release."""

    offices: Annotated[tuple[str, ...], Meta(max_length=10_000)] = ()
    joins_before_ms: Annotated[int, Meta(ge=0, le=366 * 86_400_000)] = 3_600_000
    lasts_ms: Annotated[int, Meta(ge=1_000, le=OPEN_MS_MAX)] = 7_200_000
    settings: RoomSettings = RoomSettings()


class TicketKeysTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The secrets that tickets and passes are signed with, by id; the ``active`` one signs new ones."""

    active: str
    secrets: dict[str, str]


class TicketSecrets(msgspec.Struct, frozen=True):
    """The same, as bytes. (The keys themselves can not be handed to another process.)"""

    active: str
    secrets: tuple[tuple[str, bytes], ...]

    def __repr__(self) -> str:
        return "TicketSecrets(...)"

    def keys(self) -> TicketKeys:
        """What signs with them."""
        return TicketKeys(self.active, dict(self.secrets))


def admission_of(configuration: Configuration, releases: Releases | None) -> tuple[Policy | None, TicketKeys]:
    """What an engine is opened with: the policies, that of the waiting rooms first, and the keys of their passes."""
    secrets = configuration.ticket_keys
    keys = ticket_keys_from(configuration.identity_key) if secrets is None else secrets.keys()
    policies = configuration.admission
    if releases is not None:
        policies = (ReleasePass(releases, keys), *policies)
    return PolicyChain(policies) if policies else None, keys


def secret_of(text: str) -> bytes:
    """The bytes of a secret's base64; none, if it is no base64, or not of 16 to 64 bytes."""
    try:
        secret = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return secret if 16 <= len(secret) <= 64 else b""


def secrets_of(table: TicketKeysTable | None, file: str, mistakes: list[ValidationIssue]) -> TicketSecrets | None:
    """The secrets of a table, or ``None`` if there is none."""
    if table is None:
        return None
    before = len(mistakes)
    secrets = {key_id: secret_of(text) for key_id, text in table.secrets.items()}
    mistakes += [
        ValidationIssue(file, f"ticket_keys.secrets.{key_id}", "not shown", SECRET_EXPECTED)
        for key_id, secret in secrets.items()
        if not secret
    ]
    found = TicketSecrets(table.active, tuple(secrets.items()))
    if len(mistakes) == before:
        try:
            found.keys()
        except InvalidRequest as error:
            key = "ticket_keys.active" if "active" in error.where else "ticket_keys.secrets"
            mistakes.append(ValidationIssue(file, key, error.problem, error.expected))
    return found


def policies_of(
    tables: Sequence[AdmissionTable], catalog: Catalog, file: str, mistakes: list[ValidationIssue]
) -> tuple[Policy, ...]:
    """The policies of the tables, in their order."""
    policies: list[Policy] = []
    buckets = 0
    party_max = max(office.rules.party_max for office in catalog.offices.values())
    for index, table in enumerate(tables):
        key = f"admission[{index}]"
        if table.name in _TAKEN or table.name in [one.name for one in tables[:index]]:
            mistakes.append(
                ValidationIssue(file, f"{key}.name", repr(table.name), "names that are unique, and not room or chain")
            )
        mistakes += [
            ValidationIssue(
                file, f"{key}.channels", repr(channel), f"channels of the catalog: {', '.join(catalog.channels)}"
            )
            for channel in table.channels
            if channel not in catalog.channels
        ]
        limit = _limit(table, key, file, mistakes)
        if limit is None:
            continue
        policy: Policy = TokenBucketPolicy(table.name, table.by, limit, table.where, optional=table.optional)
        if table.shadow:
            policy = ShadowPolicy(policy)
        policies.append(ScopedPolicy(policy, channels=frozenset(table.channels)) if table.channels else policy)
        buckets += party_max if table.by is LimitKey.IDENTITY else 1
    if buckets > CHARGES_MAX:
        expected = f"at most {CHARGES_MAX} for the largest party ({party_max}): fewer by identity"
        mistakes.append(ValidationIssue(file, "admission", f"{buckets} buckets for one reserve", expected))
    return tuple(policies)


def rate_policies_of(policies: Sequence[Policy]) -> dict[str, str]:
    """For each policy that is a token bucket, by its name, the ``RateLimit-Policy`` header (of
    draft-ietf-httpapi-ratelimit-headers-10) that says so: how many tries there are at once (``q``), and in how many
    seconds all of them have come back (``w``).
    """
    found: dict[str, str] = {}
    for policy in policies:
        bare = policy.policy if isinstance(policy, ScopedPolicy) else policy
        if isinstance(bare, TokenBucketPolicy):
            found[bare.name] = f'"{bare.name}";q={bare.limit.burst};w={-(-bare.limit.refill_ms // 1000)}'
    return found


def _limit(table: AdmissionTable, key: str, file: str, mistakes: list[ValidationIssue]) -> Limit | None:
    given = [(name, getattr(table, name)) for name in _PER_MS if getattr(table, name) is not None]
    if len(given) != 1:
        found = " and ".join(name for name, _ in given) or "missing"
        mistakes.append(ValidationIssue(file, f"{key}.per_minute", found, f"one of {', '.join(_PER_MS)}"))
        return None
    ((name, amount),) = given
    try:
        return Limit(amount, _PER_MS[name], table.burst or amount)
    except InvalidRequest as error:
        at = "burst" if table.burst is not None else name
        mistakes.append(ValidationIssue(file, f"{key}.{at}", error.problem, error.expected))
        return None


def rooms_of(
    table: WaitingRoomsTable | None, catalog: Catalog, file: str, mistakes: list[ValidationIssue]
) -> WaitingRooms | None:
    """The waiting rooms of a table, or ``None`` if no office has any. A room is drafted for each office, so that what
    is wrong is known now and not at the next opening.
    """
    if table is None or not table.offices:
        return None
    unknown = [one for one in table.offices if one != ALL and one not in catalog.offices]
    mistakes += [
        ValidationIssue(file, "waiting_rooms.offices", repr(one), "offices of the catalog, or *") for one in unknown
    ]
    for_all = ALL in table.offices
    names = [one for one in catalog.offices if for_all or one in table.offices]
    offices: list[str] = []
    for name in names:
        error = _draft(catalog, name, table)
        if error is None:
            offices.append(name)
        elif error.where.removeprefix("settings.") in RoomSettings.__struct_fields__:
            key = f"waiting_rooms.settings.{error.where.removeprefix('settings.')}"
            mistakes.append(ValidationIssue(file, key, error.problem, error.expected))
            break  # it would be the same for every office
        elif name in table.offices or error.where == "room":
            mistakes.append(ValidationIssue(file, "waiting_rooms.offices", f"{name}: {error.problem}", error.expected))
    return WaitingRooms(tuple(offices), table.joins_before_ms, table.lasts_ms, table.settings)


def _draft(catalog: Catalog, office: str, table: WaitingRoomsTable) -> InvalidRequest | None:
    """What is wrong with a room of this office, if anything is; made on paper only."""
    opens_at_ms = 86_400_000 * 20_000
    closes_at_ms = opens_at_ms + table.lasts_ms
    try:
        book = RoomBook(RequestBuilder(bytes(32), catalog), room_id(office, opens_at_ms), lambda: 0)
        drafted = flow.create(book, office, 20_000, None, opens_at_ms, closes_at_ms, 0, "", CHANNEL, "", table.settings)
        next(drafted)
        drafted.close()
    except InvalidRequest as error:
        return error
    return None
