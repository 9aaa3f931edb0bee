"""``quota-engine room pace``, ``open`` and ``close``: what operators tell a waiting room while it runs.

Orders go to a running service, or straight to the store, with the configuration of the service: it has the keys that a
room's seeds come from.
"""

from __future__ import annotations

__all__ = ["close_room", "open_room", "pace_room"]

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Protocol

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.waiting_room.machine import RoomStatus

_DONE, _REFUSED = 0, 1
_WHY = {
    RoomStatus.ROOM_CLOSED: "the room has ended",
    RoomStatus.NOT_OPEN: "it is too early, by the store's clock",
    RoomStatus.CONFLICT: "it was opened already, with something else",
    RoomStatus.OVERLOADED: "the store has too much to do: try again",
}


class _Changed(Protocol):
    """What came of an order: of the engine's room, or a service's."""

    @property
    def status(self) -> RoomStatus: ...


class _View(Protocol):
    """What is asked of a room before it is closed."""

    @property
    def tickets(self) -> int: ...

    @property
    def called_count(self) -> int: ...


class _Room(Protocol):
    """A waiting room of the engine, or of a service."""

    def open(self, entropy: str) -> _Changed: ...

    def set_pace(self, per_minute_min: int, per_minute_max: int) -> _Changed: ...

    def close(self) -> _Changed: ...

    def view(self) -> _View: ...


def pace_room(
    room: str,
    per_minute_min: int,
    per_minute_max: int,
    /,
    *,
    host: str = "",
    token_file: str = "",
    config: pathlib.Path | None = None,
) -> int:
    """Let a waiting room call between so many and so many people a minute, from now on.

    Exit code 0: done; 1: the room has ended; 2: bad usage; 3: the service or the store was not reached.

    Args:
        room: the room's id.
        per_minute_min: never slower than this, as long as there are people and places: 1 to 6,000,000.
        per_minute_max: never faster than this.
        host: the address of the service; the token, of an operator, is in QUOTA_ENGINE_TOKEN or the token file.
        token_file: a file with the token, and nothing else.
        config: instead of a service, the store: by the configuration file of its services.
    """
    with _room(room, host, token_file, config) as found:
        changed = found.set_pace(per_minute_min, per_minute_max)
    return _told(room, changed, f"calls between {per_minute_min:,} and {per_minute_max:,} people a minute from now on")


def open_room(
    room: str, entropy: str, /, *, host: str = "", token_file: str = "", config: pathlib.Path | None = None
) -> int:
    """Open a waiting room that was made with a public source of chance, with what that has said.

    It can not be taken back: the entropy decides the order. Exit codes as with ``pace``.

    Args:
        room: the room's id.
        entropy: what the source has said, to the letter.
        host: the address of the service; the token, of an operator, is in QUOTA_ENGINE_TOKEN or the token file.
        token_file: a file with the token, and nothing else.
        config: instead of a service, the store: by the configuration file of its services.
    """
    with _room(room, host, token_file, config) as found:
        changed = found.open(entropy)
    return _told(room, changed, "is open")


def close_room(
    room: str,
    /,
    *,
    yes: bool = False,
    host: str = "",
    token_file: str = "",
    config: pathlib.Path | None = None,
) -> int:
    """End a waiting room now, for all at once. Afterwards nobody needs a pass, and the room does not open again.

    Exit codes as with ``pace``.

    Args:
        room: the room's id.
        yes: really; otherwise it is only said how many wait.
        host: the address of the service; the token, of an operator, is in QUOTA_ENGINE_TOKEN or the token file.
        token_file: a file with the token, and nothing else.
        config: instead of a service, the store: by the configuration file of its services.
    """
    with _room(room, host, token_file, config) as found:
        if not yes:
            view = found.view()
            problem = f"{max(0, view.tickets - view.called_count):,} people wait in {room}, and would wait for nothing"
            raise InvalidRequest("--yes", problem, "--yes, if it is to end all the same")
        changed = found.close()
    return _told(room, changed, "has ended")


def _told(room: str, changed: _Changed, done: str) -> int:
    if changed.status is RoomStatus.DONE:
        sys.stdout.write(f"{room} {done}\n")
        return _DONE
    why = _WHY.get(changed.status)
    sys.stdout.write(f"{room}: nothing was changed: {why or changed.status}\n")
    return _REFUSED


@contextlib.contextmanager
def _room(room: str, host: str, token_file: str, config: pathlib.Path | None) -> Iterator[_Room]:
    if bool(host) == (config is not None):
        problem = "both" if host else "neither"
        raise InvalidRequest("--host, --config", problem, "--host URL  of a service, or  --config FILE  for its store")
    if host:
        from quota_engine.cli.service_client import connected

        with connected(host, token_file, "operator") as client:
            yield client.room(room)
        return
    try:
        from quota_engine.service.config.admission_settings import build_admission
        from quota_engine.service.config.settings import load_config
    except ImportError as error:
        raise BackendUnavailable(
            f"a configuration needs {error.name}, of the extra 'service': pip install 'quota-engine[cli,service]'"
        ) from error
    from quota_engine import QuotaEngine

    settings = load_config(config, os.environ, {}, grants=())
    _, keys = build_admission(settings.admission, settings.ticket_keys, settings.identity_key, None)
    key = bytes(settings.identity_key)
    with QuotaEngine.open(settings.backend, identity_key=key, catalog=settings.catalog, ticket_keys=keys) as engine:
        yield engine.room(room)
