"""The errors of the library: one tree, rooted in :class:`QuotaEngineError`.

"Full", "too late" and "not yet open" are outcomes, not errors (see ``outcomes``). An error says what was
wrong, where, and what would be right. It never carries an identity in clear.
"""

from __future__ import annotations

__all__ = [
    "BackendUnavailable",
    "CatalogError",
    "InvalidRequest",
    "OutcomeUnknown",
    "QuotaEngineError",
    "UnknownName",
    "ValidationIssue",
]

import dataclasses


class QuotaEngineError(Exception):
    """The root of every error that this library raises on purpose."""


class InvalidRequest(QuotaEngineError, ValueError):
    """A call that can never be right, whatever the state of the ledger. Nothing was changed.

    Attributes:
        where: the argument or field, such as ``"applicants[1]"``.
        problem: what is wrong with it, without the value when that could be an identity.
        expected: what would be right.
    """

    def __init__(self, where: str, problem: str, expected: str) -> None:
        super().__init__(f"{where}: {problem}; expected {expected}")
        self.where = where
        self.problem = problem
        self.expected = expected


class UnknownName(InvalidRequest, KeyError):
    """An office, service, session, quota or day by a name that the catalog does not have."""

    __str__ = Exception.__str__


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class ValidationIssue:
    """One mistake in a catalog or scenario file."""

    file: str
    key: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.file}: {self.key}: {self.value}; expected {self.expected}"


class CatalogError(QuotaEngineError, ValueError):
    """A file that describes offices (or a scenario) has mistakes; each is in :attr:`mistakes`."""

    def __init__(self, mistakes: tuple[ValidationIssue, ...]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.issues = mistakes


class BackendUnavailable(QuotaEngineError):
    """The store could not be reached, and the command has certainly not been carried out."""


class OutcomeUnknown(QuotaEngineError):
    """The answer was lost: the command may or may not have been carried out.

    Ask again with the same idempotency key; the answer to that is the truth.
    """
