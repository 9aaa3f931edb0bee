"""Measure the goals on servers that this command starts: ``python -m benchmarks.cluster_goals``.

The default is a cluster of three Valkeys that share one core, with the client on another. All further options are those
of ``quota-engine bench``, such as ``--rounds 3 --reservations 0``; ``--json`` prints the result.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from quota_engine.bench.host_info import pinned, usable_cores
from quota_engine.cli import main as command_line
from tests.support.server_groups import Cluster, Sentinels
from tests.support.servers import Server, redis_server_binary, valkey_server_binary

_APPENDFSYNC: Final = "everysec"
"""As the embedded server has it."""


def _start(topology: str, binary: Path, appendfsync: str, undo: contextlib.ExitStack) -> tuple[str, list[Server]]:
    """Start the servers of a topology; return their URL and those that keep data."""
    if topology == "single":
        server = undo.enter_context(Server(binary, tcp=True, appendfsync=appendfsync))
        return server.url, [server]
    if topology == "sentinels":
        sentinels = undo.enter_context(Sentinels(binary, appendfsync=appendfsync))
        return sentinels.url, sentinels.members
    cluster = undo.enter_context(Cluster(binary, appendfsync=appendfsync))
    return cluster.url.replace("redis://", "redis+cluster://"), cluster.members


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the servers, run the preset ``goals``, and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", choices=("valkey", "redis"), default="valkey")
    parser.add_argument("--on", choices=("cluster", "sentinels", "single"), action="append", help="repeat it for more")
    parser.add_argument("--no-file", action="store_true", help="servers without an append-only file")
    options, rest = parser.parse_known_args(arguments)
    binary = valkey_server_binary() if options.servers == "valkey" else redis_server_binary()
    if binary is None:
        parser.error("no redis-server: install Debian's package redis-server")
    cores = usable_cores()
    words = ["bench", "--preset", "goals", "--yes-really", *rest]
    with contextlib.ExitStack() as undo:
        for topology in options.on or ["cluster"]:
            url, servers = _start(topology, binary, "" if options.no_file else _APPENDFSYNC, undo)
            for server in servers:
                undo.enter_context(pinned(server.pid, cores[1] if cores else None))
            words += ["--backend", url]
        return command_line.main(words)


if __name__ == "__main__":
    sys.exit(main())
