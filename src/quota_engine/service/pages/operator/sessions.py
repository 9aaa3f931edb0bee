"""Sign operators in with a token, recognize them by a signed cookie, and protect their forms against forgery."""

from __future__ import annotations

__all__ = ["OperatorSessions"]

import contextlib
import hashlib
import hmac
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from quota_engine.admission.token_bucket import Buckets, Charge, per_minute
from quota_engine.service.http.auth import Grant, Role
from quota_engine.service.http.forwarded_headers import untrusted_proxy
from quota_engine.service.http.problems import Problem
from quota_engine.service.pages.signed_cookies import CookieSigner
from quota_engine.workflows.arguments import random_id

if TYPE_CHECKING:
    from quota_engine.service.context import ServiceContext

_logger = logging.getLogger("quota_engine.service")
_SESSION_MS: Final = 12 * 3_600_000
_SESSION_COOKIE: Final = "operator"
_LOGIN_COOKIE: Final = "operator-login"
_LOGIN_MS: Final = 3_600_000
_PATH: Final = "/operator"
_ATTEMPTS: Final = per_minute(2, burst=10)
"""Unknown tokens that one address may try: ten at once, then two a minute."""
_WARNING: Final = Charge("warning", per_minute(1, burst=5))
"""Lines about too many attempts that the log gets."""
_ADDRESSES_MAX: Final = 10_000
_ROLES: Final = frozenset({Role.OFFICE, Role.AUDITOR, Role.OPERATOR})


class OperatorSessions:
    """Sessions of operators. No process stores anything, so all workers accept the same cookies.

    A session cookie holds a random number, its expiry time and a keyed hash of the token's digest. It reveals neither
    the token nor the digest, and both together do not suffice to make one.

    Each form carries a CSRF token that follows from the cookie. Another site can neither read that token nor send the
    cookie (``SameSite=Strict``). The key is derived from the identity key of the store.
    """

    def __init__(self, service: ServiceContext) -> None:
        self._service = service
        self._signer = CookieSigner(bytes(service.config.identity_key), "operators")
        self._grants = {self._fingerprint(grant): grant for grant in service.config.grants}
        self._attempts = Buckets(_ADDRESSES_MAX)
        self._warnings = Buckets(1)

    # --- Sign in and out ---

    def try_token(self, request: Request, token: str) -> Grant | int | None:
        """Check a token.

        The limit on unknown tokens does not apply to a known one. All people behind one proxy or router share an
        address, and one of them must not lock out a colleague. The API checks tokens without a limit, so the length of
        a token protects it, not this limit.

        Returns:
            The grant of a token that is valid for these pages, and ``None`` for any other token. After too many
            unknown tokens from one address, the milliseconds until its next attempt.
        """
        with contextlib.suppress(Problem):
            grant = self._service.access.authenticate(b"Bearer " + token.encode("ascii", "replace"))
            return grant if grant.role in _ROLES else None
        now_ms = self._service.now_ms()
        address = request.client.host if request.client else ""
        charge = Charge(hashlib.blake2b(address.encode(), digest_size=16).hexdigest(), _ATTEMPTS)
        result = self._attempts.take((charge,), now_ms)
        if result.taken:
            return None
        if self._warnings.take((_WARNING,), now_ms).taken:
            _warn_of_attempts(address, untrusted_proxy(request.scope))
        return max(1, result.retry_at_ms - now_ms)

    def start(self, request: Request, response: Response, grant: Grant) -> None:
        """Set the session cookie for twelve hours."""
        text = f"{random_id()}:{self._fingerprint(grant)}"
        value = self._signer.sign(text, self._service.now_ms() + _SESSION_MS)
        self._set_cookie(request, response, _SESSION_COOKIE, value, _SESSION_MS)
        self._delete_cookie(request, response, _LOGIN_COOKIE)

    def end(self, request: Request, response: Response) -> None:
        """Delete the session cookie, and the pages that the browser has stored."""
        self._delete_cookie(request, response, _SESSION_COOKIE)
        response.headers["clear-site-data"] = '"cache"'

    def grant(self, request: Request) -> Grant | None:
        """Return the grant of the session, or ``None`` if there is none or its token has left the configuration."""
        text = self._signer.read(request.cookies.get(_SESSION_COOKIE, ""), self._service.now_ms())
        return self._grants.get(text.partition(":")[2])

    # --- Forms ---

    def csrf_token(self, request: Request) -> str:
        """Return the CSRF token of the session's forms."""
        return self._signer.fingerprint(request.cookies.get(_SESSION_COOKIE, ""))

    def is_own_form(self, request: Request, fields: Mapping[str, str]) -> bool:
        """Return True if a form carries the CSRF token of the session."""
        return _is_equal(self.csrf_token(request), fields.get("csrf_token", ""))

    def login_form(self, request: Request) -> tuple[str, str]:
        """Return the CSRF token of a login form and its cookie; ``""`` if the browser already has the cookie."""
        current = request.cookies.get(_LOGIN_COOKIE, "")
        if self._signer.read(current, self._service.now_ms()):
            return self._signer.fingerprint(current), ""
        cookie = self._signer.sign(random_id(), self._service.now_ms() + _LOGIN_MS)
        return self._signer.fingerprint(cookie), cookie

    def set_login_cookie(self, request: Request, response: Response, value: str) -> None:
        """Set the cookie of a login form."""
        self._set_cookie(request, response, _LOGIN_COOKIE, value, _LOGIN_MS)

    def is_own_login_form(self, request: Request, fields: Mapping[str, str]) -> bool:
        """Return True if a login form carries the CSRF token of its cookie."""
        cookie = request.cookies.get(_LOGIN_COOKIE, "")
        is_valid = bool(self._signer.read(cookie, self._service.now_ms()))
        return is_valid and _is_equal(self._signer.fingerprint(cookie), fields.get("csrf_token", ""))

    def _fingerprint(self, grant: Grant) -> str:
        return self._signer.fingerprint(grant.token_sha256)

    @staticmethod
    def _set_cookie(request: Request, response: Response, name: str, value: str, max_age_ms: int) -> None:
        response.set_cookie(
            name,
            value,
            max_age=max_age_ms // 1000,
            httponly=True,
            samesite="strict",
            secure=request.scope["scheme"] == "https",
            path=_PATH,
        )

    @staticmethod
    def _delete_cookie(request: Request, response: Response, name: str) -> None:
        """Delete a cookie, with the attributes that it was set with: browsers refuse some changes without them."""
        is_secure = request.scope["scheme"] == "https"
        response.delete_cookie(name, path=_PATH, secure=is_secure, httponly=True, samesite="strict")


def _warn_of_attempts(address: str, proxy: str) -> None:
    if proxy:
        _logger.warning(
            "operators' login: too many unknown tokens from %s, which sent X-Forwarded-For or Forwarded and is not in "
            "trusted_proxies; if it is your proxy, add it there, or all its visitors share this limit",
            proxy,
        )
    else:
        _logger.warning("operators' login: too many unknown tokens from %s; known tokens still sign in", address)


def _is_equal(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))
