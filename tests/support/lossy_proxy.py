"""A proxy between a client and a server that loses answers and delivers requests late, as a bad network does."""

from __future__ import annotations

__all__ = ["LossyProxy"]

import contextlib
import queue
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_SCRIPT_CALLS = (b"\r\nEVAL", b"\r\nFCALL\r\n")
_HTTP = re.compile(rb"[A-Z]+ \S+ HTTP/1|HTTP/1")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_ARRAY = re.compile(rb"\*(\d+)\r\n")
_STRING = re.compile(rb"\$(\d+)\r\n")
_WAIT_S = 30.0


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
        self._held_changed = threading.Condition()
        self._incomplete_count = 0
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
        with self._held_changed:  # a request counts as held before its last bytes have arrived
            assert self._held_changed.wait_for(lambda: not self._incomplete_count, _WAIT_S)
            held, self._held = self._held, []
        replies = []
        for server, data in held:
            server.sendall(data)
            reply = self._late_replies.get(timeout=_WAIT_S)
            while not _is_whole_http(reply):
                reply += self._late_replies.get(timeout=_WAIT_S)
            replies.append(reply)
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
                        with self._held_changed:
                            self._incomplete_count += state["held"]
                        self.holds -= state["held"]
                    if state["held"]:
                        self._hold(client, server, data)
                        return
                server.sendall(data)
        self._cut(client, server)

    def _hold(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        """Keep a request, and leave the client without an answer."""
        with contextlib.suppress(OSError):
            client.settimeout(_WAIT_S)
            while not _is_whole_request(data) and (more := client.recv(1 << 20)):  # a busy client sends the rest later
                data += more
            client.settimeout(0.05)
            while more := client.recv(1 << 20):  # further requests
                data += more
        with self._held_changed:
            self._held.append((server, data))
            self._incomplete_count -= 1
            self._held_changed.notify_all()
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


def _is_whole_http(data: bytes) -> bool:
    """Return True if a message of HTTP has its body, and for every other protocol."""
    if not _HTTP.match(data):
        return True
    head, end, body = data.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return bool(end) and (length is None or len(body) >= int(length[1]))


def _is_whole_request(data: bytes) -> bool:
    """Return True if a request of HTTP has its body, and requests of Redis have all of their words."""
    if not data.startswith(b"*"):
        return _is_whole_http(data)
    at = 0
    while array := _ARRAY.match(data, at):
        at = array.end()
        for _ in range(int(array[1])):
            string = _STRING.match(data, at)
            if string is None:
                return False
            at = string.end() + int(string[1]) + 2
    return at == len(data)
