"""Policies: who may try for a place. Each looks at a request and says admit, wait or deny, or what the store has to
decide with the reserve itself: charges on buckets, and a pass to use up.

A policy is pure: it is given the time, keeps nothing, and asks nobody. Any object with a ``name`` and a ``judge`` is
one; those below can be combined with ``chain``.
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

from quota_engine.admission.guarded_reserve import AdmissionPass
from quota_engine.admission.tickets import TicketKeys, read_pass
from quota_engine.admission.token_bucket import Charge, Limit
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Choice
from quota_engine.domain.validation import DURATION_MS_MAX, check_integer, check_name

IPV4_PREFIX_BITS: Final = 24
IPV6_PREFIX_BITS: Final = 64
CALLER_KEY_LENGTH_MAX: Final = 256


class DecisionKind(enum.StrEnum):
    """What a policy decides."""

    ADMIT = "admit"
    WAIT = "wait"
    """Not now: come again."""
    DENY = "deny"


class PolicyDecision(msgspec.Struct, frozen=True, gc=False):
    """A decision and why: ``reason`` is a word of ``A-Z a-z 0-9 _ -`` that names no person."""

    kind: DecisionKind
    reason: str = ""
    retry_after_ms: int = 0

    def __post_init__(self) -> None:
        if self.kind is not DecisionKind.ADMIT:
            check_name(self.reason, "verdict.reason")
        check_integer(self.retry_after_ms, "verdict.retry_after_ms", 0, DURATION_MS_MAX)

    @property
    def admits(self) -> bool:
        """Whether it lets the request through."""
        return self.kind is DecisionKind.ADMIT


ADMIT: Final = PolicyDecision(DecisionKind.ADMIT)


def wait(reason: str, retry_after_ms: int) -> PolicyDecision:
    """Come again after as long."""
    return PolicyDecision(DecisionKind.WAIT, reason, retry_after_ms)


def deny(reason: str) -> PolicyDecision:
    """No."""
    return PolicyDecision(DecisionKind.DENY, reason)


class Caller(msgspec.Struct, frozen=True):
    """Who calls, as your service knows it; hashed before any policy sees it, and left empty where it is not known.

    ``account`` and ``device`` are taken in one spelling (Unicode NFKC, without case and outer spaces), so that another
    one of the same makes no new bucket. ``network`` is an address, of which the first 24 bits count (IPv6: 64), or a
    prefix such as ``198.51.100.0/22``. All of them must come from what your service has checked, not from the request's
    own words: a header that anybody can write is a new key with every call.
    """

    account: str = ""
    network: str = ""
    device: str = ""

    def canonical(self) -> Caller:
        """The same caller in one spelling.

        Raises:
            InvalidRequest: something is not a usable string, or no network.
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
    """The network of an address, such as ``203.0.113.0/24``; a prefix stays as it is, in one spelling.

    Raises:
        InvalidRequest: it is neither.
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
        parsed = parsed.ipv4_mapped  # the same machine, seen through a socket for both
    return str(ipaddress.ip_network((parsed, IPV4_PREFIX_BITS), strict=False))


class PolicyRequest(msgspec.Struct, frozen=True):
    """What a policy sees of a reserve. ``applicants``, ``account``, ``network`` and ``device`` are keyed hashes, the
    latter three ``""`` if they are not known. ``admission_pass`` is what the caller brought, unchecked, or ``""``.
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


class DecisionRecord(msgspec.Struct, frozen=True, gc=False):
    """A verdict, whose it was, and whether it counted (``enforced``) or was in shadow."""

    policy: str
    decision: PolicyDecision
    enforced: bool = True


class BucketScope(enum.StrEnum):
    """Where a bucket is."""

    STORE = "store"
    """With the office, for all processes; decided in one step with the reserve."""
    PROCESS = "process"
    """In this process, before the store is asked: it keeps load away."""


class ChargeRequirement(msgspec.Struct, frozen=True, gc=False):
    """A charge, and the policy that wants it."""

    policy: str
    charge: Charge
    scope: BucketScope = BucketScope.STORE


class PassRequirement(msgspec.Struct, frozen=True, gc=False):
    """A pass to use up, and the policy that wants it."""

    policy: str
    admission_pass: AdmissionPass
    reason: str = "pass_used_or_over"
    """What a refusal by the store says."""


class PolicyResult(msgspec.Struct, frozen=True):
    """What a policy makes of a request: its verdict; what has to be charged and used up if it is to hold; and what
    policies in it have found.
    """

    decision: PolicyDecision = ADMIT
    charge_requirements: tuple[ChargeRequirement, ...] = ()
    pass_requirements: tuple[PassRequirement, ...] = ()
    records: tuple[DecisionRecord, ...] = ()


class Policy(Protocol):
    """Decides who may try."""

    @property
    def name(self) -> str:
        """An id, for reports and for the names of buckets."""
        ...

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """What it makes of ``request``. Pure. An error counts as an outage of the policy: see ``Chain``."""
        ...


class LimitKey(enum.StrEnum):
    """Whose bucket is charged."""

    IDENTITY = "identity"
    """Each applicant's."""
    ACCOUNT = "account"
    NETWORK = "network"
    DEVICE = "device"
    ALL = "all"
    """One for everybody at the office; one for everybody in the process, if that is where it is."""


def bucket_name(policy: str, by: str, value: str) -> str:
    """The name of a bucket: 22 characters, whatever is in ``value``, which must be a keyed hash or no secret."""
    digest = hashlib.blake2b(f"{policy}\n{by}\n{value}".encode(), digest_size=16, person=b"bucket").digest()
    return base64.urlsafe_b64encode(digest)[:22].decode()


