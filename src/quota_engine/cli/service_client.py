"""The HTTP client of the operators' commands, with its address and token."""

from __future__ import annotations

__all__ = ["TOKEN_VARIABLE", "OperatorClient", "connect"]

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.draws.outcomes import DrawStatus
from quota_engine.draws.summary import DrawSummary
from quota_engine.generators import drive
from quota_engine.waiting_room.summary import RoomSummary

try:
    import httpx

    from quota_engine.client import Retries, ServiceClient, ServiceRefused
    from quota_engine.client.call_protocol import CallBase, CallFlow, segment
except ImportError as missing:
    raise BackendUnavailable(
        f"--host needs {missing.name}, of the extra 'client': pip install 'quota-engine[cli,client]'"
    ) from missing

TOKEN_VARIABLE: Final = "QUOTA_ENGINE_TOKEN"  # noqa: S105 - the name of a variable
_TOKEN_BYTES_MAX: Final = 4_096
_TIMEOUT_S: Final = 10.0
_RETRIES: Final = Retries(attempts_max=2)
"""Few attempts, because ``watch`` repeats its requests anyway and operators wait for the result of a command."""


class SummaryCalls(CallBase):
    """Calls for the summaries that ``watch`` shows."""

    def summarize_room(self, room: str) -> CallFlow[RoomSummary]:
        """Return the state of a waiting room."""
        return self._request("GET", f"/v1/rooms/{segment(room, 'room')}/summary", RoomSummary)

    def summarize_draw(self, draw: str) -> CallFlow[DrawSummary | None]:
        """Return the state of a draw, or ``None`` if there is no such draw."""
        found = yield from self._request_or_problem(
            "GET", f"/v1/draws/{segment(draw, 'draw')}", DrawSummary, DrawStatus
        )
        return found if isinstance(found, DrawSummary) else None


class OperatorClient(ServiceClient):
    """The service client with the summaries that ``watch`` shows."""

    def __init__(self, http: httpx.Client, retries: Retries = _RETRIES) -> None:
        super().__init__(http, retries)
        self._summaries = SummaryCalls(retries)

    def summarize_room(self, room: str) -> RoomSummary:
        """See :meth:`SummaryCalls.summarize_room`."""
        return drive(self._summaries.summarize_room(room), self._transport.handle)

    def summarize_draw(self, draw: str) -> DrawSummary | None:
        """See :meth:`SummaryCalls.summarize_draw`."""
        return drive(self._summaries.summarize_draw(draw), self._transport.handle)


@contextlib.contextmanager
def connect(host: str, token_file: str, roles: str) -> Iterator[OperatorClient]:
    """Open a client of a service, and close it at the end.

    Args:
        host: Address of the service.
        token_file: File with the token; ``""`` takes it from :data:`TOKEN_VARIABLE`.
        roles: Roles that the token can have, for messages.

    Raises:
        InvalidRequest: The address or the token is invalid, or the token has another role.
    """
    parts = urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidRequest(
            "--host",
            repr(host[:64]) if host else "missing",
            "the address of a service, such as https://booking.example",
        )
    headers = {"authorization": f"Bearer {_token(token_file, roles)}"}
    http = httpx.Client(base_url=host, headers=headers, timeout=_TIMEOUT_S)
    try:
        with OperatorClient(http, _RETRIES) as client:
            yield client
    except ServiceRefused as error:
        if error.kind in ("unauthorized", "forbidden"):
            raise InvalidRequest("the token", str(error), f"one with the role {roles}, valid for the office") from error
        raise


def _token(file: str, roles: str) -> str:
    """Return the token. No option takes it, because every user of the machine can read a command line."""
    if not file:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            raise InvalidRequest(
                "the token", "missing", f"one with the role {roles}, in {TOKEN_VARIABLE} or by --token-file FILE"
            )
        return _checked(token, TOKEN_VARIABLE)
    try:
        with pathlib.Path(file).open("rb") as opened:
            text = opened.read(_TOKEN_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidRequest(
            "--token-file", f"{file} cannot be read: {error.strerror}", "a file with a token"
        ) from None
    return _checked(text.decode("ascii", "replace").strip(), "--token-file")


def _checked(token: str, where: str) -> str:
    if not token or len(token) > _TOKEN_BYTES_MAX or not (token.isascii() and token.isprintable()) or " " in token:
        raise InvalidRequest(where, "not a token", "a token alone: printable characters without spaces")
    return token
