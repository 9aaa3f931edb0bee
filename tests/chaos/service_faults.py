"""Faults of the service: its workers are killed or stand still, and the load reserves through HTTP."""

from __future__ import annotations

__all__ = ["FAULTS"]

import os
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from quota_engine.client import Retries, ServiceClient
from quota_engine.domain.commands import Confirm, Reserve
from quota_engine.domain.outcomes import Outcome
from tests.chaos.faults import Case, Strike, fault
from tests.chaos.host_faults import FAULTS
from tests.service.test_kills import serving, token
from tests.service.test_runner import Served, wait_for_heartbeat
from tests.support.acknowledged_load import PLACES
from tests.support.concurrent_bookers import OFFICE, open_day, set_places
from tests.support.identities import nik
from tests.support.servers import Server, until, valkey_server_binary

_HANG_MS: Final = 1_000
_TIMEOUT_MS: Final = 2_000


class _ServiceCalls:
    """Sends the commands of a load to a service, with one person for each reservation."""

    def __init__(self, service: Served) -> None:
        retries = Retries(attempts_max=1)
        self._client = ServiceClient.open(service.url, token(service), timeout_ms=_TIMEOUT_MS, retries=retries)
        self.day = open_day(self._client)
        set_places(self._client, self.day, PLACES // 10)

    def apply(self, office: str, command: Any) -> Outcome:
        """Carry out a reserve, a confirm or a release. A key has the form "t1n2" (:class:`.Load`)."""
        if isinstance(command, Reserve):
            thread, _, number = command.id.removeprefix("t").partition("n")
            person = nik(100_000 * int(thread) + int(number))
            return self._client.reserve(
                office, self.day, person, service="new", session="morning", idempotency_key=command.id
            )
        step = self._client.confirm if isinstance(command, Confirm) else self._client.release
        return step(f"{office}~{command.id}")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _service(stack: ExitStack) -> tuple[Server, Served]:
    """Start a Valkey and a service with two workers, which replaces one that hangs for a second."""
    server = stack.enter_context(Server(valkey_server_binary(), appendfsync="always"))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
    config = folder / "hang.toml"
    config.write_text(f"worker_hang_ms = {_HANG_MS}\n", encoding="utf-8")
    return server, stack.enter_context(serving(folder, server, "--config", str(config)))


def _case(stack: ExitStack, how: signal.Signals) -> Case:
    server, service = _service(stack)
    calls = _ServiceCalls(service)

    def strike() -> Strike:
        worker, *_ = service.workers()
        wait_for_heartbeat(worker)
        os.kill(worker, how)
        yield
        until(lambda: worker not in service.workers() and len(service.workers()) == 2, "another worker")
        wait_for_heartbeat(service.workers()[-1])

    return Case(f"{server.url}?durability=fsync", strike, load=calls, office=OFFICE, day=calls.day.toordinal())


@fault("a worker of the service is killed (SIGKILL); the load is sent through HTTP")
def killed_worker(stack: ExitStack) -> Case:
    return _case(stack, signal.SIGKILL)


@fault("a worker of the service stands still (SIGSTOP), and is replaced; the load is sent through HTTP")
def stopped_worker(stack: ExitStack) -> Case:
    return _case(stack, signal.SIGSTOP)
