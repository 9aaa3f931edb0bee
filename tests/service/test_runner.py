"""``quota-engine serve`` as a process: start, workers, drain and exit codes."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from quota_engine.catalog import load_catalog
from quota_engine.cli.main import main
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.service import runner
from quota_engine.service.heartbeat import FILE_VARIABLE
from quota_engine.service.observability.worker_metrics import DIRECTORY_VARIABLE, hung_workers
from tests.support.in_process_service import configuration
from tests.support.servers import until

pytestmark = pytest.mark.store

_PIPE_BYTES = 65_536
CLI = (sys.executable, "-c", "from quota_engine.cli.main import main; raise SystemExit(main())")
SERVE = (*CLI, "serve")


class Served:
    """A service in a separate process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self.wait_for(r"at (http://\S+)")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self.lines.append("")
            self._changed.notify_all()

    def finish_reading(self) -> None:
        """Read to the end, after the process has ended."""
        self._reader.join(60)

    def wait_for(self, pattern: str) -> str:
        """Return the first group of the first output line that matches."""
        with self._changed:
            while True:
                for line in self.lines:
                    found = re.search(pattern, line)
                    if found:
                        return found[1]
                if self.lines and not self.lines[-1]:
                    raise AssertionError(f"it ended without it: {self.lines}")
                assert self._changed.wait(120), self.lines

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(one) for one in children if b"service.worker" in _command_of(one)]

    def token(self, role: str) -> dict[str, str]:
        """Return the header with the token that was generated for this run."""
        token = self.wait_for(rf"role {role} +(\S+)")
        return {"authorization": f"Bearer {token}"}


def _command_of(process: str) -> bytes:
    """Return the command line of a process; nothing if it has ended since it was listed."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


@contextlib.contextmanager
def served(folder: Path, *options: str, **environment: str) -> Iterator[Served]:
    process = subprocess.Popen(
        [*SERVE, "--port", "0", *options],
        cwd=folder,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    service = None
    try:
        service = Served(process)
        wait_until_ready(service)
        yield service
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)
        assert process.stderr is not None
        if service is not None:
            service.finish_reading()
        process.stderr.close()


def wait_until_ready(service: Served) -> None:
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{service.url}/health/ready", timeout=20).status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(service.lines)


def test_serve_without_configuration_uses_an_embedded_store(tmp_path: Path) -> None:
    """The process prints its address, keeps the reservations for the next start, and exits with 0."""
    with served(tmp_path) as service:
        offices = httpx.get(f"{service.url}/v1/offices", timeout=30).json()["offices"]
        assert [office["id"] for office in offices] == ["surabaya"]
        days = httpx.get(
            f"{service.url}/v1/offices/surabaya/availability", params={"first_day": offices[0]["next_opening_days"][0]}
        )
        assert days.status_code == 200
        audit = httpx.get(f"{service.url}/v1/audit", headers=service.token("auditor"), timeout=30)
        assert audit.json() == {"ok": True, "offices": 1, "findings": []}
    assert service.process.returncode == 0
    with served(tmp_path) as again:
        assert httpx.get(f"{again.url}/health/ready", timeout=30).json() == {"status": "ready"}


def test_killed_worker_is_replaced(tmp_path: Path) -> None:
    """The other worker serves meanwhile."""
    with served(tmp_path, "--workers", "2") as service:
        workers = started_workers(service)
        os.kill(workers[0], signal.SIGKILL)
        assert service.wait_for(r"worker (\d+) ended") == str(workers[0])
        for _ in range(20):
            assert httpx.get(f"{service.url}/v1/offices", timeout=30).status_code == 200
        assert "quota_engine_http_requests_total" in httpx.get(f"{service.url}/metrics", timeout=30).text
    assert service.process.returncode == 0


def wait_for_heartbeat(worker: int) -> None:
    """Wait until a worker has started: before that it cannot hang."""
    environment = Path(f"/proc/{worker}/environ").read_bytes().decode()
    (file,) = [Path(one.partition("=")[2]) for one in environment.split("\0") if one.startswith(FILE_VARIABLE)]
    deadline_s = time.monotonic() + 60
    while not (file.exists() and any(file.read_bytes())):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def started_workers(service: Served) -> list[int]:
    """Return the process ids of two workers that have started. The service is ready before the second one has."""
    until(lambda: len(service.workers()) == 2, "two workers")
    workers = service.workers()
    for worker in workers:
        wait_for_heartbeat(worker)
    return workers


def test_hanging_worker_is_replaced(tmp_path: Path) -> None:
    """A stopped process answers nothing and does not end. ``worker_hang_ms`` exceeds the pauses of a busy machine."""
    config = tmp_path / "service.toml"
    config.write_text("worker_hang_ms = 2500\n")
    with served(tmp_path, "--workers", "2", "--config", str(config)) as service:
        hanging, other = started_workers(service)
        os.kill(hanging, signal.SIGSTOP)
        assert service.wait_for(r"worker (\d+) has not responded for 2500 ms") == str(hanging)
        assert service.wait_for(r"worker (\d+) ended") == str(hanging)
        until(lambda: other in service.workers(), "the other worker")
        environment = Path(f"/proc/{other}/environ").read_bytes().split(b"\0")
        (folder,) = (line.partition(b"=")[2] for line in environment if line.startswith(DIRECTORY_VARIABLE.encode()))
        assert len(hung_workers(Path(os.fsdecode(folder)), 0)) == 1, "the operators' pages do not learn of it"
        for _ in range(20):
            assert httpx.get(f"{service.url}/v1/offices", timeout=30).status_code == 200
    assert service.process.returncode == 0


def test_stop_signal_drains_before_exit(tmp_path: Path) -> None:
    """The process reports that it is not ready, serves on, and ends after ``drain_ms``.

    If the machine stops the test for longer than that, the test tries again with a longer time.
    """
    config = tmp_path / "service.toml"
    for drain_ms in (1_500, 6_000, 24_000):
        config.write_text(f"drain_ms = {drain_ms}\n")
        with served(tmp_path, "--config", str(config), "--backend", "memory://") as service:
            began_s = time.monotonic()
            service.process.terminate()
            with contextlib.suppress(httpx.TransportError):
                until(lambda url=service.url: _is_draining(url), "a service that drains")  # type: ignore[misc]
                status = httpx.get(f"{service.url}/v1/offices", timeout=30).status_code
                assert service.process.wait(60) == 0
                assert time.monotonic() - began_s >= drain_ms / 1000
                assert status == 200
                return
    raise AssertionError("the service ended before it had drained")


def _is_draining(url: str) -> bool:
    response = httpx.get(f"{url}/health/ready", timeout=30)
    return response.status_code == 503 and response.json() == {"status": "draining"}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--backend", "redis://127.0.0.1:1"), 2, "identity_key: missing"),
        (("--workers", "0"), 2, "--workers: 0; expected an integer from 1 to 64"),
        (("--host", "256.1.1.1", "--backend", "memory://"), 2, "host, port"),
        (("--config", "nix.toml"), 2, "nix.toml: file: cannot be read"),
    ],
)
def test_invalid_options_exit_with_an_explanation(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    """One line names the error and the valid values. Nothing starts, so the command runs in this process."""
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *options]) == code
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message


def test_unreachable_store_exits_with_3(tmp_path: Path) -> None:
    """Both with one worker and with several, in few lines."""
    config = tmp_path / "service.toml"
    config.write_text('identity_key = "MDEyMzQ1Njc4OWFiY2RlZg=="\nbackend = "redis://127.0.0.1:1?attempts_max=1"\n')
    for workers in ("1", "2"):
        run = subprocess.run(
            [*SERVE, "--port", "0", "--config", str(config), "--workers", workers],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.returncode == 3, run.stderr
        assert "ERROR:    the store cannot be used: Error 111" in run.stderr
        assert "Traceback" not in run.stderr


@pytest.fixture(scope="module")
def used_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of an embedded store that a service has used, with another identity key than that of the tests."""
    folder = tmp_path_factory.mktemp("used")
    backend = f"valkey+embedded://{folder / 'store'}"
    with served(folder, "--backend", backend):
        pass
    return backend


