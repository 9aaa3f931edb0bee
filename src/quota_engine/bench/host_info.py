"""Description of the machine, and pinning of client and server to separate cores."""

from __future__ import annotations

__all__ = ["cores_apart", "describe_machine", "pinned", "usable_cores"]

import contextlib
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Collection, Iterator, Mapping
from typing import Any


def cores_apart(allowed: Collection[int], siblings: Mapping[int, Collection[int]]) -> tuple[int, int] | None:
    """Return a core for the client and one for the server, or ``None`` if there is only one.

    Cores that are not ``siblings`` come first, because two threads of one physical core slow each other down.
    """
    ordered = sorted(allowed)
    if len(ordered) < 2:
        return None
    client = ordered[0]
    others = [core for core in ordered[1:] if core not in siblings.get(client, ())]
    return client, (others or ordered[1:])[0]


def usable_cores() -> tuple[int, int] | None:
    """Return :func:`cores_apart` of this process, or ``None`` if the system has no processor affinity."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    return cores_apart(allowed, {core: _siblings(core) for core in allowed})


@contextlib.contextmanager
def pinned(process: int, core: int | None) -> Iterator[bool]:
    """Pin a process to one core in the block, and yield True if that worked.

    Only the main thread of a server is pinned. It runs the commands, and the helper threads must not slow it down.

    Args:
        process: Process id; 0 pins the calling thread and the threads that it starts.
        core: Number of the core; ``None`` pins nothing.
    """
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield False
        return
    try:
        before = os.sched_getaffinity(process)
        os.sched_setaffinity(process, {core})
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):  # The server may have ended.
            os.sched_setaffinity(process, before)


def describe_machine() -> dict[str, Any]:
    """Return the properties of the machine and software that affect the results. None of them identifies a person."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "quota_engine": importlib.metadata.version("quota-engine"),
        "redis_py": _version("redis"),
        "hiredis": _version("hiredis"),
    }


def _siblings(core: int) -> set[int]:
    """Return the logical cores of the same physical core (Linux), or the core alone if they are unknown."""
    try:
        text = pathlib.Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text("ascii")
        found: set[int] = set()
        for part in text.strip().split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    except (OSError, ValueError):
        return {core}
    return found


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
