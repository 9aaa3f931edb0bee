"""A crowd of HTTP clients in one process: each sends one JSON request on a new connection."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any


async def _post(port: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    try:
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        response = await reader.read()
    finally:
        writer.close()  # also after an error, or a later test would fail for connections that were never closed
    return {"http": int(response.split(b" ", 2)[1]), **json.loads(_unchunked(response))}


def _unchunked(response: bytes) -> bytes:
    """Return the JSON object of a response, with or without chunks."""
    body = response.partition(b"\r\n\r\n")[2]
    return body[body.index(b"{") : body.rindex(b"}") + 1]


def post_all(port: int, path: str, bodies: Sequence[dict[str, Any]], at_once: int = 100) -> list[dict[str, Any]]:
    """Send all bodies, ``at_once`` of them at a time, and return the decoded responses with ``http``, the status."""

    async def send_all() -> list[dict[str, Any]]:
        turns = asyncio.Semaphore(at_once)

        async def send(body: dict[str, Any]) -> dict[str, Any]:
            async with turns:
                return await _post(port, path, body)

        return await asyncio.gather(*map(send, bodies))

    return asyncio.run(send_all())


def count_statuses(responses: Sequence[dict[str, Any]]) -> Counter[tuple[int, str]]:
    """Return how many responses have which HTTP status and status of the engine."""
    return Counter((one["http"], one["status"]) for one in responses)
