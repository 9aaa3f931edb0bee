"""Jobs: long calls of many steps, such as a publication of a whole catalog, with one end for all steps.

A job names its steps by :class:`Checkpoint`. It stops at a checkpoint, between two steps, if its time is over. So no
step is left half done. A repeated job continues where the last one stopped, because each of its steps is idempotent.
"""

from __future__ import annotations

__all__ = [
    "JOB_TIMEOUT_MS",
    "TIMEOUT_MS_MAX",
    "TIMEOUT_MS_MIN",
    "CheckEnd",
    "Checkpoint",
    "JobRequest",
    "JobTimer",
    "StartJob",
    "check_timeout",
    "job",
]

import math
from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar

from quota_engine.domain.errors import BackendUnavailable, JobTimeout, OutcomeUnknown
from quota_engine.domain.validation import check_integer
from quota_engine.generators import Request
from quota_engine.ports import Audit, Reconcile

T = TypeVar("T")

JOB_TIMEOUT_MS: Final = 600_000
"""Time that a job has, unless the engine or the call has another one."""
TIMEOUT_MS_MIN: Final = 200
TIMEOUT_MS_MAX: Final = 3_600_000
_LEDGER_REQUESTS: Final = (Audit, Reconcile)
"""Requests that read a whole ledger: of a job's time, they may take all that is left."""
_CUT_MS: Final = 200
"""A store ends a call with less time left than this."""


class JobRequest(Request[None], frozen=True):
    """Request about a job's time. A driver without an end answers it with ``None``."""


class StartJob(JobRequest, frozen=True):
    """Begin a job. ``timeout_ms``: its time in milliseconds; ``None`` for that of the engine."""

    job: str
    timeout_ms: int | None


class Checkpoint(JobRequest, frozen=True):
    """Begin the next step of a job.

    A driver raises :class:`~quota_engine.JobTimeout` if the time left is shorter than the step before took.

    Args:
        done: number of steps that are done.
        total: number of steps in all; 0 if it is not known.
        unit: what a step is about, in the plural, such as ``"offices"``.
        resume_with: arguments with which the job continues here; empty for the same arguments.
        report: the report about the steps that are done.
        remedy: next step for the caller, if a repeated call does not continue here.
    """

    done: int
    total: int
    unit: str
    resume_with: dict[str, Any] = {}
    report: Any = None
    remedy: str = ""


class CheckEnd(JobRequest, frozen=True):
    """After an error of the store: raise :class:`~quota_engine.JobTimeout` if the job's time caused it."""


def check_timeout(timeout_ms: int, where: str) -> None:
    """Reject a time-out that is not an integer from 200 to 3,600,000 milliseconds.

    Raises:
        InvalidRequest: it is another value; ``where`` names it.
    """
    check_integer(timeout_ms, where, TIMEOUT_MS_MIN, TIMEOUT_MS_MAX)


def job(name: str, timeout_ms: int | None, work: Generator[Request[Any], Any, T]) -> Generator[Request[Any], Any, T]:
    """Run a workflow as a job.

    Args:
        name: name of the method, for the error.
        timeout_ms: time of the job in milliseconds, 200 to 3,600,000; ``None`` for that of the engine.
        work: the workflow. It yields a :class:`Checkpoint` before each of its steps.

    Raises:
        InvalidRequest: the time is out of range.
        JobTimeout: the time was over before the workflow.
    """
    if timeout_ms is not None:
        check_timeout(timeout_ms, "timeout_ms")
    yield StartJob(name, timeout_ms)
    try:
        return (yield from work)
    except (BackendUnavailable, OutcomeUnknown):
        yield CheckEnd()
        raise


class JobTimer:
    """The end of one job."""

    def __init__(
        self,
        start: StartJob,
        timeout_ms: int,
        ends_at_ms_max: float,
        call_timeout_ms: int | None,
        monotonic: Callable[[], float],
    ) -> None:
        """Begin the job now.

        Args:
            start: the job.
            timeout_ms: time of a job that has no other.
            ends_at_ms_max: end of the call that the job belongs to, or infinity.
            call_timeout_ms: time of each request to the store; ``None`` leaves it to the store.
            monotonic: returns milliseconds of a clock that never goes back.
        """
        now_ms = monotonic()
        self._job = start.job
        self._started_at_ms = self._step_at_ms = now_ms
        self._ends_at_ms = min(now_ms + (start.timeout_ms or timeout_ms), ends_at_ms_max)
        self._call_timeout_ms = call_timeout_ms
        self._monotonic = monotonic
        self._reached = Checkpoint(0, 0, "steps")
        self._has_begun = False

    def end_of(self, request: Request[Any]) -> float:
        """Return the end of one request to the store."""
        if self._call_timeout_ms is None or isinstance(request, _LEDGER_REQUESTS):
            return self._ends_at_ms
        return min(self._ends_at_ms, self._monotonic() + self._call_timeout_ms)

    def check(self, request: JobRequest) -> None:
        """Note a checkpoint, and stop the job if no time is left for another step.

        Raises:
            JobTimeout: the time is over.
        """
        now_ms = self._monotonic()
        left_ms = self._ends_at_ms - now_ms
        if isinstance(request, Checkpoint):
            step_ms = now_ms - self._step_at_ms if self._has_begun else 0
            self._reached, self._step_at_ms, self._has_begun = request, now_ms, True
            if left_ms < max(_CUT_MS, step_ms):
                raise self._error(is_cut=False)
        elif left_ms < _CUT_MS:
            raise self._error(is_cut=True)

    def _error(self, *, is_cut: bool) -> JobTimeout:
        reached = self._reached
        timeout_ms = math.ceil(self._ends_at_ms - self._started_at_ms)
        return JobTimeout(
            self._job,
            timeout_ms,
            reached.done,
            reached.total,
            reached.unit,
            resume_with=reached.resume_with,
            report=reached.report,
            remedy=reached.remedy,
            is_cut=is_cut,
        )
