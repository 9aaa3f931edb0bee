"""Typed data: several threads convert to a type that no thread has used before."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import msgspec
import pytest

from quota_engine import typed_data
from tests.support.paths import ROOT

FIRST_CALLS = """
import sys, threading
import msgspec
from quota_engine import typed_data

THREADS = 4
start = threading.Barrier(THREADS)
found = []

def call(convert, target):
    start.wait()
    found.append(convert({"part0": {"number": 1}, "part9": {"number": 2}}, target))

sys.setswitchinterval(1e-6)  # seconds
for number in range(100):
    # New classes each time: only the first conversion analyzes them.
    parts = [msgspec.defstruct(f"Part{one}", [("number", int)]) for one in range(10)]
    target = msgspec.defstruct("Whole", [(f"part{one}", part | None, None) for one, part in enumerate(parts)])
    convert = getattr(typed_data if sys.argv[1] == "ours" else msgspec, "convert")
    threads = [threading.Thread(target=call, args=(convert, target)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(len(found), {(one.part0.number, one.part8, one.part9.number) for one in found})
"""


class Day(msgspec.Struct):
    number: int


@pytest.mark.slow
def test_threads_may_convert_to_a_new_type_at_once() -> None:
    """With ``msgspec`` in place of ``ours``, this process ends with a segmentation fault in nearly each run."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", FIRST_CALLS, "ours"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "400 {(1, None, 2)}\n", "")


def test_values_and_texts_become_typed() -> None:
    assert typed_data.convert({"number": 3}, Day) == Day(3)
    assert typed_data.convert({"number": "3"}, Day, strict=False) == Day(3)
    assert typed_data.convert(None, Day | None) is None
    assert typed_data.decode_json(b'{"number": 3}', Day) == Day(3)
    assert typed_data.decode_json("[3]") == [3]
    assert typed_data.json_decoder(Day).decode(b'{"number": 3}') == Day(3)
    assert typed_data.msgpack_decoder(Day).decode(msgspec.msgpack.encode(Day(3))) == Day(3)


def test_mismatch_is_reported_at_each_call() -> None:
    for _ in range(2):
        with pytest.raises(msgspec.ValidationError, match="number"):
            typed_data.convert({}, Day)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system: nothing to test")
def test_child_is_not_forked_during_an_analysis() -> None:
    """A child would keep the half analysis of another thread forever."""
    is_forked = threading.Event()

    def fork() -> None:
        child = os.fork()
        if not child:
            os._exit(0 if typed_data.convert({"number": 3}, Day | int) == Day(3) else 1)
        statuses.append(os.waitpid(child, 0)[1])
        is_forked.set()

    statuses: list[int] = []
    thread = threading.Thread(target=fork)
    with typed_data._lock:
        thread.start()
        assert not is_forked.wait(0.05)
    thread.join(60)
    assert statuses == [0]
