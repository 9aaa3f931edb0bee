"""``quota-engine serve`` says at the start whose forwarded headers it believes."""

from __future__ import annotations

import base64
import json
import os
import pathlib

import pytest

from quota_engine.cli.main import main
from quota_engine.cli.serve import _print_addresses, _proxy_lines
from quota_engine.service.http.auth import Role
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


def test_start_names_each_address_on_a_line_and_how_to_stop(capsys: pytest.CaptureFixture[str]) -> None:
    _print_addresses("http://127.0.0.1:8000", configuration(), {Role.OPERATOR: "a-token"})
    lines = capsys.readouterr().err.splitlines()
    addresses = [line.split() for line in lines[1:] if "http://" in line]
    assert addresses == [
        ["citizens", "http://127.0.0.1:8000/"],
        ["operators", "http://127.0.0.1:8000/operator"],
        ["OpenAPI", "http://127.0.0.1:8000/docs,", "http://127.0.0.1:8000/openapi.json"],
        ["health", "http://127.0.0.1:8000/health/ready"],
        ["metrics", "http://127.0.0.1:8000/metrics"],
    ]
    assert "  token for the role operator  a-token" in lines
    assert lines[-1] == "  stop       Ctrl+C, or the signal TERM"


@pytest.fixture
def config(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration file with secrets, and no variables."""
    for name in [name for name in os.environ if name.startswith("QUOTA_ENGINE_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "quota.toml"
    key = base64.b64encode(b"the key of no store").decode()
    file.write_text(
        f'backend = "redis://booking:s3cret@db/0?durability=fsync"\nidentity_key = "{key}"\n'
        f'[ticket_keys]\nactive = "a"\nsecrets = {{ a = "{key}" }}\n',
        "utf-8",
    )
    return str(file)


def test_check_config_opens_no_store(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--check-config", "--config", config]) == 0
    shown = capsys.readouterr().out
    assert shown == "the configuration is valid: surabaya with 1 office, store redis://db/0, generated tokens\n"
    assert main(["serve", "--check-config", "--config", config, "--port", "70000"]) == 2
    assert "port: 70000; expected an integer from 0 to 65535" in capsys.readouterr().err


def test_print_config_has_all_sources_and_no_secret(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUOTA_ENGINE_LIMITS__REQUESTS_MAX", "77")
    assert main(["serve", "--print-config", "--config", config, "--workers", "4"]) == 0
    shown = capsys.readouterr().out
    found = json.loads(shown)
    assert (found["limits"]["requests_max"], found["workers"], found["port"]) == (77, 4, 8000)
    assert found["backend"] == "redis://booking:(not-shown)@db/0?durability=fsync"
    assert (found["identity_key"], found["ticket_keys"]["secrets"]) == ("(not-shown)", {"a": "(not-shown)"})
    assert "s3cret" not in shown
    monkeypatch.setenv("QUOTA_ENGINE_LIMITS__REQUESTS_MAX", "many")
    assert main(["serve", "--print-config", "--config", config]) == 2
    assert "QUOTA_ENGINE_LIMITS__REQUESTS_MAX: limits.requests_max: 'many'" in capsys.readouterr().err
