"""One of several workers: ``python -m quota_engine.service.worker``, started by ``running``, which writes what
it serves to its standard input, and keeps that open for as long as it looks after it.
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
from quota_engine.service.config.settings import Configuration
from quota_engine.service.runner import serve

_BAD_INPUT: Final = 2


def main() -> int:
    """Serve until told to stop, or until nobody looks after this process any more."""
    listener, configuration = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent, by a pipe
    assert isinstance(configuration, Configuration)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    with socket.socket(fileno=listener) as inherited:
        try:
            return serve(configuration, inherited)
        except QuotaEngineError as error:
            sys.stderr.write(f"quota-engine: {error}\n")
            return _BAD_INPUT


def _stop_with_parent() -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock would be held when the interpreter ends
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
