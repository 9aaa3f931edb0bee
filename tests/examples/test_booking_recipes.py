"""Tests of the recipes for frameworks: 300 clients, 50 places, several workers, and exactly 50 confirmed places."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from quota_engine import QuotaEngine, load_catalog
from tests.support.http_crowd import count_statuses, post_all
from tests.support.paths import ROOT
from tests.support.postgresql_servers import PostgresqlServer, wheel_programs
from tests.support.servers import Server, valkey_server_binary

pytestmark = [pytest.mark.store, pytest.mark.slow]

EXAMPLES = ROOT / "examples"
CATALOG = load_catalog(EXAMPLES / "clinic.toml")
KEY = b"a key of the recipes' tests"
PEOPLE, PLACES = 300, 50
START_S_MAX = 60.0
GUNICORN = ["gunicorn", "--chdir", str(EXAMPLES), "-w", "2", "--threads", "8", "-b", "127.0.0.1:{port}"]
GUNICORN += ["--no-control-socket"]  # which would be in the home directory, and shared with other tests
UVICORN = ["uvicorn", "--app-dir", str(EXAMPLES), "--workers", "2", "--no-access-log", "--port", "{port}"]
SERVERS = {
    "booking_fastapi": [*UVICORN, "{name}:app"],
    "booking_litestar": [*UVICORN, "{name}:app"],
    "booking_flask": [*GUNICORN, "--preload", "{name}:app"],
    "booking_django": [*GUNICORN, "{name}:application"],
}
"""The command of each recipe that serves HTTP."""


def require(*modules: str) -> None:
    """Skip without the packages of a recipe; in CI that is an error, so that no gate passes untested."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("CI") == "true":
        raise ModuleNotFoundError(f"no {', '.join(missing)}: run make")
    if missing:
        pytest.skip(f"no {', '.join(missing)}: install requirements-dev.txt")


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    """A server that the recipes share. Each has its own namespace."""
    with Server(valkey_server_binary()) as server:
        yield server


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgresqlServer]:
    """A server for the recipe of Django."""
    with PostgresqlServer(wheel_programs()) as server:
        yield server


def environment(backend: str, **more: str) -> dict[str, str]:
    """Return the variables of a recipe's process."""
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    key = b64encode(KEY).decode()
    own = {"QUOTA_ENGINE_BACKEND": backend, "QUOTA_ENGINE_IDENTITY_KEY": key, "PYTHONPATH": paths}
    return {**os.environ, **own, **more}


def store_url(server: Server, namespace: str) -> str:
    """Return the URL of a recipe's own keys."""
    return f"{server.url}?namespace={namespace}&call_timeout_ms=60000"


@functools.cache  # the same day if midnight passes
def booked_day() -> date:
    """Return a day that is open, in the clinic's time zone as well."""
    return datetime.now(UTC).date() + timedelta(days=3)


def confirmed_places(backend: str) -> int:
    """Return the confirmed places of the day, after an audit without findings."""
    with QuotaEngine.open(backend, identity_key=KEY, catalog=CATALOG) as engine:
        assert engine.audit().ok
        (day,) = engine.availability("clinic", booked_day())
        return day.quotas["online"].confirmed


@contextlib.contextmanager
def serving(name: str, backend: str, **more: str) -> Iterator[int]:
    """Run a recipe until the block ends, and return its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [word.format(port=port, name=name) for word in SERVERS[name]]
    process = subprocess.Popen([sys.executable, "-m", *command], env=environment(backend, **more))
    try:
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            assert process.poll() is None, f"{name} ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def forms() -> list[dict[str, str]]:
    """Return the form of each person, and those of the first ten again with their keys."""
    day = booked_day().isoformat()
    people = [{"identity": f"person-{n}", "day": day, "key": f"key-{n}"} for n in range(PEOPLE)]
    return people + people[:10]


def hammer(name: str, backend: str, **more: str) -> None:
    """Send all forms, and compare the answers with the places that are confirmed afterwards."""
    with serving(name, backend, **more) as port:
        answers = post_all(port, "/book", forms())
        again = post_all(
            port, "/book", [form for form, answer in zip(forms(), answers, strict=True) if answer["http"] == 200]
        )
    winners = {answer["reference"] for answer in answers if answer["http"] == 200}
    assert set(count_statuses(answers)) == {(200, "CONFIRMED"), (409, "SOLD_OUT")}
    assert len(winners) == confirmed_places(backend) == PLACES
    assert {answer["reference"] for answer in again} == winners  # the same keys, and no second effect


def test_threads_of_a_worker_share_one_engine() -> None:
    """The first requests of a worker arrive together, in several threads."""
    program = """
import sys, threading
from booking_settings import worker_engine
sys.setswitchinterval(1e-6)  # seconds
engines, start = [], threading.Barrier(8)
def call():
    start.wait()
    engines.append(worker_engine())
