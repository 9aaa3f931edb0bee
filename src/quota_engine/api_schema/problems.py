"""Bodies of problem documents (RFC 9457)."""

from __future__ import annotations

__all__ = ["FieldProblem", "JobArguments", "ProblemBody"]

from msgspec import UNSET, UnsetType

from quota_engine.api_schema.base import ResponseBody
from quota_engine.api_schema.reservations import ReservationBody
from quota_engine.api_schema.tickets import TicketStatusBody


class FieldProblem(ResponseBody, frozen=True, kw_only=True):
    """An invalid part of a request: its place, the error, and the values that are valid."""

    where: str
    problem: str
    expected: str


class JobArguments(ResponseBody, frozen=True, kw_only=True):
    """Fields of the next call, which continues where a long call has stopped."""

    offices: list[str] | UnsetType = UNSET
    skip: int | UnsetType = UNSET
    limit: int | UnsetType = UNSET


class ProblemBody(ResponseBody, frozen=True, kw_only=True):
    """A problem document. ``type`` and ``title`` are stable; ``detail`` describes this occurrence.

    ``outcome`` is the status of an engine's refusal, and ``reason`` that of the admission policy that refused.
    ``number``, ``version`` and ``epoch`` belong to the application that a draw refused over. ``ticket_status`` is the
    status of a ticket whose turn it is not. ``revision`` is the day's present one, if an operator's command expected
    another. ``job``, ``done``, ``total``, ``unit`` and ``timeout_ms`` belong to a long call that has used up its time.
    ``resume_with`` has the fields of the next call, which continues there.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    outcome: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    number: int | UnsetType = UNSET
    version: int | UnsetType = UNSET
    revision: int | UnsetType = UNSET
    epoch: int | UnsetType = UNSET
    retry_at_ms: int | UnsetType = UNSET
    reservation: ReservationBody | UnsetType = UNSET
    ticket_status: TicketStatusBody | UnsetType = UNSET
    errors: list[FieldProblem] | UnsetType = UNSET
    job: str | UnsetType = UNSET
    done: int | UnsetType = UNSET
    total: int | UnsetType = UNSET
    unit: str | UnsetType = UNSET
    timeout_ms: int | UnsetType = UNSET
    resume_with: JobArguments | UnsetType = UNSET
