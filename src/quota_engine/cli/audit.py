"""``quota-engine audit``: check every ledger of a store, or the history of a run."""

from __future__ import annotations

__all__ = ["audit"]

import pathlib
import sys
from collections.abc import Sequence

from quota_engine.cli.output import BAD_FINDING, DONE, AsJson, TimeoutS, print_json, timeout_ms_of
from quota_engine.cli.store_access import OfficeIds, open_store, select_offices
from quota_engine.domain.errors import InvalidRequest, JobTimeout
from quota_engine.generators import drive
from quota_engine.history.checker import check
from quota_engine.history.files import HistoryError, load
from quota_engine.history.linearizability import SearchTooLarge
from quota_engine.workflows.day_workflows import AuditReport, audit_offices
from quota_engine.workflows.generator_drivers import call_handlers, handler_of
from quota_engine.workflows.jobs import job


def audit(
    backend: str = "",
    *,
    office: OfficeIds = (),
    history: pathlib.Path | None = None,
    timeout_s: TimeoutS = 600,
    as_json: AsJson = False,
) -> int:
    """Recompute every counter of a store from its reservations and events, and report differences.

    With --history, replay a file of calls and events on a model of the rules instead (docs/reliability.md).

    Exit code 0: no findings; 1: findings; 2: bad usage; 3: the store cannot be reached, or the time is over.

    Example:  quota-engine audit redis://127.0.0.1 --json

    Args:
        backend: URL of the store; default: the variable QUOTA_ENGINE_BACKEND.
        office: id of an office; repeat it for more. Default: all offices of the store.
        history: file with the calls and events of a run; no store is opened.
        timeout_s: time of the whole audit in seconds, 1 to 3600. At its end, the findings so far are printed.
        as_json: print the result as JSON, and nothing else.
    """
    if history is not None:
        found = _check_history(history)
        _report(found, "the history", 0, as_json=as_json)
        return BAD_FINDING if found else DONE
    with open_store(backend) as store:
        work = job("audit", timeout_ms_of(timeout_s), audit_offices(select_offices(store, office)))
        try:
            report = drive(work, call_handlers(store, handler_of(store))())
        except JobTimeout as error:
            if error.report is not None:
                _print(error.report, as_json=as_json)
            raise
    _print(report, as_json=as_json)
    return DONE if report.ok else BAD_FINDING


def _print(report: AuditReport, *, as_json: bool) -> None:
    noun = f"{report.offices} office{'' if report.offices == 1 else 's'}"
    _report(report.findings, noun, report.offices, as_json=as_json)


def _report(findings: Sequence[str], what: str, offices: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"ok": not findings, "offices": offices, "findings": list(findings)})
        return
    for finding in findings:
        sys.stdout.write(f"{finding}\n")
    count = len(findings)
    result = f"{count} finding{'' if count == 1 else 's'}" if count else "no findings"
    sys.stdout.write(f"{what}: {result}\n")


def _check_history(path: pathlib.Path) -> list[str]:
    """Return the findings of a history file.

    Raises:
        InvalidRequest: the file cannot be read, or too many of its calls were open at the same time for a search.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            return check(load(lines))
    except (OSError, UnicodeDecodeError, HistoryError) as error:
        raise InvalidRequest("history", f"{path}: {error}", "a history, as quota-engine fuzz writes it") from error
    except SearchTooLarge as error:
        raise InvalidRequest("history", f"{path}: {error}", "fewer calls at the same time, or events") from error
