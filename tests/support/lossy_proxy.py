"""A proxy between the engine and a server, which can lose answers: what a bad network does at the worst moment."""

from __future__ import annotations

__all__ = ["LossyProxy"]

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self


class LossyProxy:
    """Passes everything on, but swallows the next ``losses`` replies to scripts, and cuts the connection then.

    ``on_loss`` is called before it is cut.
    """

    def __init__(self, socket_path: Path) -> None:
        self._server_path = str(socket_path)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.losses = 0
        self.scripts_seen = 0
        self.on_loss: Callable[[], None] | None = None
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
        self._server_path = str(socket_path)
        cut, self._open = self._open[1:], self._open[:1]
        self._cut(*cut)
        for one in cut:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            self._open += [client, server]
            try:
                server.connect(self._server_path)
            except OSError:
                client.close()
                continue
            state = {"script": False}
            threading.Thread(target=self._forward, args=(client, server, state), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client, state), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, state: dict[str, bool]) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 20):
                if b"EVAL" in data:
                    state["script"] = True
                    with self._lock:
                        self.scripts_seen += 1
                server.sendall(data)
        self._cut(client, server)

    def _back(self, server: socket.socket, client: socket.socket, state: dict[str, bool]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 20):
                with self._lock:
                    lose = state["script"] and self.losses > 0 and not data.startswith(b"-")
                    self.losses -= lose
                if lose:
                    if self.on_loss is not None:
                        self.on_loss()
                    break
                client.sendall(data)
        self._cut(client, server)

    def _cut(self, *sockets: socket.socket) -> None:
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
