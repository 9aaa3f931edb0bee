"""The processor time of a reserve beside a plain script: what is measured, and what does not count."""

from __future__ import annotations

import gc
import json
import sys
import time

import pytest

from benchmarks import lone_calls

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
