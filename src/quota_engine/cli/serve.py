"""``quota-engine serve``: the HTTP service."""

from __future__ import annotations

__all__ = ["serve"]

import os
import pathlib
import secrets
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

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
) -> int:
    """Serve bookings over HTTP.

    Without any configuration: an embedded Valkey in ./quota-engine-data, the catalog of Surabaya, tokens made up for
    this run, at http://127.0.0.1:8000.

    Args:
        host: the address to listen at; 127.0.0.1 if nobody says otherwise.
        port: the port; 8000 if nobody says otherwise, 0 for any that is free.
        workers: how many processes serve; they share the store.
        config: a configuration file (TOML, JSON or YAML); see docs/service.md.
        backend: the URL of the store.
        catalog: a catalog file, or one that comes with the package: surabaya, indonesia.
        staging: say in every answer that this is no place to book for real.
    """
    try:
        from quota_engine.service import runner
    except ImportError as error:
        raise BackendUnavailable(
            f"the service needs {error.name}, of the extra 'service': pip install 'quota-engine[cli,service,embedded]'"
        ) from error
    options = {
        "host": host, "port": port, "workers": workers, "backend": backend, "catalog": catalog, "staging": staging,
    }  # fmt: skip
    configuration, tokens = _configuration(config, options)
    return runner.run(configuration, lambda address: _say(address, configuration, tokens))


def _configuration(config: pathlib.Path | None, options: Mapping[str, object]) -> tuple[ServiceConfig, dict[Role, str]]:
    from quota_engine.service.config.settings import generated_grants, load_config
    from quota_engine.service.http.auth import Role

    tokens = {role: secrets.token_urlsafe(24) for role in Role}
    found = load_config(config, os.environ, options, grants=generated_grants(tokens))
    return found, tokens if "tokens" in found.generated else {}


def _say(address: str, configuration: ServiceConfig, tokens: dict[Role, str]) -> None:
    lines = [
        f"quota-engine serves {configuration.catalog.title} at {address}",
        f"  interface  {address}/openapi.json",
        f"  health     {address}/health/ready    metrics  {address}/metrics",
    ]
    lines += [f"  token for the role {role:<9} {token}" for role, token in tokens.items()]
    if tokens:
        lines.append("  (tokens made up for this run: --config FILE sets your own)")
    sys.stderr.write("\n".join(lines) + "\n")
