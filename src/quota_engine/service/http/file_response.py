"""Files as answers: sent in pieces, so that each costs the same small memory whatever its size."""

from __future__ import annotations

__all__ = ["Download"]

import asyncio
from collections.abc import Callable
from typing import IO, Final

import msgspec
from starlette.types import Send

_PIECE_BYTES: Final = 65_536


class Download(msgspec.Struct, frozen=True):
    """A file that goes back, open for reading; sending it closes it, and calls ``closed``. ``file`` is ``None`` for
    those who have it already.
    """

    file: IO[bytes] | None
    name: str
    size_bytes: int
    sha256: str
    content_type: bytes
    closed: Callable[[], None]

    @property
    def http(self) -> int:
        """The HTTP status."""
        return 200 if self.file is not None else 304

    async def send(self, send: Send, request_id: str, *, is_head: bool) -> None:
        """Send it."""
        headers = [
            (b"etag", b'"%s"' % self.sha256.encode()),
            (b"cache-control", b"no-cache"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-request-id", request_id.encode()),
        ]
        if self.file is not None:
            disposition = f'attachment; filename="{self.name}"'.encode()
            headers += [
                (b"content-type", self.content_type),
                (b"content-length", b"%d" % self.size_bytes),
                (b"content-disposition", disposition),
            ]
        try:
            await send({"type": "http.response.start", "status": self.http, "headers": headers})
            left = self.size_bytes if self.file is not None and not is_head else 0
            while self.file is not None and left:
                piece = await asyncio.to_thread(self.file.read, min(left, _PIECE_BYTES))
                if not piece:
                    raise EOFError(f"{self.name} is shorter than it was")
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
            if self.file is None or is_head or not self.size_bytes:
                await send({"type": "http.response.body", "body": b""})
        finally:
            if self.file is not None:
                self.file.close()
                self.closed()
