"""Who may try for a place, and when: policies that stand in front of the reserve. Pure: time, ids and seeds are
arguments."""

from __future__ import annotations

__all__ = [
    "ADMIT",
    "Always",
    "By",
    "Caller",
    "Chain",
    "Decision",
    "Finding",
    "Judgement",
    "Level",
    "Limit",
    "Limited",
    "Only",
    "Pass",
    "PassRequired",
    "Policy",
    "Request",
    "Shadow",
    "Verdict",
    "Where",
    "deny",
    "per_day",
    "per_hour",
    "per_minute",
    "per_second",
    "room_pass",
    "wait",
]

from quota_engine.admission.chain import Chain
from quota_engine.admission.guarded_reserve import Pass
from quota_engine.admission.policy import (
    ADMIT,
    Always,
    By,
    Caller,
    Decision,
    Finding,
    Judgement,
    Limited,
    Only,
    PassRequired,
    Policy,
    Request,
    Shadow,
    Verdict,
    Where,
    deny,
    room_pass,
    wait,
)
from quota_engine.admission.token_bucket import Level, Limit, per_day, per_hour, per_minute, per_second
