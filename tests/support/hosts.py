"""Hosts that fail: a disk that is full, a network that is cut, a clock that leaps. They need root on Linux."""

from __future__ import annotations

__all__ = ["FullDisk", "MovedClock", "SeparateNetwork"]

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_FAKETIME: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
_BLOCK: Final = b"\0" * 65_536
_numbers = itertools.count(1)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


class FullDisk:
    """A small file system that can be filled.

    Attributes:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        """Take an empty folder."""
        self.folder = folder

    @contextlib.contextmanager
    def mounted(self, size_mb: int) -> Iterator[None]:
        """Mount it with the owner and the mode of the folder. At the end it disappears, with all its files.

        Raises:
            OSError: This process may not mount.
        """
        stat = self.folder.stat()
        options = f"size={size_mb}m,uid={stat.st_uid},gid={stat.st_gid},mode={stat.st_mode & 0o7777:o}"
        _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder))
        try:
            yield
        finally:
            _run("umount", "--lazy", str(self.folder))

    def fill(self) -> None:
        """Write until no byte is left."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(_BLOCK)

    def free(self) -> None:
        """Remove what was written."""
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"


class SeparateNetwork:
    """A network namespace, as another host: connected to this one by one cable.

    Attributes:
        address: The address of the other host.
        launcher: Words in front of a command that runs there.
    """

    def __init__(self) -> None:
        number = next(_numbers)
        self._name = f"qe{os.getpid()}n{number}"
        self._near, self._far = f"q{os.getpid() % 10**7}a{number}", f"q{os.getpid() % 10**7}b{number}"
        subnet = f"10.{213 + number % 40}.{os.getpid() % 256}"
        self._near_address, self.address = f"{subnet}.1", f"{subnet}.2"
        self.launcher = ("ip", "netns", "exec", self._name)

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Create it.

        Raises:
            OSError: This process may not create network namespaces.
        """
        _run("ip", "netns", "add", self._name)
        try:
            _run("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self._name)
            _run("ip", "address", "add", f"{self._near_address}/30", "dev", self._near)
            _run("ip", "-n", self._name, "address", "add", f"{self.address}/30", "dev", self._far)
            _run("ip", "link", "set", self._near, "up")
            _run("ip", "-n", self._name, "link", "set", "lo", "up")
            self.join()
            yield
        finally:
            _run("ip", "netns", "delete", self._name)

    def cut(self) -> None:
        """Pull the cable: packets disappear silently, in both directions."""
        _run("ip", "-n", self._name, "link", "set", self._far, "down")

    def join(self) -> None:
        """Plug the cable in."""
        _run("ip", "-n", self._name, "link", "set", self._far, "up")


class MovedClock:
    """The clock of one process, which can be moved while it runs. Its monotonic clock is right.

    Attributes:
        launcher: Words in front of the command of the process.
    """

    def __init__(self, folder: Path) -> None:
        """Keep the clock's offset in a folder.

        Raises:
            OSError: The library is not installed.
        """
        if not _FAKETIME.exists():
            raise OSError("no libfaketime: install Debian's package libfaketime")
        self._file = folder / "clock"
        self.launcher = (
            "env",
            f"LD_PRELOAD={_FAKETIME}",
            f"FAKETIME_TIMESTAMP_FILE={self._file}",
            "FAKETIME_CACHE_DURATION=1",
            "DONT_FAKE_MONOTONIC=1",
        )
        self.move(0)

    def move(self, hours: int) -> None:
        """Set the clock this many hours ahead of the right time, within a second. A negative number sets it behind."""
        following = self._file.with_suffix(".next")
        following.write_text(f"{hours * 3600:+d}\n")
        following.rename(self._file)
