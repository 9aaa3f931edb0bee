"""The errors of the library, all derived from :class:`QuotaEngineError`.

"Sold out", "too late" and "not open" are outcomes, not errors (see :mod:`~quota_engine.domain.outcomes`). An error says
what was wrong, where, and what is right. It never contains an identity.
"""

from __future__ import annotations

__all__ = [
    "BackendUnavailable",
    "CatalogError",
    "InvalidRequest",
    "JobTimeout",
    "OutcomeUnknown",
    "QuotaEngineError",
    "UnknownName",
    "ValidationIssue",
    "WrongIdentityKey",
]

import dataclasses
from collections.abc import Mapping
from typing import Any


class QuotaEngineError(Exception):
    """Base class of all errors that this library raises on purpose."""


class InvalidRequest(QuotaEngineError, ValueError):
    """A request that is invalid in any state of the ledger. It has changed nothing.

    Attributes:
        where: the argument or field, such as ``"applicants[1]"``.
        problem: the problem, without the value if that could be an identity.
        expected: a valid value, in words.
    """

    def __init__(self, where: str, problem: str, expected: str) -> None:
        super().__init__(f"{where}: {problem}; expected {expected}")
        self.where = where
        self.problem = problem
        self.expected = expected


class UnknownName(InvalidRequest, KeyError):
    """The catalog has no office, service, session, quota or day of this name."""

    __str__ = Exception.__str__


class WrongIdentityKey(InvalidRequest):
    """The identity key is not the one that the store was first opened with. Nothing was changed.

    With another key the store would not recognize earlier applicants, and each could get a second place.

    Attributes:
        namespace: the store's namespace, or ``""``.
    """

    def __init__(self, source: str, namespace: str = "") -> None:
        """Name the place that the key came from, such as ``"QUOTA_ENGINE_IDENTITY_KEY"``."""
        within = f" in the namespace {namespace!r}" if namespace else ""
        super().__init__(
            source,
            f"not the identity key that this store was first opened with{within}",
            "that first key; another key needs another namespace or an empty store",
        )
        self.namespace = namespace


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class ValidationIssue:
    """One problem in a catalog or scenario file.

    Attributes:
        file: the name of the file, or of the option or variable that has the value.
        key: the path of the key, such as ``"offices[1].time_zone"``; ``""`` if ``file`` alone names the value.
        value: the value as it is shown, at most 60 characters.
        expected: a valid value, in words.
    """

    file: str
    key: str
    value: str
    expected: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.key}" if self.key else self.file
        return f"{place}: {self.value}; expected {self.expected}"


class CatalogError(QuotaEngineError, ValueError):
    """A catalog or scenario file is invalid.

    Attributes:
        issues: every problem that was found.
    """

    def __init__(self, issues: tuple[ValidationIssue, ...]) -> None:
        super().__init__("\n".join(str(issue) for issue in issues))
        self.issues = issues


class BackendUnavailable(QuotaEngineError):
    """The store could not be reached. The command had no effect."""


class OutcomeUnknown(QuotaEngineError):
    """The store's answer was lost. The command may or may not have had its effect.

    Send the same command with the same idempotency key again: its outcome is certain.
    """


class JobTimeout(QuotaEngineError):
    """A long call has used up its time. The steps that are done are kept, and none of them is half done.

    Call it again to continue: with the same arguments, and those of :attr:`resume_with` in their place.

    Attributes:
        job: name of the method, such as ``"publish"``.
        timeout_ms: the time that the call had, in milliseconds.
        done: number of steps that are done.
        total: number of steps in all; 0 if it is not known.
        unit: what a step is about, in the plural, such as ``"offices"``.
        resume_with: arguments with which the next call continues where this one stopped.
        report: the method's report about the steps that are done; ``None`` if there is none.
        remedy: next step for the caller.
        is_cut: true if the store did not answer the last step in time, so that it may be done as well. A repeated step
            changes nothing.
    """

    def __init__(
        self,
        job: str,
        timeout_ms: int,
        done: int,
        total: int,
        unit: str,
        *,
        resume_with: Mapping[str, Any] | None = None,
        report: Any = None,
        remedy: str = "",
        is_cut: bool = False,
        detail: str = "",
    ) -> None:
        self.job = job
        self.timeout_ms = timeout_ms
        self.done = done
        self.total = total
        self.unit = unit
        self.resume_with = dict(resume_with or {})
        self.report = report
        self.remedy = remedy or _remedy(self.resume_with)
        self.is_cut = is_cut
        progress = f"{done} of {total} {unit}" if total else f"{done} {unit}"
        rest = "the next one may be done as well, and nothing else" if is_cut else "nothing is half done"
        text = f"{job} stopped after {timeout_ms} ms with {progress} done, and {rest}; {self.remedy}"
        super().__init__(detail or text)


def _remedy(resume_with: Mapping[str, Any]) -> str:
    given = [
        f"the last {len(value)} {name}" if isinstance(value, list | tuple) else f"{name}={value}"
        for name, value in resume_with.items()
    ]
    return f"call it again{' with ' if given else ''}{' and '.join(given)} to continue"