class TokenBucketPolicy(msgspec.Struct, frozen=True):
    """Charge a token bucket: one token a call, or with ``per_applicant`` one an applicant (by identity it is one of
    each applicant's in any case). ``WAIT`` if there are too few, with the time when there will be enough.

    If the key is not known, the answer is ``DENY`` with the reason ``no_account`` (or ``no_network``, ``no_device``),
    because whoever can leave it out would not be limited; ``optional`` lets them through.
    """

    name: str
    key: LimitKey
    limit: Limit
    scope: BucketScope = BucketScope.STORE
    per_applicant: bool = False
    optional: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "policy.name")

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """See :meth:`Policy.judge`."""
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
                return _NOTHING if self.optional else PolicyResult(deny(f"no_{self.key}"))
            values = (value,)
        cost = len(request.applicants) if self.per_applicant and self.key is not LimitKey.IDENTITY else 1
        if cost > self.limit.burst:
            return PolicyResult(deny(f"{self.name[:48]}-party_too_large"))  # it would wait for ever
        return PolicyResult(
            charge_requirements=tuple(
                ChargeRequirement(
                    self.name, Charge(bucket_name(self.name, self.key, value), self.limit, cost), self.scope
                )
                for value in values
            )
        )


class PassRequiredPolicy(msgspec.Struct, frozen=True):
    """Let only those through who bring a pass, and use it up with the reserve.

    ``check(text, request)`` says what the pass is, if it is genuine and for this party, office and day, or why not; an
    :class:`InvalidRequest` of it is a ``DENY`` with the reason ``bad_pass``. :func:`room_pass` makes one for the passes
    of waiting rooms.

    With ``finds_existing`` the store refuses a request without a pass, after it has looked for an existing reservation.
    An applicant who lost the pass still finds their reservation. It costs the store one refused reserve.
    """

    name: str
    check: Callable[[str, PolicyRequest], AdmissionPass | PolicyDecision]
    finds_existing: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "policy.name")

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """See :meth:`Policy.judge`."""
        if not request.admission_pass:
            if self.finds_existing:
                return PolicyResult(pass_requirements=(PassRequirement(self.name, _NO_PASS, "no_pass"),))
            return PolicyResult(deny("no_pass"))
        try:
            found = self.check(request.admission_pass, request)
        except InvalidRequest:
            return PolicyResult(deny("bad_pass"))
        if isinstance(found, PolicyDecision):
            return PolicyResult(found)
        return PolicyResult(pass_requirements=(PassRequirement(self.name, found),))


def room_pass(keys: TicketKeys, name: str = "room", *, finds_existing: bool = False) -> PassRequiredPolicy:
    """Let only those through who bring a pass of a waiting room that was signed with one of ``keys``.

    ``finds_existing``: see :class:`PassRequiredPolicy`.
    """

    def check(text: str, request: PolicyRequest) -> AdmissionPass:
        found = read_pass(keys, text, request.office, request.day, request.applicants)
        return AdmissionPass(found.id, found.until_ms)

    return PassRequiredPolicy(name, check, finds_existing)


class ConstantPolicy(msgspec.Struct, frozen=True):
    """The same verdict for everybody: an operator's switch."""

    name: str
    decision: PolicyDecision

    def __post_init__(self) -> None:
        check_name(self.name, "policy.name")

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """See :meth:`Policy.judge`."""
        return PolicyResult(self.decision)


class ScopedPolicy(msgspec.Struct, frozen=True):
    """Ask ``policy`` only for some requests, and let the others pass: what is named must match, what is empty matches
    all. ``days`` is the first and the last day, as ordinals: one release.
    """

    policy: Policy
    offices: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    days: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The policy's."""
        return self.policy.name

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """See :meth:`Policy.judge`."""
        choice = request.choice
        matches = (
            (not self.offices or request.office in self.offices)
            and (not self.services or choice.service in self.services)
            and (not self.channels or choice.channel in self.channels)
            and (not self.groups or choice.group in self.groups)
            and (self.days is None or self.days[0] <= request.day <= self.days[1])
        )
        return self.policy.decide(request) if matches else _NOTHING


class ShadowPolicy(msgspec.Struct, frozen=True):
    """Try a policy out: it is asked, its buckets are charged and its passes used up, and what it would have refused is
    told to the observer; nobody is refused. Each of its buckets stands for itself, so one that is short does not keep
    the others from being charged. If it fails, that is told too.
    """

    policy: Policy

    @property
    def name(self) -> str:
        """The policy's."""
        return self.policy.name

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """See :meth:`Policy.judge`."""
        try:
            judged = self.policy.decide(request)
        except Exception:
            return PolicyResult(records=(DecisionRecord(self.name, deny("outage"), enforced=False),))
        findings = tuple(replace(finding, enforced=False) for finding in judged.records)
        if not judged.decision.admits and not findings:
            findings = (DecisionRecord(self.name, judged.decision, enforced=False),)
        return PolicyResult(
            charge_requirements=tuple(
                replace(need, charge=replace(need.charge, shadow=True)) for need in judged.charge_requirements
            ),
            pass_requirements=tuple(
                replace(need, admission_pass=replace(need.admission_pass, shadow=True))
                for need in judged.pass_requirements
            ),
            records=findings,
        )


_NOTHING: Final = PolicyResult()
_NO_PASS: Final = AdmissionPass("none", 0)
"""A pass whose lease was over before anybody could use it: it opens nothing, and finds what is there."""
