"""The target of a request: the check of ``Host``, and request targets in absolute form (RFC 9112, section 3)."""

from __future__ import annotations

__all__ = ["check_host", "split_target"]

import re
from collections.abc import Mapping, Sequence

from quota_engine.service.http.hosts import is_host
from quota_engine.service.http.problems import Problem


def check_host(headers: Sequence[tuple[bytes, bytes]], fields: Mapping[bytes, bytes], http_version: str) -> None:
    """Check that a request has exactly one valid ``Host``; a request of HTTP/1.0 may have none.

    Two servers that read different ones of two hosts would take the request for two different sites.

    Args:
        headers: all header lines, with lower-case names.
        fields: the same by name.
        http_version: ``1.1``, or another version.

    Raises:
        Problem: 400.
    """
    host = fields.get(b"host")
    if host is None:
        if http_version != "1.0":
            raise Problem("bad-request", "the header Host is missing")
    elif len(fields) < len(headers) and sum(name == b"host" for name, _ in headers) > 1:
        raise Problem("bad-request", "the header Host occurs twice")
    elif not is_host(host):
        raise Problem("bad-request", "the header Host is not a host with an optional port")


def split_target(target: bytes, method: bytes) -> tuple[bytes, bytes]:
    """Return the origin form and the authority of a target that is not in origin form.

    Args:
        target: the request target: an absolute URI, or ``*`` for ``OPTIONS``.
        method: the request's method.

    Returns:
        ``*`` and an empty authority, or path with query, and the host with its port that replaces ``Host``
        (RFC 9112, section 3.2.2).

    Raises:
        Problem: 400.
    """
    if target == b"*" and method == b"OPTIONS":
        return target, b""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise Problem("bad-request", "the request target is neither a path nor an address of http or https")
    authority = re.split(rb"[/?#]", rest, maxsplit=1)[0]
    if not is_host(authority):  # refuses a name and password too, as RFC 9110, section 4.2.4, asks
        raise Problem("bad-request", "the request target has no valid host")
    path = rest[len(authority) :]
    return (path if path.startswith(b"/") else b"/" + path), authority
