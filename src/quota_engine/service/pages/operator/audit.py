"""The audit page: recompute all counters, and report what differs."""

from __future__ import annotations

__all__ = ["AuditPages"]

from typing import Final

from starlette.responses import Response

from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.request import OperatorRequest

_MS_DIGITS_MAX: Final = 15


class AuditPages:
    """Handlers of the audit."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages

    async def audit(self, request: OperatorRequest) -> Response:
        """Render the result of an audit, which may be up to ten minutes old."""
        pages = self._pages
        covers_all = not request.grant.offices
        is_all = request.fields.get("scope") == "all" and covers_all
        since = request.fields.get("since", "")
        is_time = since.isdecimal() and len(since) <= _MS_DIGITS_MAX
        not_before_ms = min(int(since), pages.service.now_ms()) if is_time else 0
        result = await pages.cache.audit(None if is_all else request.office.id, not_before_ms)
        return pages.render(
            request,
            "audit.html",
            "audit",
            result=result,
            when=request.translator.moment(pages.local_time(result.at_ms, request.office)),
            is_all=is_all,
            can_audit_all=covers_all and len(pages.service.catalog.offices) > 1,
        )

    async def audit_again(self, request: OperatorRequest) -> Response:
        """Redirect to an audit that begins now."""
        scope = {"scope": "all"} if request.fields.get("scope") == "all" else {}
        return self._pages.redirect(request, "/operator/audit", since=self._pages.service.now_ms(), **scope)
