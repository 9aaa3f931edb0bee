"""Repairs in the child process after ``os.fork``.

A child inherits locks that a thread of its parent may hold forever, and sockets that its parent still reads. An object
with locks or connections registers a method here, which makes them new in the child, or makes the object refuse calls.
"""

from __future__ import annotations

__all__ = ["call_in_child"]

import os
import weakref
from collections.abc import Callable

_methods: list[weakref.WeakMethod[Callable[[], None]]] = []


def call_in_child(method: Callable[[], None]) -> None:
    """Call a bound method in each child process, before any other code of the child runs.

    Methods run in the order of their registration. The object is not kept alive.

    Args:
        method: a bound method that takes no locks.
    """
    _methods.append(weakref.WeakMethod(method, _methods.remove))


def _repair() -> None:
    for reference in tuple(_methods):
        method = reference()
        if method is not None:
            method()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_repair)
