"""A proxy between a client and a server that loses answers and delivers requests late, as a bad network does."""

from __future__ import annotations

__all__ = ["LossyProxy"]

import contextlib
import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_SCRIPT_CALLS = (b"\r\nEVAL", b"\r\nFCALL\r\n")


class LossyProxy:
    """Passes everything on, except the next ``losses`` replies and the next ``holds`` requests of a kind.

    A lost reply is dropped. A held request stays in the proxy until :meth:`deliver_late`.
    In both cases the client sees a cut connection, or silence.

    Attributes:
        losses: replies to lose.
        holds: requests to hold.
        marker: a request of this kind contains these bytes; b"" stands for a call of a script or a function.
        is_silent: True to leave the connection of a held request or a lost reply open.
        on_loss: called when a reply is lost, before the client sees anything.
        on_hold: called when a request is held, before the client sees anything.
    """

    has_other_requests = False
    """True if a connection has requests of the kind between others, each in one write."""

    def __init__(self, server: Path | tuple[str, int], marker: bytes = b"") -> None:
        """Lead to a server, given by its Unix socket, or by host and port."""
        self._server = server
        self.marker = marker
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.losses = 0
        self.holds = 0
        self.is_silent = False
        self.scripts_seen = 0
        self.on_loss: Callable[[], None] | None = None
        self.on_hold: Callable[[], None] | None = None
        self._held: list[tuple[socket.socket, bytes]] = []
        self._late_replies: queue.Queue[bytes] = queue.Queue()
        self._lock = threading.Lock()
        self._open: list[socket.socket] = [self._listener]
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        """Return the URL that the engine connects to."""
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._accepting.join(5)

    def switch_to(self, socket_path: Path) -> None:
        """Lead to another server from now on, and cut all connections to the one before."""
        self._server = socket_path
        cut, self._open = self._open[1:], self._open[:1]
        self._cut(*cut)
        for one in cut:
            one.close()

    def deliver_late(self) -> list[bytes]:
        """Pass the held requests on, each on its own connection; return what the server replied to each."""
        held, self._held = self._held, []
        replies = []
        for server, data in held:
            server.sendall(data)
            replies.append(self._late_replies.get(timeout=10))
        return replies

    def _connect(self) -> socket.socket:
        if isinstance(self._server, tuple):
            return socket.create_connection(self._server)
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self._server))
        except OSError:
            server.close()
            raise
        return server

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            self._open.append(server)
            state = {"script": False, "held": False}
            threading.Thread(target=self._forward, args=(client, server, state), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client, state), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, state: dict[str, bool]) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 20):
                is_marked = any(marker in data for marker in (self.marker and (self.marker,)) or _SCRIPT_CALLS)
                state["script"] = is_marked or (state["script"] and not self.has_other_requests)
                if is_marked:
                    with self._lock:
                        self.scripts_seen += 1
                        state["held"] = self.holds > 0
                        self.holds -= state["held"]
                    if state["held"]:
                        self._hold(client, server, data)
                        return
                server.sendall(data)
        self._cut(client, server)

    def _hold(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        """Keep a request, and leave the client without an answer."""
        client.settimeout(0.05)
        with contextlib.suppress(TimeoutError):
            while more := client.recv(1 << 20):  # the rest of it
                data += more
        self._held.append((server, data))
        if self.on_hold is not None:
            self.on_hold()
        if not self.is_silent:
            self._cut(client)

    def _back(self, server: socket.socket, client: socket.socket, state: dict[str, bool]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 20):
                if state["held"]:
                    self._late_replies.put(data)
                    continue
                with self._lock:
                    lose = state["script"] and self.losses > 0 and not data.startswith(b"-")
                    self.losses -= lose
                if lose:
                    if self.on_loss is not None:
                        self.on_loss()
                    if self.is_silent:
                        continue
                    break
                client.sendall(data)
        self._cut(client, server)

    def _cut(self, *sockets: socket.socket) -> None:
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
