"""A real PgBouncer in front of a PostgreSQL server, which gives each transaction another session."""

from __future__ import annotations

__all__ = ["PgBouncer"]

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

from quota_engine.stores.sql.postgresql import embedded
from tests.support.postgresql_servers import SUPERUSER, PostgresqlServer, wait_until
from tests.support.servers import START_TIMEOUT_S, ServerContext, free_ports

_CONFIGURATION = """\
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
pool_mode = transaction
default_pool_size = 3
max_client_conn = 100
listen_addr =
listen_port = {own_port}
unix_socket_dir = {directory}
auth_type = trust
auth_file = {directory}/users
logfile = {directory}/log
"""


def _program() -> str:
    """Return PgBouncer's path. Without it: an error where ``CI=true``, else a skip."""
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if found is None:
        problem = "no pgbouncer: install Debian's package pgbouncer"
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(problem)
        pytest.skip(problem)
    return found


class PgBouncer(ServerContext):
    """A pooler in transaction mode, with three sessions for all of its clients."""

    def __init__(self, server: PostgresqlServer) -> None:
        """Create a pooler for the server; it starts when its ``with`` block is entered."""
        self._program = _program()
        self._user = embedded.server_user()
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self.port = free_ports(1)[0]
        names = {"host": server.directory, "port": server.port, "user": SUPERUSER}
        text = _CONFIGURATION.format(own_port=self.port, directory=self.directory, **names)
        (self.directory / "pgbouncer.ini").write_text(text)
        (self.directory / "users").write_text(f'"{SUPERUSER}" ""\n')
        if self._user is not None:
            os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)

    def url(self, schema: str, **options: str) -> str:
        """Return a URL of the store through the pooler."""
        pairs = "".join(f"&{name}={value}" for name, value in options.items())
        return f"postgresql://{SUPERUSER}@/postgres?host={self.directory}&port={self.port}&schema={schema}{pairs}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [self._program, "--quiet", str(self.directory / "pgbouncer.ini")],
            stdin=subprocess.DEVNULL,
            cwd=self.directory,
            **embedded.run_as(self._user),
        )
        wait_until(self._answers, "a pooler that answers")

    def kill(self) -> None:
        """End it at once. Its clients lose their connections, and PostgreSQL ends their transactions."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(START_TIMEOUT_S)
            (self.directory / f".s.PGSQL.{self.port}").unlink(missing_ok=True)

    def close(self) -> None:
        """End it, and remove its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_tail(self) -> str:
        """See :meth:`ServerContext.log_tail`."""
        path = self.directory / "log"
        return path.read_text()[-2_000:] if path.exists() else "(no log)"

    def _answers(self) -> bool:
        with psycopg.connect(host=str(self.directory), port=self.port, user=SUPERUSER, dbname="postgres") as one:
            one.execute("SELECT 1")
        return True
