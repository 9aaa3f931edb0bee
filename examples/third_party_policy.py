"""A policy of your own: for some time after the opening, only some applicant groups may take places.

A policy is any object with a ``name`` and a method ``decide``. It decides from the request alone: the time is a field
of it, and no identity is. This program books from threads under the policy, as ``booking_threads.py`` does without:

    python examples/third_party_policy.py 2026-12-07 < identities.txt
"""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import msgspec
from booking_settings import CATALOG, OFFICE, SERVICE, days_to_publish, engine_options

from quota_engine import InvalidRequest, QuotaEngine
from quota_engine.admission import PolicyChain, PolicyRequest, PolicyResult, wait

HEAD_START_MS_MAX = 86_400_000


class HeadStartPolicy(msgspec.Struct, frozen=True):
    """Let applicants without a group in ``groups`` wait until ``head_start_ms`` after the opening.

    The reason of the refusal is the policy's name. Its ``retry_at_ms`` is the end of the head start.
    """

    name: str
    groups: frozenset[str]
    head_start_ms: int

    def __post_init__(self) -> None:
        """Check the fields, so that a wrong setting fails at the start and not in the opening."""
        if not 0 <= self.head_start_ms <= HEAD_START_MS_MAX:
            raise InvalidRequest("head_start_ms", str(self.head_start_ms), f"0 to {HEAD_START_MS_MAX}")

    def decide(self, request: PolicyRequest) -> PolicyResult:
        """See :meth:`quota_engine.admission.Policy.decide`."""
        left_ms = request.opens_at_ms + self.head_start_ms - request.now_ms
        if request.choice.group in self.groups or left_ms <= 0 or request.now_ms < request.opens_at_ms:
            return PolicyResult()  # before the opening, the engine itself answers NOT_OPEN
        return PolicyResult(wait(self.name, left_ms))


ADMISSION = PolicyChain((HeadStartPolicy("head_start", frozenset({"elderly"}), 600_000),))


def main() -> None:
    """Book a place of one day for each line of the input, and print how many got which answer."""
    day, people = sys.argv[1], sys.stdin.read().split()
    with QuotaEngine.open(**engine_options(), admission=ADMISSION) as engine, ThreadPoolExecutor(32) as threads:
        engine.publish(CATALOG, *days_to_publish())

        def book(identity: str) -> str:
            held = engine.reserve(OFFICE, day, identity, service=SERVICE, idempotency_key=f"{day}-{identity}")
            return engine.confirm(held.reference, owner=identity).status if held.ok else held.status

        answers = Counter(threads.map(book, people))
    for status, count in sorted(answers.items()):
        sys.stdout.write(f"{status} {count}\n")


if __name__ == "__main__":
    main()
