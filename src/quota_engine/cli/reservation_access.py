"""Access to single reservations: through a service, or in a store with the identity key and the catalog."""

from __future__ import annotations

__all__ = ["Access", "ReservationClient", "find_key", "open_access", "split_store"]

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from quota_engine.catalog import Catalog, load_catalog
from quota_engine.cli.store_access import STORE_VARIABLE, open_store
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.domain.identity_key import IdentityKey, decode_identity_key

if TYPE_CHECKING:
    from quota_engine.domain.model import Reservation
    from quota_engine.domain.outcomes import Outcome, WaitListPosition
    from quota_engine.workflows.arguments import Day

_KEY_VARIABLE: Final = "QUOTA_ENGINE_IDENTITY_KEY"
_CATALOG_VARIABLE: Final = "QUOTA_ENGINE_CATALOG"


class ReservationClient(Protocol):
    """Methods of an engine, or of a service's client."""

    def lookup(self, reference: str) -> Reservation | None: ...

    def wait_list_position(self, reference: str) -> WaitListPosition | None: ...

    def find_moved(self, reference: str) -> str: ...

    def extend(
        self, reference: str, extension: int, *, owner: str | None = None, expected_version: int = 0
    ) -> Outcome: ...

    def decline(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Outcome: ...

    def cancel(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Outcome: ...

    def reschedule(
        self,
        reference: str,
        day: Day,
        *,
        office: str = "",
        service: str = "",
        service_unit: str = "",
        session: str = "",
        channel: str = "online",
        group: str = "",
        owner: str | None = None,
        expected_version: int = 0,
    ) -> Outcome: ...

    def remove_applicant(
        self, reference: str, applicant: str, *, owner: str | None = None, expected_version: int = 0
    ) -> Outcome: ...

    def replace_applicant(
        self, reference: str, applicant: str, replacement: str, *, expected_version: int = 0
    ) -> Outcome: ...


class Access(NamedTuple):
    """The methods, and the catalog if it is known."""

    methods: ReservationClient
    catalog: Catalog | None


def split_store(store: str, reference: str, config: pathlib.Path | None) -> tuple[str, str]:
    """Return store and reference. STORE may be left out if a variable or ``--config`` has it.

    Raises:
        InvalidRequest: there is no reference, or no store.
    """
    if not reference and "://" not in store:
        store, reference = "", store
    if not reference:
        raise InvalidRequest("REFERENCE", "missing", "a reference such as surabaya~9f2c, after STORE")
    if store and "://" not in store:
        expected = "the URL of a store or a service, then the reference; identities come from standard input"
        raise InvalidRequest("STORE", "not a URL", expected)
    if not store and config is None and not os.environ.get(STORE_VARIABLE):
        expected = f"the URL of a store or a service before the reference, {STORE_VARIABLE}, or --config FILE"
        raise InvalidRequest("STORE", "missing", expected)
    return store, reference


@contextlib.contextmanager
def open_access(
    store: str, *, changes: bool, catalog: str = "", config: pathlib.Path | None = None, token_file: str = ""
) -> Iterator[Access]:
    """Open a store or a service, and close it at the end.

    Args:
        store: URL of a store, or ``http://`` or ``https://`` address of a service; ``""`` as for the other commands.
        changes: true if the command changes something. In a store this needs the identity key and the catalog.
        catalog: a built-in catalog or a catalog file.
        config: configuration file of the services, with store, catalog and key.
        token_file: file with the token for a service.

    Raises:
        InvalidRequest: store, key, catalog or token are missing or wrong.
        BackendUnavailable: no store or service answers there.
    """
    if store.startswith(("http://", "https://")):
        from quota_engine.cli.service_client import connect

        with connect(store, token_file, "operator") as client:
            yield Access(client, None)
        return
    from quota_engine.engine.quota_engine import QuotaEngine
    from quota_engine.workflows.generator_drivers import run
    from quota_engine.workflows.identity_key_check import check_identity_key
    from quota_engine.workflows.request_builder import RequestBuilder

    key, found = b"", _catalog(catalog)
    if config is not None:
        store, key, found = _configured(config, store, found)
    elif changes:
        key = _key_of_environment()
        if found is None:
            expected = f"the catalog of this store, in --catalog, {_CATALOG_VARIABLE} or --config FILE"
            raise InvalidRequest("--catalog", "missing", expected)
    with open_store(store) as opened:
        if changes:
            run(check_identity_key(key), opened)
        # A command that only reads hashes no identity, so any key does.
        yield Access(QuotaEngine(opened, RequestBuilder(key or os.urandom(32), found)), found)


def find_key(store: str, config: pathlib.Path | None) -> tuple[str, IdentityKey]:
    """Return the store and the identity key of a configuration file, or those of the arguments and the environment.

    Args:
        store: URL of a store; ``""`` for that of the configuration file, or for none.
        config: configuration file of the services; ``None`` takes the key from the environment.

    Raises:
        InvalidRequest: the key is missing or unusable.
        BackendUnavailable: the configuration file needs the extra ``service``.
    """
    if config is None:
        return store, _key_of_environment()
    store, key, _ = _configured(config, store, None)
    return store, key


def _key_of_environment() -> IdentityKey:
    return decode_identity_key(os.environ.get(_KEY_VARIABLE, ""), f"{_KEY_VARIABLE} (or --config FILE)")


def _catalog(name: str) -> Catalog | None:
    name = name or os.environ.get(_CATALOG_VARIABLE, "")
    return load_catalog(name) if name else None


def _configured(config: pathlib.Path, store: str, catalog: Catalog | None) -> tuple[str, IdentityKey, Catalog]:
    try:
        from quota_engine.service.config.settings import load_config
    except ImportError as error:
        raise BackendUnavailable(
            f"--config needs {error.name}, of the extra 'service': pip install 'quota-engine[cli,service]'"
        ) from error
    settings = load_config(config, os.environ, {"backend": store} if store else {}, grants=())
    return settings.backend, settings.identity_key, catalog or settings.catalog