threads = [threading.Thread(target=call) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(engines), len(set(map(id, engines))))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env=environment("memory://"), cwd=EXAMPLES, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("8 1\n", "")


@pytest.mark.parametrize("name", ["booking_fastapi", "booking_litestar"])
def test_asgi_recipe_confirms_exactly_the_places(name: str, valkey: Server) -> None:
    require("uvicorn", name.removeprefix("booking_"))
    hammer(name, store_url(valkey, name))


def test_flask_recipe_confirms_exactly_the_places(valkey: Server) -> None:
    require("gunicorn", "flask")
    hammer("booking_flask", store_url(valkey, "booking_flask"))


def test_django_recipe_copies_each_confirmation_once(postgresql: PostgresqlServer) -> None:
    require("gunicorn", "django")
    backend = f"postgresql://postgres@{postgresql.address}/postgres?call_timeout_ms=60000"
    hammer("booking_django", backend)
    for _ in range(2):
        program = [sys.executable, str(EXAMPLES / "booking_django.py"), "copy-events"]
        done = subprocess.run(program, env=environment(backend), capture_output=True, text=True, check=True)
        assert done.stdout == f"{PLACES} visits\n"


def run_in_two_processes(command: list[str], variables: dict[str, str], people: bytes = b"") -> list[str]:
    """Run a program in two processes at the same time, with ``people`` as its input. Return the output of each."""
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(2):
            process = subprocess.Popen(
                command, env=variables, cwd=EXAMPLES, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            processes.append(stack.enter_context(process))
            assert process.stdin is not None
            process.stdin.write(people)
            process.stdin.close()
            process.stdin = None
        return [process.communicate(timeout=100)[0].decode() for process in processes]


def test_threads_recipe_confirms_exactly_the_places(valkey: Server) -> None:
    backend = store_url(valkey, "booking_threads")
    program = [sys.executable, str(EXAMPLES / "booking_threads.py"), booked_day().isoformat()]
    people = "\n".join(f"person-{n}" for n in range(PEOPLE)).encode()
    # Both processes book for the same people, with the same keys.
    outputs = run_in_two_processes(program, environment(backend), people)
    assert outputs == [f"CONFIRMED {PLACES}\nSOLD_OUT {PEOPLE - PLACES}\n"] * 2
    assert confirmed_places(backend) == PLACES


CELERY_CLIENT = """
import sys
from collections import Counter
from booking_celery import book
from celery import group
jobs = group(book.s(f"person-{n}", sys.argv[1], f"key-{n}") for n in range(300))
print(sorted(Counter(jobs.apply_async().get(timeout=100)).items()))
"""


def test_celery_recipe_confirms_exactly_the_places(valkey: Server) -> None:
    require("celery")
    backend = store_url(valkey, "booking_celery")
    variables = environment(backend, QUOTA_ENGINE_CELERY_BROKER=f"redis+socket://{valkey.socket_path}")
    command = [
        "celery",
        "-A",
        "booking_celery",
        "worker",
        "--concurrency",
        "2",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]
    worker = subprocess.Popen([sys.executable, "-m", *command, "-l", "ERROR"], env=variables, cwd=EXAMPLES)
    try:
        client = [sys.executable, "-c", CELERY_CLIENT, booked_day().isoformat()]
        done = subprocess.run(client, env=variables, cwd=EXAMPLES, capture_output=True, text=True, check=True)
    finally:
        worker.terminate()
        worker.wait(60)
    assert done.stdout == f"[('CONFIRMED', {PLACES}), ('SOLD_OUT', {PEOPLE - PLACES})]\n"
    assert confirmed_places(backend) == PLACES


TASKIQ_CLIENT = """
import asyncio, sys
from collections import Counter
from booking_taskiq import book, broker
turns = asyncio.Semaphore(50)  # the broker for tests keeps the results of 100 tasks
async def run(n):
    async with turns:
        task = await book.kiq(f"person-{n}", sys.argv[1], f"key-{n}")
        return (await task.wait_result(check_interval=0.05, timeout=90)).return_value
async def main():
    await broker.startup()
    print(sorted(Counter(await asyncio.gather(*map(run, range(300)))).items()))
    await broker.shutdown()
asyncio.run(main())
"""


def test_taskiq_recipe_confirms_exactly_the_places(valkey: Server) -> None:
    require("taskiq")
    backend = store_url(valkey, "booking_taskiq")
    outputs = run_in_two_processes(
        [sys.executable, "-c", TASKIQ_CLIENT, booked_day().isoformat()], environment(backend)
    )
    assert outputs == [f"[('CONFIRMED', {PLACES}), ('SOLD_OUT', {PEOPLE - PLACES})]\n"] * 2
    assert confirmed_places(backend) == PLACES


RECIPES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".php", ".py"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipes_have_less_than_100_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100
