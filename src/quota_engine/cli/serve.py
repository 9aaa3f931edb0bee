"""``quota-engine serve``: the HTTP service."""

from __future__ import annotations

__all__ = ["serve"]

import ipaddress
import os
import pathlib
import secrets
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from quota_engine.cli.output import DONE, print_json
from quota_engine.domain.errors import BackendUnavailable

if TYPE_CHECKING:
    from quota_engine.service.config.settings import ServiceConfig
    from quota_engine.service.http.auth import Role


def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    config: pathlib.Path | None = None,
    backend: str | None = None,
    catalog: str | None = None,
    staging: bool | None = None,
    check_config: bool = False,
    print_config: bool = False,
) -> int:
    """Serve bookings over HTTP.

    Without options: an embedded Valkey in ./quota-engine-data, or SQLite where its wheel is missing, the catalog of
    Surabaya and generated tokens, at http://127.0.0.1:8000. Options override the configuration file.

    Example:  quota-engine serve --config quota.toml

    Args:
        host: address to listen on; default: 127.0.0.1.
        port: port, 0 to 65535; 0: any free port; default: 8000.
        workers: number of processes, which share the store.
        config: configuration file (TOML, JSON or YAML); see docs/service.md.
        backend: URL of the store.
        catalog: a catalog file, or a built-in catalog (surabaya, indonesia).
        staging: mark every response as staging, not for real bookings.
        check_config: check file, variables, options, catalog and the store's packages, and exit. Opens no store.
        print_config: print the settings of file, variables and options as JSON without secrets, and exit.
    """
    try:
        from quota_engine.service import runner
    except ImportError as error:
        raise BackendUnavailable(
            f"the service needs {error.name}, of the extra 'service': pip install 'quota-engine[service,embedded]'"
        ) from error
    options = {
        "host": host, "port": port, "workers": workers, "backend": backend, "catalog": catalog, "staging": staging,
    }  # fmt: skip
    if print_config:
        from quota_engine.service.config.settings import shown_settings

        print_json(shown_settings(config, os.environ, options))
        return DONE
    configuration, tokens = _configuration(config, options)
    if check_config:
        from quota_engine.engine.store_discovery import store_factory

        store_factory(configuration.backend)  # its packages must be installed
        sys.stdout.write(_summary(configuration))
        return DONE
    return runner.run(configuration, lambda address: _print_addresses(address, configuration, tokens))


def _configuration(config: pathlib.Path | None, options: Mapping[str, object]) -> tuple[ServiceConfig, dict[Role, str]]:
    from quota_engine.service.config.settings import generated_grants, load_config
    from quota_engine.service.http.auth import Role

    tokens = {role: secrets.token_urlsafe(24) for role in Role}
    found = load_config(config, os.environ, options, grants=generated_grants(tokens))
    return found, tokens if "tokens" in found.generated else {}


def _summary(configuration: ServiceConfig) -> str:
    offices = len(configuration.catalog.offices)
    scheme, _, rest = configuration.backend.partition("?")[0].partition("://")
    number = len(configuration.grants)
    tokens = (
        "generated tokens" if "tokens" in configuration.generated else f"{number} token{'' if number == 1 else 's'}"
    )
    return (
        f"the configuration is valid: {configuration.catalog_name} with {offices} office{'' if offices == 1 else 's'}, "
        f"store {scheme}://{rest.rpartition('@')[2]}, {tokens}\n"
    )


def _print_addresses(address: str, configuration: ServiceConfig, tokens: dict[Role, str]) -> None:
    lines = [
        f"quota-engine serves {configuration.catalog.title} at {address}",
        f"  citizens   {address}/",
        f"  operators  {address}/operator",
        f"  OpenAPI    {address}/docs, {address}/openapi.json",
        f"  health     {address}/health/ready",
        f"  metrics    {address}/metrics",
    ]
    lines += _proxy_lines(configuration)
    lines += [f"  token for the role {role:<9} {token}" for role, token in tokens.items()]
    if tokens:
        lines.append("  (tokens generated for this run; set your own with --config FILE)")
    lines.append("  stop       Ctrl+C, or the signal TERM")
    sys.stderr.write("\n".join(lines) + "\n")


def _proxy_lines(configuration: ServiceConfig) -> list[str]:
    """Say whose forwarded headers the pages believe, and what follows for a proxy on another machine."""
    trusted = configuration.trusted_proxies
    lines = [f"  proxies    X-Forwarded-For is believed from {', '.join(trusted) or 'nobody'} (trusted_proxies)"]
    if not trusted or (not _is_loopback(configuration.host) and all(map(_is_loopback, trusted))):
        lines.append(
            "             a proxy with another address must be in trusted_proxies, or all its visitors have one address"
        )
    return lines


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_network(host).is_loopback
    except ValueError:
        return host == "localhost"
