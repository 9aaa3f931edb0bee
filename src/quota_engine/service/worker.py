"""One of several workers: ``python -m quota_engine.service.worker``.

:mod:`quota_engine.service.runner` starts it, writes the socket's number and the configuration to its standard input,
and keeps that pipe open while it supervises the worker.
"""

from __future__ import annotations

__all__ = ["main"]

import os
import pickle
import signal
import socket
import sys
import threading
from typing import Final

from quota_engine.domain.errors import QuotaEngineError
from quota_engine.service.config.settings import ServiceConfig
from quota_engine.service.server import serve

_EXIT_BAD_INPUT: Final = 2


def main() -> int:
    """Serve until a stop signal or the end of the supervising process, and return the exit code."""
    listener, config = pickle.load(sys.stdin.buffer)  # noqa: S301 - the parent process wrote it
    assert isinstance(config, ServiceConfig)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    with socket.socket(fileno=listener) as inherited:
        try:
            return serve(config, inherited)
        except QuotaEngineError as error:
            sys.stderr.write(f"quota-engine: {error}\n")
            return _EXIT_BAD_INPUT


def _stop_with_parent() -> None:
    os.read(0, 1)  # sys.stdin would hold its lock, and block the interpreter's exit
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
