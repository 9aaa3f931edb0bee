"""Policies that decide which callers may try to take a place.

A policy looks at a request and decides ``admit``, ``wait`` or ``deny``. It can also return requirements that the store
decides in one step with the command: charges on token buckets, and a pass to use up.

A policy is pure: it gets the time, stores nothing and does no I/O. Any object with a ``name`` and a ``decide`` method
is a policy. :class:`quota_engine.admission.chain.PolicyChain` combines policies.
"""

from __future__ import annotations

__all__ = [
    "ADMIT",
    "BucketScope",
    "Caller",
    "ConstantPolicy",
    "DecisionKind",
    "DecisionRecord",
    "LimitKey",
    "PassRequiredPolicy",
    "Policy",
    "PolicyDecision",
    "PolicyRequest",
    "PolicyResult",
    "ScopedPolicy",
    "ShadowPolicy",
    "TokenBucketPolicy",
    "bucket_name",
    "deny",
    "network_prefix",
    "room_pass",
    "wait",
]

import base64
import enum
import functools
import hashlib
import ipaddress
import unicodedata
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from quota_engine.admission.guarded_command import AdmissionPass
from quota_engine.admission.tickets import TicketKeys, read_pass
from quota_engine.admission.token_bucket import Charge, Limit
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Choice
from quota_engine.domain.validation import DURATION_MS_MAX, check_integer, check_name

IPV4_PREFIX_BITS: Final = 24
IPV6_PREFIX_BITS: Final = 64
CALLER_KEY_LENGTH_MAX: Final = 256


class DecisionKind(enum.StrEnum):
    """Kind of a policy's decision."""

    ADMIT = "admit"
    """The caller may try to reserve."""
    WAIT = "wait"
    """The caller may try again later."""
    DENY = "deny"
    """The caller may not reserve."""


class PolicyDecision(msgspec.Struct, frozen=True, gc=False):
    """Decision of a policy.

    Attributes:
        kind: Kind of the decision.
        reason: A name of the characters ``A-Z a-z 0-9 _ -``. It must not identify a person. ``""`` for ``ADMIT``.
        retry_after_ms: Time after which to try again, in milliseconds, for ``WAIT``.

    Raises:
        InvalidRequest: A value is out of its range.
    """

    kind: DecisionKind
    reason: str = ""
    retry_after_ms: int = 0

    def __post_init__(self) -> None:
        if self.kind is not DecisionKind.ADMIT:
            check_name(self.reason, "decision.reason")
        check_integer(self.retry_after_ms, "decision.retry_after_ms", 0, DURATION_MS_MAX)

    @property
    def admits(self) -> bool:
        """True for ``ADMIT``."""
        return self.kind is DecisionKind.ADMIT


ADMIT: Final = PolicyDecision(DecisionKind.ADMIT)


def wait(reason: str, retry_after_ms: int) -> PolicyDecision:
    """Return a ``WAIT`` decision.

    Args:
        reason: Reason of the decision.
        retry_after_ms: Time after which to try again, in milliseconds.
    """
    return PolicyDecision(DecisionKind.WAIT, reason, retry_after_ms)


def deny(reason: str) -> PolicyDecision:
    """Return a ``DENY`` decision."""
    return PolicyDecision(DecisionKind.DENY, reason)


class Caller(msgspec.Struct, frozen=True):
    """The caller as the service knows them. All fields are hashed before a policy sees them.

    The service must have verified every field. A header that anyone can write gives a new key with each call.

    Attributes:
        account: Account, or ``""`` if it is not known. Spellings that differ in Unicode form (NFKC), case or outer
            spaces are the same account.
        network: IP address, or a prefix such as ``198.51.100.0/22``. Of an IPv4 address the first 24 bits count, of an
            IPv6 address the first 64.
        device: Device, or ``""``. Spellings are treated as those of an account.
    """

    account: str = ""
    network: str = ""
    device: str = ""

    def canonical(self) -> Caller:
        """Return the caller with each field in its canonical spelling.

        Raises:
            InvalidRequest: A field is not a usable string, or ``network`` is not a network.
        """
        return Caller(
            _canonical(self.account, "caller.account"),
            network_prefix(self.network) if self.network else "",
            _canonical(self.device, "caller.device"),
        )


