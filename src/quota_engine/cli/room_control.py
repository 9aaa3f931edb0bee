"""``quota-engine room pace``, ``open`` and ``close``: commands to a waiting room while it runs.

They go to a running service, or directly to the store. The latter needs the configuration of the service, which has the
keys that the seeds of rooms derive from.
"""

from __future__ import annotations

__all__ = ["close_room", "open_room", "pace_room"]

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Protocol

from quota_engine.cli.output import BAD_FINDING, DONE, AsJson, print_json
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.waiting_room.results import RoomStatus

_REASONS = {
    RoomStatus.ROOM_CLOSED: "the room is closed",
    RoomStatus.NOT_OPEN: "it is too early, by the store's clock",
    RoomStatus.CONFLICT: "the room is open already, with another entropy",
    RoomStatus.EPOCH_CHANGED: (
        "its store has failed over, so an earlier opening may be lost; "
        "if the room was open before, use the same entropy; name the present epoch with --epoch"
    ),
    RoomStatus.OVERLOADED: "the store is overloaded; try again",
}


class _Result(Protocol):
    """Result of a command, from the engine's room or a service's."""

    @property
    def status(self) -> RoomStatus: ...


class _View(Protocol):
    """State of a room before it is closed."""

    @property
    def tickets(self) -> int: ...

    @property
    def called_count(self) -> int: ...


class _Room(Protocol):
    """A waiting room of the engine, or of a service."""

    def open(self, entropy: str, *, epoch: int = 0) -> _Result: ...

    def set_pace(self, per_minute_min: int, per_minute_max: int) -> _Result: ...

    def close(self) -> _Result: ...

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
    as_json: AsJson = False,
) -> int:
    """Set the range of tickets that a waiting room calls in a minute.

    Exit code 0: done; 1: the room is closed; 2: bad usage; 3: the service or store cannot be reached.

    Example:  quota-engine room pace december 300 1200 --host URL

    Args:
        room: id of the room.
        per_minute_min: fewest tickets in a minute while people wait and places are left, 1 to 6,000,000.
        per_minute_max: most tickets in a minute, up to 6,000,000.
        host: address of the service.
        token_file: file with the token of an operator; default: the variable QUOTA_ENGINE_TOKEN.
        config: configuration file of the services; the command goes directly to their store, in place of --host.
        as_json: print the result as JSON, and nothing else.
    """
    with _room(room, host, token_file, config) as found:
        changed = found.set_pace(per_minute_min, per_minute_max)
    return _report(
        room, changed, f"calls {per_minute_min:,} to {per_minute_max:,} tickets a minute from now on", as_json
    )


def open_room(
    room: str,
    entropy: str,
    /,
    *,
    epoch: int = 0,
    host: str = "",
    token_file: str = "",
    config: pathlib.Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Open a waiting room that waits for public entropy.

    This cannot be undone, because the entropy decides the order. Exit codes as for ``pace``.

    Example:  quota-engine room open december "the published text" --host URL

    Args:
        room: id of the room.
        entropy: text that the announced source has published, character by character.
        epoch: present epoch of the room, after a failover of its store.
        host: address of the service.
        token_file: file with the token of an operator; default: the variable QUOTA_ENGINE_TOKEN.
        config: configuration file of the services; the command goes directly to their store, in place of --host.
        as_json: print the result as JSON, and nothing else.
    """
    with _room(room, host, token_file, config) as found:
        changed = found.open(entropy, epoch=epoch)
    return _report(room, changed, "is open", as_json)


def close_room(
    room: str,
    /,
    *,
    yes: bool = False,
    host: str = "",
    token_file: str = "",
    config: pathlib.Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Close a waiting room now. Afterwards reservations need no pass, and the room does not open again.

    Exit codes as for ``pace``.

    Example:  quota-engine room close december --yes --host URL

    Args:
        room: id of the room.
        yes: close it; without this the command prints how many people wait, and changes nothing.
        host: address of the service.
        token_file: file with the token of an operator; default: the variable QUOTA_ENGINE_TOKEN.
        config: configuration file of the services; the command goes directly to their store, in place of --host.
        as_json: print the result as JSON, and nothing else.
    """
    with _room(room, host, token_file, config) as found:
        if not yes:
            view = found.view()
            problem = f"missing; {max(0, view.tickets - view.called_count):,} people wait in {room}"
            raise InvalidRequest("--yes", problem, "--yes, to close the room all the same")
        changed = found.close()
    return _report(room, changed, "is closed", as_json)


def _report(room: str, changed: _Result, done: str, as_json: bool) -> int:
    is_done = changed.status is RoomStatus.DONE
    reason = "" if is_done else _REASONS.get(changed.status, changed.status)
    if as_json:
        print_json({"room": room, "ok": is_done, "status": changed.status, "reason": reason})
    else:
        sys.stdout.write(f"{room} {done}\n" if is_done else f"{room} is unchanged: {reason}\n")
    return DONE if is_done else BAD_FINDING


@contextlib.contextmanager
def _room(room: str, host: str, token_file: str, config: pathlib.Path | None) -> Iterator[_Room]:
    if bool(host) == (config is not None):
        problem = "both given" if host else "both missing"
        raise InvalidRequest("--host, --config", problem, "--host URL  of a service, or  --config FILE  for its store")
    if host:
        from quota_engine.cli.service_client import connect

        with connect(host, token_file, "operator") as client:
            yield client.room(room)
        return
    try:
        from quota_engine.service.config.admission_settings import build_admission
        from quota_engine.service.config.settings import load_config
    except ImportError as error:
        raise BackendUnavailable(
            f"--config needs {error.name}, of the extra 'service': pip install 'quota-engine[cli,service]'"
        ) from error
    from quota_engine import QuotaEngine

    settings = load_config(config, os.environ, {}, grants=())
    _, keys = build_admission(settings.admission, settings.ticket_keys, settings.identity_key, None)
    with QuotaEngine.open(
        settings.backend, identity_key=settings.identity_key, catalog=settings.catalog, ticket_keys=keys
    ) as engine:
        yield engine.room(room)