@pytest.mark.parametrize("workers", ["1", "2"])
def test_another_identity_key_stops_the_start_and_is_named(tmp_path: Path, used_store: str, workers: str) -> None:
    """The first start keeps the key of the store; a variable with another one is refused before any request."""
    run = subprocess.run(
        [*SERVE, "--port", "0", "--backend", used_store, "--workers", workers],
        cwd=tmp_path,
        env={**os.environ, "QUOTA_ENGINE_IDENTITY_KEY": "MDEyMzQ1Njc4OWFiY2RlZg=="},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 3, run.stderr
    assert "ERROR:    QUOTA_ENGINE_IDENTITY_KEY: not the identity key that this store was first opened" in run.stderr
    assert "Traceback" not in run.stderr


def test_workers_that_cannot_start_are_not_restarted(tmp_path: Path) -> None:
    """Each worker reports the error once."""
    run = subprocess.run(
        [*SERVE, "--port", "0", "--workers", "2"],
        cwd=tmp_path,
        env={**os.environ, "QUOTA_ENGINE_TELEMETRY": "nix"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 3, run.stderr
    assert "quota-engine: QUOTA_ENGINE_TELEMETRY: 'nix'; expected opentelemetry" in run.stderr
    assert run.stderr.count("QUOTA_ENGINE_TELEMETRY") <= 2
    assert "Traceback" not in run.stderr


def test_worker_that_ends_before_it_has_read_a_large_configuration_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The configuration of a country does not fit into a pipe, so writing it meets the end of the worker."""
    config = configuration(load_catalog("indonesia"), workers=2)
    assert len(pickle.dumps(config)) > _PIPE_BYTES
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BackendUnavailable, match="worker failed to start"):
        runner.run(config, lambda _: None)
