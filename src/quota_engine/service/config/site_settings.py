"""Checks of the settings about the site's public addresses and the proxies in front of it."""

from __future__ import annotations

__all__ = ["PUBLIC_ORIGINS_MAX", "TRUSTED_PROXIES_MAX", "check_public_origins", "check_trusted_proxies"]

import ipaddress
from collections.abc import Sequence
from typing import Final

from quota_engine.domain.errors import ValidationIssue
from quota_engine.service.http.hosts import is_host

PUBLIC_ORIGINS_MAX: Final = 16
TRUSTED_PROXIES_MAX: Final = 64
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def check_public_origins(origins: Sequence[str], source: str, issues: list[ValidationIssue]) -> None:
    """Add an issue for each origin that no browser sends, and for a host that occurs twice."""
    hosts = [origin.partition("://")[2] for origin in origins]
    for index, (origin, host) in enumerate(zip(origins, hosts, strict=True)):
        key = f"public_origins[{index}]"
        if not _is_origin(origin):
            expected = "scheme and host in lower case, such as https://booking.example, and a port only if unusual"
            issues.append(ValidationIssue(source, key, repr(origin), expected))
        elif host in hosts[:index]:
            issues.append(ValidationIssue(source, key, repr(origin), "a host that occurs once"))


def _is_origin(text: str) -> bool:
    scheme, _, host = text.partition("://")
    if scheme not in _DEFAULT_PORTS or not text.isascii() or text != text.lower():
        return False
    return is_host(host.encode()) and not host.endswith((_DEFAULT_PORTS[scheme], ":"))


def check_trusted_proxies(proxies: Sequence[str], source: str, issues: list[ValidationIssue]) -> None:
    """Add an issue for each entry that is neither an address nor a network, nor a single ``*``."""
    if tuple(proxies) == ("*",):
        return
    for index, proxy in enumerate(proxies):
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            expected = "an address or a network, such as 10.0.0.5 or 10.0.0.0/24; or * alone"
            issues.append(ValidationIssue(source, f"trusted_proxies[{index}]", repr(proxy), expected))
