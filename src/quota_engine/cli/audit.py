"""``quota-engine audit``: check every ledger of a store."""

from __future__ import annotations

__all__ = ["audit"]

import sys

from quota_engine.cli.output import BAD_FINDING, DONE, AsJson, print_json
from quota_engine.cli.store_access import OfficeIds, open_store, select_offices
from quota_engine.ports import Audit


def audit(backend: str = "", *, office: OfficeIds = (), as_json: AsJson = False) -> int:
    """Recompute every counter of a store from its reservations and events, and report differences.

    Exit code 0: no findings; 1: findings; 2: bad usage; 3: the store cannot be reached.

    Args:
        backend: URL of the store; default: the variable QUOTA_ENGINE_BACKEND.
        office: id of an office; repeat it for more. Default: all offices of the store.
        as_json: print the result as JSON, and nothing else.
    """
    with open_store(backend) as store:
        offices = select_offices(store, office)
        findings = [finding for one in offices for finding in store.execute(Audit(one))]
    if as_json:
        print_json({"ok": not findings, "offices": len(offices), "findings": findings})
    else:
        for finding in findings:
            sys.stdout.write(f"{finding}\n")
        noun = "office" if len(offices) == 1 else "offices"
        result = f"{len(findings)} finding{'' if len(findings) == 1 else 's'}" if findings else "no findings"
        sys.stdout.write(f"{len(offices)} {noun}: {result}\n")
    return BAD_FINDING if findings else DONE
