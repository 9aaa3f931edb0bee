"""Who may call what: bearer tokens with roles."""

from __future__ import annotations

__all__ = ["Access", "Grant", "Role"]

import enum
import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

import msgspec

from quota_engine.service.http.problems import Problem

_GOOD_MAX: Final = 1_000
_CHALLENGE: Final = (("www-authenticate", "Bearer"),)


class Role(enum.StrEnum):
    """What a token may do. An operator may do all of it; the others just their own."""

    SERVICE = "service"
    """A booking application, for its applicants: reserve, confirm, release, cancel, move, look up."""
    OFFICE = "office"
    """The staff of an office: check in, mark who did not come, look up, and the day's list."""
    OPERATOR = "operator"
    """Those who run the whole: capacities, closing days, publishing, sweeping."""
    AUDITOR = "auditor"
    """Those who check it: audits and events. Changes nothing."""


class Grant(msgspec.Struct, frozen=True):
    """A token, by its SHA-256 in hex digits: who has it, what it allows, and at which offices (none named: all)."""

    name: str
    role: Role
    token_sha256: str
    offices: tuple[str, ...] = ()


class Access:
    """Looks tokens up. All grants are compared, each in constant time, so that time tells nothing about them.

    Headers that were found good are remembered: only who has such a token is ever answered from there, and a dictionary
    compares no bytes of headers whose (secretly keyed) hashes differ.
    """

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants = tuple((bytes.fromhex(grant.token_sha256), grant) for grant in grants)
        self._good: dict[bytes, Grant] = {}

    def grant(self, authorization: bytes) -> Grant:
        """The grant of an ``Authorization`` header. Raises :class:`Problem` 401 without a token that is known."""
        found = self._good.get(authorization)
        if found is not None:
            return found
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and token:
            digest = hashlib.sha256(token.strip()).digest()
            for known, grant in self._grants:
                if hmac.compare_digest(known, digest):
                    found = grant
        if found is None:
            detail = "the token is not known" if token else "send  Authorization: Bearer TOKEN"
            raise Problem("unauthorized", detail, headers=_CHALLENGE)
        if len(self._good) < _GOOD_MAX:
            self._good[authorization] = found
        return found

    @classmethod
    def check(cls, grant: Grant, roles: frozenset[Role], office: str | None) -> None:
        """Raise :class:`Problem` 403 unless the grant has one of the roles, and is good for ``office``; with ``None``
        that is left to :meth:`check_office`.
        """
        if grant.role not in roles and grant.role is not Role.OPERATOR:
            raise Problem("forbidden", f"this needs a token with the role {' or '.join(sorted(roles))}")
        if office is not None:
            cls.check_office(grant, office)

    @staticmethod
    def check_office(grant: Grant | None, office: str) -> None:
        """Raise :class:`Problem` 403 unless the grant is good for ``office`` (if it is none: for all offices)."""
        if grant is not None and grant.offices and office not in grant.offices:
            raise Problem("forbidden", "the token is good for other offices only")
