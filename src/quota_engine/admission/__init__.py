"""Admission policies, which decide who may try to take a place, and the guarded commands that enforce them.

Pure: time, ids and seeds are arguments. May import ``catalog`` and ``domain``.
"""

from __future__ import annotations

__all__ = [
    "ADMIT",
    "AdmissionPass",
    "BucketLevel",
    "BucketScope",
    "Caller",
    "ConstantPolicy",
    "DecisionKind",
    "DecisionRecord",
    "Limit",
    "LimitKey",
    "PassRequiredPolicy",
    "Policy",
    "PolicyChain",
    "PolicyDecision",
    "PolicyRequest",
    "PolicyResult",
    "ScopedPolicy",
    "ShadowPolicy",
    "SlidingWindow",
    "TokenBucketPolicy",
    "at_most",
    "deny",
    "per_day",
    "per_hour",
    "per_minute",
    "per_second",
    "room_pass",
    "wait",
]

from quota_engine.admission.chain import PolicyChain
from quota_engine.admission.guarded_command import AdmissionPass
from quota_engine.admission.policy import (
    ADMIT,
    BucketScope,
    Caller,
    ConstantPolicy,
    DecisionKind,
    DecisionRecord,
    LimitKey,
    PassRequiredPolicy,
    Policy,
    PolicyDecision,
    PolicyRequest,
    PolicyResult,
    ScopedPolicy,
    ShadowPolicy,
    TokenBucketPolicy,
    deny,
    room_pass,
    wait,
)
from quota_engine.admission.token_bucket import (
    BucketLevel,
    Limit,
    SlidingWindow,
    at_most,
    per_day,
    per_hour,
    per_minute,
    per_second,
)
