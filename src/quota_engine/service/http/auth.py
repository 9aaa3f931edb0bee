"""Bearer tokens and roles."""

from __future__ import annotations

__all__ = ["AccessControl", "Grant", "Role", "office_in_path"]

import enum
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from quota_engine.service.http.problems import Problem

_CACHED_MAX: Final = 1_000
_CHALLENGE: Final = (("www-authenticate", "Bearer"),)


class Role(enum.StrEnum):
    """The calls that a token may make. An operator may make all of them."""

    SERVICE = "service"
    """A booking application that acts for applicants: reserve, confirm, release, cancel, move, look up."""
    OFFICE = "office"
    """The staff of an office: check in, mark no-shows, look up, list the day; on the pages also register walk-ins."""
    OPERATOR = "operator"
    """The operators of the system: set capacities, close days, publish, expire holds."""
    AUDITOR = "auditor"
    """Auditors: read audits and events. They change nothing."""


class Grant(msgspec.Struct, frozen=True):
    """The role of one token. ``token_sha256`` is in hex; without ``offices`` the grant covers all of them."""

    name: str
    role: Role
    token_sha256: str
    offices: tuple[str, ...] = ()


class AccessControl:
    """Authenticates tokens and authorizes calls.

    A new token is compared with every grant, each in constant time, so timing reveals nothing about the grants. Headers
    of valid tokens are cached; a dictionary compares the bytes of two headers only if their keyed hashes are equal.
    """

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants = tuple((bytes.fromhex(grant.token_sha256), grant) for grant in grants)
        self._cached: dict[bytes, Grant] = {}

    def authenticate(self, authorization: bytes) -> Grant:
        """Return the grant of an ``Authorization`` header.

        Raises:
            Problem: 401, if the header has no known bearer token.
        """
        grant = self._cached.get(authorization)
        if grant is not None:
            return grant
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and token:
            digest = hashlib.sha256(token.strip()).digest()
            for known, candidate in self._grants:
                if hmac.compare_digest(known, digest):
                    grant = candidate
        if grant is None:
            detail = "the token is not known" if token else "send  Authorization: Bearer TOKEN"
            raise Problem("unauthorized", detail, headers=_CHALLENGE)
        if len(self._cached) < _CACHED_MAX:
            self._cached[authorization] = grant
        return grant

    def is_known(self, authorization: bytes) -> bool:
        """Return True if an ``Authorization`` header has a known bearer token."""
        if not authorization:
            return False
        try:
            self.authenticate(authorization)
        except Problem:
            return False
        return True

    @classmethod
    def authorize(cls, grant: Grant, roles: frozenset[Role], office: str | None) -> None:
        """Check the role of a grant and, unless ``office`` is ``None``, that it covers the office.

        Raises:
            Problem: 403, if either check fails.
        """
        if grant.role not in roles and grant.role is not Role.OPERATOR:
            raise Problem("forbidden", f"this call needs a token with the role {' or '.join(sorted(roles))}")
        if office is not None:
            cls.authorize_office(grant, office)

    @staticmethod
    def authorize_office(grant: Grant | None, office: str) -> None:
        """Check that a grant covers an office. An empty ``office`` stands for all offices.

        Raises:
            Problem: 403, if the grant is limited to other offices.
        """
        if grant is not None and grant.offices and office not in grant.offices:
            raise Problem("forbidden", "the token is valid for other offices only")


def office_in_path(path: Mapping[str, str]) -> str:
    """Return the office that the path parameters name, directly or in a reservation's reference; ``""`` if none."""
    return path.get("office") or path.get("reference", "").partition("~")[0]
