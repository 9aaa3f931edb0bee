"""Repairs in the child process after ``os.fork``.

A child inherits locks that a thread of its parent may hold forever, and sockets that its parent still reads. An object
with locks or connections registers a method here, which makes them new in the child, or makes the object refuse calls.
"""

from __future__ import annotations

__all__ = ["call_in_child"]

import os
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any, cast

_methods: dict[weakref.ref[Any], Callable[[Any], None]] = {}
"""The method of each object, in the order of registration.

``weakref.WeakMethod`` would do, but its callback writes an error when the interpreter exits with the object alive.
"""


def call_in_child(method: Callable[[], None]) -> None:
    """Call a bound method in each child process, before any other code of the child runs.

    Methods run in the order of their registration. The object is not kept alive.

    Args:
        method: a bound method that takes no locks.
    """
    bound = cast("MethodType", method)
    _methods[weakref.ref(bound.__self__, _forget)] = bound.__func__


def _forget(reference: weakref.ref[Any], methods: dict[weakref.ref[Any], Callable[[Any], None]] = _methods) -> None:
    methods.pop(reference, None)


def _repair() -> None:
    for reference, method in tuple(_methods.items()):
        owner = reference()
        if owner is not None:
            method(owner)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_repair)
