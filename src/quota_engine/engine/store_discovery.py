"""Find and open the store that a URL names."""

from __future__ import annotations

__all__ = ["identity_key_for", "open_async_store", "open_store", "store_factory"]

import importlib
import importlib.metadata
import os
from typing import Final, TypeVar, cast
from urllib.parse import parse_qsl

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.engine.bounded_store import AsyncTimeoutStore, TimeoutStore
from quota_engine.ports import AsyncStore, Clock, Observable, Observer, Store, StoreFactory, StoreObserver, TimedStore
from quota_engine.workflows.generator_drivers import run, run_async
from quota_engine.workflows.identity_key_check import check_identity_key
from quota_engine.workflows.jobs import check_timeout

StoreT = TypeVar("StoreT")

_BUILT_IN: Final = {"memory": "quota_engine.stores.memory", "sqlite": "quota_engine.stores.sql.sqlite.factory"}
"""Modules of the stores that need no package, by scheme. They are imported when they are used."""


def store_factory(url: str) -> StoreFactory:
    """Return the factory for ``url``: a store that needs no package, or an entry point of ``quota_engine.backends``.

    Raises:
        InvalidRequest: no backend serves the URL's scheme.
        BackendUnavailable: the backend needs a package that is not installed.
    """
    scheme, separator, _ = url.partition("://") if isinstance(url, str) else ("", "", "")
    if separator and scheme in _BUILT_IN:
        return cast("StoreFactory", importlib.import_module(_BUILT_IN[scheme]))
    points = {point.name: point for point in importlib.metadata.entry_points(group="quota_engine.backends")}
    if not separator or scheme not in points:
        known = ", ".join(f"{name}://" for name in sorted({*points, *_BUILT_IN}))
        raise InvalidRequest("url", "no backend serves it", f"one of {known}")
    try:
        return cast("StoreFactory", points[scheme].load())
    except ImportError as error:
        extra = _extra_of(scheme)
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


def open_store(
    factory: StoreFactory,
    url: str,
    clock: Clock | None,
    identity_key: bytes,
    observer: Observer | None = None,
    call_timeout_ms: int | None = None,
) -> Store:
    """Open the store at ``url``, which must have this identity key. It notifies ``observer``.

    Args:
        factory: opens it.
        url: its URL.
        clock: source of the time; ``None`` for the store's own clock.
        identity_key: the identity key.
        observer: is notified of batches and refusals.
        call_timeout_ms: time that a call has, in milliseconds; ``None`` for the store's own setting.

    Raises:
        InvalidRequest: the time is not an integer from 200 to 3,600,000.
        WrongIdentityKey: the store was first opened with another key. It is closed again.
        BackendUnavailable: no server answers there.
    """
    if call_timeout_ms is not None:
        check_timeout(call_timeout_ms, "call_timeout_ms")
    store = _attach_observer(factory.open_store(url, clock), observer)
    if isinstance(store, TimedStore):
        store.call_timeout_ms = call_timeout_ms or store.call_timeout_ms
    elif call_timeout_ms is not None:
        store = TimeoutStore(store, call_timeout_ms)
    try:
        run(check_identity_key(identity_key, _namespace_of(url)), store)
    except BaseException:
        store.close()
        raise
    return store


async def open_async_store(
    factory: StoreFactory,
    url: str,
    clock: Clock | None,
    identity_key: bytes,
    observer: Observer | None = None,
    call_timeout_ms: int | None = None,
) -> AsyncStore:
    """See :func:`open_store`."""
    if call_timeout_ms is not None:
        check_timeout(call_timeout_ms, "call_timeout_ms")
    store = _attach_observer(await factory.open_async_store(url, clock), observer)
    if isinstance(store, TimedStore):
        store.call_timeout_ms = call_timeout_ms or store.call_timeout_ms
    elif call_timeout_ms is not None:
        store = AsyncTimeoutStore(store, call_timeout_ms)
    try:
        await run_async(check_identity_key(identity_key, _namespace_of(url)), store)
    except BaseException:
        await store.close()
        raise
    return store


def _namespace_of(url: str) -> str:
    return dict(parse_qsl(url.partition("?")[2])).get("namespace", "")


def _attach_observer(store: StoreT, observer: Observer | None) -> StoreT:
    """Return the store, which notifies ``observer`` from now on if both support it."""
    if isinstance(observer, StoreObserver) and isinstance(store, Observable):
        store.attach(observer)
    return store


def _extra_of(scheme: str) -> str:
    """Return the extra that brings the packages of a built-in scheme."""
    database = "postgresql" if scheme.startswith("postgres") else "redis"
    if not scheme.endswith("+embedded"):
        return database
    return f"{database}-embedded" if database == "postgresql" else "embedded"