def _canonical(value: str, where: str) -> str:
    if type(value) is not str or len(value) > CALLER_KEY_LENGTH_MAX:
        raise InvalidRequest(where, "not a usable key", f"a string of up to {CALLER_KEY_LENGTH_MAX} characters")
    text = unicodedata.normalize("NFKC", value).casefold().strip()
    if value and (not text or not text.isprintable() or len(text) > CALLER_KEY_LENGTH_MAX):
        raise InvalidRequest(where, "not a usable key", f"1 to {CALLER_KEY_LENGTH_MAX} printable characters")
    return text


@functools.lru_cache(maxsize=4096)
def network_prefix(address: str) -> str:
    """Return the network of an address, such as ``203.0.113.0/24``.

    Args:
        address: An IPv4 or IPv6 address, or a prefix, which is returned in its canonical spelling.

    Raises:
        InvalidRequest: It is neither.
    """
    try:
        if "/" in address:
            return str(ipaddress.ip_network(address, strict=False))
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except (ValueError, TypeError):
        raise InvalidRequest("caller.network", "not an address", "an IPv4 or IPv6 address, or a prefix") from None
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return str(ipaddress.ip_network((parsed, IPV6_PREFIX_BITS), strict=False))
        parsed = parsed.ipv4_mapped  # an IPv4 client of a dual-stack socket
    return str(ipaddress.ip_network((parsed, IPV4_PREFIX_BITS), strict=False))


class PolicyRequest(msgspec.Struct, frozen=True):
    """A reserve as policies see it, or another command that takes a place: with the day and choice of that place.

    Attributes:
        office: Id of the office.
        day: The day (a date's ordinal).
        applicants: Keyed hashes of the applicants.
        choice: Service, session, channel and applicant group that the reserve asks for.
        account: Keyed hash of the caller's account, or ``""`` if it is not known.
        network: Keyed hash of the caller's network, or ``""``.
        device: Keyed hash of the caller's device, or ``""``.
        admission_pass: Pass that the caller sent, not verified, or ``""``.
        now_ms: Time of the request, in milliseconds since 1970 (UTC).
        opens_at_ms: When the day opens for booking by the catalog, in milliseconds since 1970 (UTC); 0 if the office
            does not work on that day.
    """

    office: str
    day: int
    applicants: tuple[str, ...]
    choice: Choice
    account: str = ""
    network: str = ""
    device: str = ""
    admission_pass: str = ""
    now_ms: int = 0
    opens_at_ms: int = 0


class DecisionRecord(msgspec.Struct, frozen=True, gc=False):
    """A decision for observers: the policy's name, its decision, and whether it was enforced or in shadow mode."""

    policy: str
    decision: PolicyDecision
    enforced: bool = True


class BucketScope(enum.StrEnum):
    """Scope of a policy's buckets."""

    STORE = "store"
    """The office's buckets in the store, shared by all processes. They are charged in one step with the reserve."""
    PROCESS = "process"
    """Buckets of this process. They are charged before the store is called, and keep load away from it."""


class ChargeRequirement(msgspec.Struct, frozen=True, gc=False):
    """A charge that a policy requires, and the scope of its bucket."""

    policy: str
    charge: Charge
    scope: BucketScope = BucketScope.STORE


class PassRequirement(msgspec.Struct, frozen=True, gc=False):
    """A pass that a policy requires to be used up, and the reason that a refusal by the store gives."""

    policy: str
    admission_pass: AdmissionPass
    reason: str = "pass_used_or_over"


class PolicyResult(msgspec.Struct, frozen=True):
    """Result of a policy for one request.

    Attributes:
        decision: The decision. It holds only if all requirements are met.
        charge_requirements: Charges that are required.
        pass_requirements: Passes that are required.
        records: Decisions of the policies within the policy, for observers.
    """

    decision: PolicyDecision = ADMIT
    charge_requirements: tuple[ChargeRequirement, ...] = ()
    pass_requirements: tuple[PassRequirement, ...] = ()
    records: tuple[DecisionRecord, ...] = ()


