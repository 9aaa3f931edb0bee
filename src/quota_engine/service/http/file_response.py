"""Files as responses, sent in chunks, so that a download of any size needs the same small memory."""

from __future__ import annotations

__all__ = ["FileResponse"]

import asyncio
from collections.abc import Callable
from typing import IO, Final

import msgspec
from starlette.types import Send

_CHUNK_BYTES: Final = 65_536


class FileResponse(msgspec.Struct, frozen=True):
    """A file to send. ``file`` is ``None`` if the client already has it.

    Sending closes the file and calls ``on_close``.
    """

    file: IO[bytes] | None
    name: str
    size_bytes: int
    sha256: str
    content_type: bytes
    on_close: Callable[[], None]

    @property
    def status(self) -> int:
        """The HTTP status."""
        return 200 if self.file is not None else 304

    async def send(self, send: Send, request_id: str, *, is_head: bool) -> None:
        """Send the response through ASGI; without its body if ``is_head``.

        Raises:
            EOFError: the file has become shorter than ``size_bytes``.
        """
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
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            bytes_left = self.size_bytes if self.file is not None and not is_head else 0
            while self.file is not None and bytes_left:
                chunk = await asyncio.to_thread(self.file.read, min(bytes_left, _CHUNK_BYTES))
                if not chunk:
                    raise EOFError(f"{self.name} is shorter than its recorded size")
                bytes_left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": bytes_left > 0})
            if self.file is None or is_head or not self.size_bytes:
                await send({"type": "http.response.body", "body": b""})
        finally:
            if self.file is not None:
                self.file.close()
                self.on_close()
