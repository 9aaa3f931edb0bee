"""``postgresql+embedded://``; ``tests/stores/test_embedded.py`` tests what all embedded servers share."""

from __future__ import annotations

import importlib.util
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.stores.sql.postgresql.embedded import open_embedded_postgresql

# Opens the directory, prints the server's process id, and stays until its standard input ends.
USER = """
import sys
from quota_engine.stores.sql.postgresql.embedded import open_embedded_postgresql
with open_embedded_postgresql(sys.argv[1]) as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def url() -> Iterator[str]:
    """The URL of a directory that does not exist, under one that the server's user can enter."""
    # Not tmp_path, which only root can enter if root runs the tests.
    with tempfile.TemporaryDirectory(prefix="it's a ") as parent:
        Path(parent).chmod(0o755)
        yield f"postgresql+embedded://{quote(parent)}/quota"


@pytest.mark.store
@pytest.mark.slow
def test_data_survives_a_killed_server_and_reopening(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """One server for the life of a directory, because its creation takes seconds."""
    with open_embedded_postgresql(url) as server:
        with psycopg.connect(server.url, autocommit=True) as client:
            assert client.execute("SELECT current_setting('fsync')").fetchone() == ("on",)
            client.execute("CREATE TABLE kept AS SELECT 1 AS number")
        assert stat.S_IMODE(server.socket_path.parent.stat().st_mode) == 0o700
        first_pid = server.pid
        os.kill(first_pid, signal.SIGKILL)
        server.ensure_running()
        assert f"process {first_pid}" in caplog.text
        with psycopg.connect(server.url) as client:
            assert client.execute("SELECT number FROM kept").fetchall() == [(1,)]
    assert not server.socket_path.exists()
    with open_embedded_postgresql(url) as server, psycopg.connect(server.url) as client:
        assert client.execute("SELECT number FROM kept").fetchall() == [(1,)]
        with subprocess.Popen(
            [sys.executable, "-c", USER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout is not None
            assert int(other.stdout.readline()) == server.pid
            other.communicate("")
        assert client.execute("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+embedded://dir", "three slashes"),
        ("postgresql+embedded:///", "names no directory"),
        ("postgresql+embedded:///a/../b", "'..'"),
        ("postgresql+embedded:///a#b", "encoded as %23"),
        (f"postgresql+embedded:///{'a' * 100}", "too long for a socket"),
        ("postgresql:///a", "not the URL of an embedded PostgreSQL"),
    ],
)
def test_bad_urls_are_refused(url: str, expected: str) -> None:
    with pytest.raises(InvalidRequest, match=expected):
        open_embedded_postgresql(url)


def test_without_the_wheel_an_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match="postgresql-embedded"):
        open_embedded_postgresql("postgresql+embedded:///var/lib/quota")


def test_windows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(BackendUnavailable, match="sqlite:///"):
        open_embedded_postgresql("postgresql+embedded:///var/lib/quota")