class Policy(Protocol):
    """Decides which callers may try to reserve."""

    @property
    def name(self) -> str:
        """Id of the policy, for decision records and the names of its buckets."""
        ...

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """Decide on a request.

        The method must be pure. A :class:`PolicyChain` treats an exception as a failure of the policy, except
        :class:`InvalidRequest`, which is a fault of the call.
        """
        ...


class LimitKey(enum.StrEnum):
    """Key by which a policy chooses the bucket to charge."""

    IDENTITY = "identity"
    """Each applicant has a bucket."""
    ACCOUNT = "account"
    """Each account has a bucket."""
    NETWORK = "network"
    """Each network has a bucket."""
    DEVICE = "device"
    """Each device has a bucket."""
    ALL = "all"
    """All callers share one bucket: that of the office, or in the scope ``PROCESS`` that of the process."""


def bucket_name(policy: str, by: str, value: str) -> str:
    """Return the name of a bucket: 22 characters of base64url, a BLAKE2b hash of the arguments.

    Args:
        policy: Name of the policy.
        by: The :class:`LimitKey`.
        value: Value of the key. It must be a keyed hash, or not secret.
    """
    digest = hashlib.blake2b(f"{policy}\n{by}\n{value}".encode(), digest_size=16, person=b"bucket").digest()
    return base64.urlsafe_b64encode(digest)[:22].decode()


class TokenBucketPolicy(msgspec.Struct, frozen=True):
    """Charges token buckets, and decides ``WAIT`` until they have enough tokens.

    Attributes:
        name: Name of the policy.
        key: Key of the buckets.
        limit: Limit of each bucket.
        scope: Scope of the buckets.
        per_applicant: True to charge one token for each applicant; otherwise one for each call. With the key
            ``IDENTITY`` each applicant's bucket is always charged one.
        optional: True to admit callers whose key is not known. By default they are denied with the reason
            ``no_account``, ``no_network`` or ``no_device``, because leaving the key out would avoid the limit.
        counts_refusals: True to charge also tries that another bucket or a pass refuses. A policy that refuses without
            the store costs only buckets of the process, and only those of policies before it in the chain.
    """

    name: str
    key: LimitKey
    limit: Limit
    scope: BucketScope = BucketScope.STORE
    per_applicant: bool = False
    optional: bool = False
    counts_refusals: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "policy.name")

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """Require the charges. See :meth:`Policy.decide`."""
        if self.key is LimitKey.IDENTITY:
            values: tuple[str, ...] = request.applicants
        elif self.key is LimitKey.ALL:
            values = ("",)
        else:
            value = {
                LimitKey.ACCOUNT: request.account,
                LimitKey.NETWORK: request.network,
                LimitKey.DEVICE: request.device,
            }[self.key]
            if not value:
                return _NO_REQUIREMENTS if self.optional else PolicyResult(deny(f"no_{self.key}"))
            values = (value,)
        cost = len(request.applicants) if self.per_applicant and self.key is not LimitKey.IDENTITY else 1
        if cost > self.limit.burst:
            return PolicyResult(deny(f"{self.name[:48]}-party_too_large"))  # a WAIT would never end
        return PolicyResult(
            charge_requirements=tuple(
                ChargeRequirement(
                    self.name,
                    Charge(
                        bucket_name(self.name, self.key, value),
                        self.limit,
                        cost,
                        counts_refusals=self.counts_refusals,
                    ),
                    self.scope,
                )
                for value in values
            )
        )


