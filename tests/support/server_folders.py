"""The folder in which the servers of a test run keep their files. All workers of the run share it."""

from __future__ import annotations

__all__ = ["make_directory", "pytest_configure", "shared_folder"]

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import pytest

_VARIABLE: Final = "QUOTA_ENGINE_TEST_SERVERS"
"""The environment variable by which workers, and processes that tests start, know the folder."""
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a directory in it
_FREE_BYTES_MIN: Final = 4 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder, and remove it at the end of the run.

    It is in memory if the system has room there. A synchronized write then takes no time. The end of a server loses
    the same as on a disk; only the end of the machine would lose more.
    """
    if _VARIABLE in os.environ:
        return
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _FREE_BYTES_MIN
    folder = Path(tempfile.mkdtemp(prefix="tests-", dir=_MEMORY if in_memory else None))
    folder.chmod(0o711)  # PostgreSQL runs as another user if this process is root
    os.environ[_VARIABLE] = str(folder)
    config.add_cleanup(lambda: _remove(folder))


def _remove(folder: Path) -> None:
    os.environ.pop(_VARIABLE, None)
    shutil.rmtree(folder, ignore_errors=True)


def shared_folder() -> Path | None:
    """Return the folder, or ``None`` outside a test run."""
    folder = os.environ.get(_VARIABLE)
    return Path(folder) if folder else None


def make_directory(prefix: str) -> Path:
    """Make a directory for one server, in the folder or, outside a test run, among the temporary files."""
    return Path(tempfile.mkdtemp(prefix=prefix, dir=shared_folder()))
