"""The processor time of a reserve beside a plain script: what is measured, and what does not count."""

from __future__ import annotations

import gc
import json
import re
import sys
import time

import pytest

from benchmarks import lone_calls
from quota_engine.bench.backends import BenchStore
from quota_engine.bench.engine_workload import EngineWorkload
from quota_engine.bench.plan import ApiStyle, BenchCase, Implementation
from quota_engine.bench.target_url import parse_target
from tests.support.servers import Server, valkey_server_binary

pytestmark = [pytest.mark.store, pytest.mark.slow]

_COLLECTION_S = 0.2


def test_a_short_run_has_all_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Client and server, the engine and the plain script. A garbage collection before a round does not count.

    It would take as long for both, and bring their ratio near 1.
    """
    collect = gc.collect

    def slow_collect() -> int:
        ends_s = time.process_time() + _COLLECTION_S
        while time.process_time() < ends_s:
            pass
        return collect()

    monkeypatch.setattr(gc, "collect", slow_collect)
    monkeypatch.setattr(sys, "argv", ["lone_calls", "--rounds", "1", "--json"])
    lone_calls.main()
    results = json.loads(capsys.readouterr().out)
    kinds = ("synchronous call", "call under asyncio")
    assert list(results) == [
        *(f"client, a lone {kind}" for kind in kinds),
        *(f"server, batch {batch}, {form}" for batch in (1, 4, 16, 128) for form in ("FCALL", "EVALSHA")),
    ]
    for name, one in results.items():
        assert all(figure > 0 for figure in one.values()), name
        if name.startswith("client"):
            assert one["engine_us"] < _COLLECTION_S / lone_calls.CALLS * 1e6


def test_the_server_gets_the_header_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, the function would check neither the last moment of a call nor the clock of the server."""
    with Server(valkey_server_binary()) as server, BenchStore(parse_target(server.url), None) as store:
        client = store.clients.client
        case = BenchCase("reserve", Implementation.ENGINE, ApiStyle.SINGLE, 1)
        with client.monitor() as monitor:
            call, ((office, identity, key),) = EngineWorkload(store, case).prepare(1)
            call((office, identity, key))
            lone_calls.server(store, 1, 1, as_function=True)
            client.echo("done")
            commands = [*iter(lambda: monitor.next_command()["command"], "ECHO done")]
    headers = re.findall(r":ticks (\S*) reserve", "\n".join(commands))
    assert len(headers) > lone_calls.CALLS
    assert len({re.sub(r"\d{13}", "a moment", header) for header in headers}) == 1
