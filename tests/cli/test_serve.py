"""``quota-engine serve`` says at the start whose forwarded headers it believes."""

from __future__ import annotations

import pytest

from quota_engine.cli.serve import _proxy_lines
from tests.support.in_process_service import configuration

WARNING = "a proxy with another address must be in trusted_proxies"


@pytest.mark.parametrize(
    ("host", "proxies", "named", "is_warned"),
    [
        ("127.0.0.1", ("127.0.0.1", "::1"), "127.0.0.1, ::1", False),
        ("0.0.0.0", ("127.0.0.1", "::1"), "127.0.0.1, ::1", True),  # noqa: S104
        ("::", ("127.0.0.0/8",), "127.0.0.0/8", True),
        ("10.0.0.21", ("127.0.0.1", "10.0.0.5"), "127.0.0.1, 10.0.0.5", False),
        ("10.0.0.21", ("*",), "*", False),
        ("localhost", (), "nobody", True),
    ],
)
def test_start_names_the_trusted_proxies(host: str, proxies: tuple[str, ...], named: str, is_warned: bool) -> None:
    """A warning follows if the service listens to other machines and trusts none of them."""
    first, *others = _proxy_lines(configuration(host=host, trusted_proxies=proxies))
    assert first == f"  proxies    X-Forwarded-For is believed from {named} (trusted_proxies)"
    assert [WARNING in line for line in others] == [True] * is_warned