class PassRequiredPolicy(msgspec.Struct, frozen=True):
    """Requires an admission pass, which the reserve uses up.

    Attributes:
        name: Name of the policy.
        check: Called with the pass and the request. Returns the verified pass, or a decision. An
            :class:`InvalidRequest` denies with the reason ``bad_pass``. :func:`room_pass` makes a policy with a check
            for passes of waiting rooms.
        finds_existing: True to let the store refuse a request without a pass, after it has looked for an existing
            reservation. An applicant who lost the pass still finds their reservation. It costs the store one refused
            reserve.
    """

    name: str
    check: Callable[[str, PolicyRequest], AdmissionPass | PolicyDecision]
    finds_existing: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "policy.name")

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """Check the pass and require its use. See :meth:`Policy.decide`."""
        if not request.admission_pass:
            if self.finds_existing:
                return PolicyResult(pass_requirements=(PassRequirement(self.name, _NO_PASS, "no_pass"),))
            return PolicyResult(deny("no_pass"))
        try:
            checked = self.check(request.admission_pass, request)
        except InvalidRequest:
            return PolicyResult(deny("bad_pass"))
        if isinstance(checked, PolicyDecision):
            return PolicyResult(checked)
        return PolicyResult(pass_requirements=(PassRequirement(self.name, checked),))


def room_pass(keys: TicketKeys, name: str = "room", *, finds_existing: bool = False) -> PassRequiredPolicy:
    """Return a policy that requires a pass of a waiting room.

    Args:
        keys: Keys with which the room's passes are signed.
        name: Name of the policy.
        finds_existing: See :class:`PassRequiredPolicy`.
    """

    def check(text: str, request: PolicyRequest) -> AdmissionPass:
        contents = read_pass(keys, text, request.office, request.day, request.applicants)
        return AdmissionPass(contents.id, contents.until_ms)

    return PassRequiredPolicy(name, check, finds_existing)


class ConstantPolicy(msgspec.Struct, frozen=True):
    """Makes the same decision for every request. Operators use it as a switch."""

    name: str
    decision: PolicyDecision

    def __post_init__(self) -> None:
        check_name(self.name, "policy.name")

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """Return the decision. See :meth:`Policy.decide`."""
        return PolicyResult(self.decision)


class ScopedPolicy(msgspec.Struct, frozen=True):
    """Applies a policy to matching requests only, and admits all others. An empty attribute matches every request.

    Attributes:
        policy: The policy.
        offices: Ids of offices.
        services: Names of services.
        channels: Names of channels.
        groups: Names of applicant groups.
        days: First and last day (dates' ordinals).
    """

    policy: Policy
    offices: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    days: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Name of the policy to which matching requests go."""
        return self.policy.name

    def matches(self, request: PolicyRequest) -> bool:
        """Return True if the policy applies to a request."""
        choice = request.choice
        return (
            (not self.offices or request.office in self.offices)
            and (not self.services or choice.service in self.services)
            and (not self.channels or choice.channel in self.channels)
            and (not self.groups or choice.group in self.groups)
            and (self.days is None or self.days[0] <= request.day <= self.days[1])
        )

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """Decide on a matching request. See :meth:`Policy.decide`."""
        return self.policy.decide(request) if self.matches(request) else _NO_REQUIREMENTS


class ShadowPolicy(msgspec.Struct, frozen=True):
    """Runs a policy in shadow mode: it is evaluated and recorded, but refuses no request.

    Its buckets are charged and its passes used up. Observers get the decisions that it would have enforced, and its
    failures. Each of its buckets is charged separately, so an empty bucket does not prevent charges on full ones.
    """

    policy: Policy

    @property
    def name(self) -> str:
        """Name of the policy in shadow mode."""
        return self.policy.name

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """Admit, with the requirements of the policy in shadow mode. See :meth:`Policy.decide`."""
        try:
            result = self.policy.decide(request)
        except Exception:
            return PolicyResult(records=(DecisionRecord(self.name, deny("outage"), enforced=False),))
        records = tuple(replace(record, enforced=False) for record in result.records)
        if not result.decision.admits and not records:
            records = (DecisionRecord(self.name, result.decision, enforced=False),)
        return PolicyResult(
            charge_requirements=tuple(
                replace(required, charge=replace(required.charge, shadow=True))
                for required in result.charge_requirements
            ),
            pass_requirements=tuple(
                replace(required, admission_pass=replace(required.admission_pass, shadow=True))
                for required in result.pass_requirements
            ),
            records=records,
        )


_NO_REQUIREMENTS: Final = PolicyResult()
_NO_PASS: Final = AdmissionPass("none", 0)
"""An expired pass. The store refuses a reserve with it, unless the reserve is a replay."""
