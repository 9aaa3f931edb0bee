"""Who is at an operators' page: a token, taken once, and a signed cookie from then on; and whose form it is."""

from __future__ import annotations

__all__ = ["SigningIn"]

import hashlib
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from quota_engine.admission.token_bucket import Buckets, Charge, per_minute
from quota_engine.service.http.auth import Grant, Role
from quota_engine.service.http.problems import Problem
from quota_engine.service.pages.signed_cookies import Visits
from quota_engine.workflows.request_builder import random_id

if TYPE_CHECKING:
    from quota_engine.service.context import ServiceContext

VISIT_MS: Final = 12 * 3_600_000
_COOKIE: Final = "operator"
_DOOR: Final = "operator-door"
_DOOR_MS: Final = 3_600_000
_PATH: Final = "/operator"
_TRIES: Final = per_minute(2, burst=10)
"""So often may one address try a token that is not known: ten times at once, and twice a minute from then on."""
_ADDRESSES_MAX: Final = 10_000
_ROLES: Final = frozenset({Role.OFFICE, Role.AUDITOR, Role.OPERATOR})


class SigningIn:
    """Takes tokens and gives cookies. A cookie has a random number, the end of its visit, and a keyed hash of whose
    token it was: neither the token nor its digest can be told from it, and nobody makes one who knows only these.

    Each form has to bring the mark of its browser's cookie besides it. Another site can neither read the mark nor have
    the cookie sent along (``SameSite=Strict``). The key comes from the identity key, so that all workers and machines
    of one store believe the same cookies, and keep nothing.
    """

    def __init__(self, service: ServiceContext) -> None:
        self._service = service
        self._visits = Visits(bytes(service.config.identity_key), "operators")
        self._grants = {self._whose(grant): grant for grant in service.config.grants}
        self._tries = Buckets(_ADDRESSES_MAX)

    def try_token(self, request: Request, token: str) -> Grant | int | None:
        """The grant of a token that is good for these pages; ``None`` if it is not; or, after too many of them from one
        address, in how many milliseconds the next try is allowed.
        """
        now_ms = self._service.now_ms()
        address = request.client.host if request.client else ""
        charge = Charge(hashlib.blake2b(address.encode(), digest_size=16).hexdigest(), _TRIES)
        taking = self._tries.take((charge,), now_ms)
        if not taking.taken:
            return max(1, taking.retry_at_ms - now_ms)
        try:
            grant = self._service.access.authenticate(b"Bearer " + token.encode("ascii", "replace"))
        except Problem:
            return None
        self._tries.reset((charge.name,), now_ms)
        return grant if grant.role in _ROLES else None

    def remember(self, request: Request, response: Response, grant: Grant) -> None:
        """Let the browser show its cookie for half a day."""
        text = f"{random_id()}:{self._whose(grant)}"
        value = self._visits.seal(text, self._service.now_ms() + VISIT_MS)
        self._set(request, response, _COOKIE, value, VISIT_MS)
        response.delete_cookie(_DOOR, path=_PATH)

    def forget(self, response: Response) -> None:
        """Let the browser forget it."""
        response.delete_cookie(_COOKIE, path=_PATH)

    def grant_of(self, request: Request) -> Grant | None:
        """Whose browser it is. A token that has been taken out of the configuration is nobody's any more."""
        text = self._visits.read(request.cookies.get(_COOKIE, ""), self._service.now_ms())
        return self._grants.get(text.partition(":")[2])

    def mark_of(self, request: Request) -> str:
        """What the forms of this browser have to bring."""
        return self._visits.mark(request.cookies.get(_COOKIE, ""))

    def is_own(self, request: Request, fields: Mapping[str, str]) -> bool:
        """Whether a form is one that this browser was given in this visit."""
        return _same(self.mark_of(request), fields.get("mark", ""))

    def door(self, request: Request) -> tuple[str, str]:
        """The mark of the form that takes tokens, and the cookie that has to come with it (``""``: it is there)."""
        kept = request.cookies.get(_DOOR, "")
        if self._visits.read(kept, self._service.now_ms()):
            return self._visits.mark(kept), ""
        made = self._visits.seal(random_id(), self._service.now_ms() + _DOOR_MS)
        return self._visits.mark(made), made

    def set_door(self, request: Request, response: Response, value: str) -> None:
        """Let the browser have the cookie that goes with the form."""
        self._set(request, response, _DOOR, value, _DOOR_MS)

    def is_at_door(self, request: Request, fields: Mapping[str, str]) -> bool:
        """Whether the form with the token is one that this browser was given."""
        kept = request.cookies.get(_DOOR, "")
        is_good = bool(self._visits.read(kept, self._service.now_ms()))
        return is_good and _same(self._visits.mark(kept), fields.get("mark", ""))

    def _whose(self, grant: Grant) -> str:
        return self._visits.mark(grant.token_sha256)

    @staticmethod
    def _set(request: Request, response: Response, name: str, value: str, for_ms: int) -> None:
        response.set_cookie(
            name,
            value,
            max_age=for_ms // 1000,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
            path=_PATH,
        )


def _same(mark: str, given: str) -> bool:
    return hmac.compare_digest(mark.encode(), given.encode("utf-8", "replace"))
