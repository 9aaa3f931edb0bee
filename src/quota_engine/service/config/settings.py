"""How the service is set up: a file, the environment, and the command line, the later before the earlier."""

from __future__ import annotations

__all__ = ["ENVIRONMENT", "Configuration", "Secret", "Settings", "configure", "made_up_grants"]

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from quota_engine.admission import Policy
from quota_engine.catalog import IssueCollector, load_catalog, read_raw
from quota_engine.catalog.resolved import Catalog
from quota_engine.catalog.schema_conversion import convert_leniently
from quota_engine.domain.errors import CatalogError, ValidationIssue
from quota_engine.service.auth import Grant, Role
from quota_engine.service.background.room_supervisor import WaitingRooms
from quota_engine.service.config.admission_settings import (
    POLICIES_MAX,
    SECRET_EXPECTED,
    AdmissionTable,
    TicketKeysTable,
    TicketSecrets,
    WaitingRoomsTable,
    policies_of,
    rooms_of,
    secret_of,
    secrets_of,
)
from quota_engine.service.http.endpoint import Limits

ENVIRONMENT: Final = {
    "QUOTA_ENGINE_BACKEND": "backend",
    "QUOTA_ENGINE_CATALOG": "catalog",
    "QUOTA_ENGINE_IDENTITY_KEY": "identity_key",
    "QUOTA_ENGINE_HOST": "host",
    "QUOTA_ENGINE_PORT": "port",
    "QUOTA_ENGINE_WORKERS": "workers",
}
"""Variables that stand in for settings of the file."""
_EMBEDDED: Final = "valkey+embedded://"


class TokenSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bearer token, by its SHA-256: ``printf %s TOKEN | sha256sum``."""

    name: Annotated[str, msgspec.Meta(pattern="[A-Za-z0-9_-]{1,64}")]
    role: Role
    sha256: Annotated[str, msgspec.Meta(pattern="[0-9a-f]{64}", description="64 hex digits: a token's SHA-256")]
    offices: tuple[str, ...] = ()


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request may be at most."""

    body_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=1 << 20)] = 65_536
    header_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=1 << 16)] = 16_384
    header_timeout_ms: Annotated[int, msgspec.Meta(ge=10, le=600_000)] = 10_000
    body_timeout_ms: Annotated[int, msgspec.Meta(ge=10, le=600_000)] = 10_000
    write_timeout_ms: Annotated[int, msgspec.Meta(ge=10, le=600_000)] = 20_000
    streams_max: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 5_000
    stream_life_ms: Annotated[int, msgspec.Meta(ge=100, le=86_400_000)] = 600_000
    requests_max: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 500


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file: every key has a default."""

    backend: str = "valkey+embedded://"
    """The store's URL. Without a directory the embedded server keeps its data in ``./quota-engine-data``."""
    catalog: str = "surabaya"
    """A catalog file, or one that comes with the package."""
    identity_key: str = ""
    """The secret that turns identities into keyed hashes: base64 of 16 to 64 bytes."""
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8000
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    publish_days: Annotated[int, msgspec.Meta(ge=0, le=366)] = 30
    """At its start the service makes this many days from today on known; 0: somebody else does."""
    drain_ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)] = 0
    """How long it goes on serving after it was told to stop, while it says that it is not ready."""
    staging: bool = False
    """Says in every answer (``X-Quota-Engine-Staging: true``) that this is no place to book for real."""
    tokens: tuple[TokenSettings, ...] = ()
    limits: LimitSettings = LimitSettings()
    admission: Annotated[tuple[AdmissionTable, ...], msgspec.Meta(max_length=POLICIES_MAX)] = ()
    """Token buckets in front of every reserve, asked in this order."""
    waiting_rooms: WaitingRoomsTable | None = None
    ticket_keys: TicketKeysTable | None = None
    """What tickets and passes are signed with; left out, a key that comes from the identity key."""


class Secret(bytes):
    """Bytes that are not shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(...)"


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What the service runs with: the settings, checked and put together."""

    backend: str
    catalog_name: str
    catalog: Catalog
    identity_key: Secret
    host: str
    port: int
    workers: int
    publish_days: int
    drain_ms: int
    staging: bool
    grants: tuple[Grant, ...]
    limits: Limits
    admission: tuple[Policy, ...] = ()
    waiting_rooms: WaitingRooms | None = None
    ticket_keys: TicketSecrets | None = None
    made_up: tuple[str, ...] = ()
    """What nobody configured, and is made up for this run: to be said when the service starts."""


def configure(
    file: Path | None,
    environment: Mapping[str, str],
    options: Mapping[str, Any],
    *,
    grants: tuple[Grant, ...],
) -> Configuration:
    """Put file, environment and options (of the command line, ``None`` for what was not given) together.

    ``grants`` stand in if the file has no tokens. Without an identity key, ``memory://`` gets one made up, and an
    embedded store keeps its own beside its data; any other store has to be given one.

    Raises :class:`CatalogError` with every mistake; each names the file (or the variable, or the option) and the key.
    """
    collector = IssueCollector(str(file) if file else "configuration")
    raw = read_raw(file, collector) if file else {}
    if collector.issues():
        raise CatalogError(tuple(collector.issues()))
    settings = convert_leniently(raw, Settings, collector)
    mistakes = collector.issues()
    for given, source in (
        ({name: environment[variable] for variable, name in ENVIRONMENT.items() if environment.get(variable)}, "env"),
        ({name: value for name, value in options.items() if value is not None}, "option"),
    ):
        settings = _with(settings, given, source, mistakes)
    made_up: list[str] = []
    backend = settings.backend
    if backend == _EMBEDDED:
        backend += str(Path("quota-engine-data").resolve())
    if backend.startswith("memory://") and settings.workers > 1:
        # Each process would have places of its own, and all of them together sell too many.
        expected = "1, or a store that processes can share, such as valkey+embedded:///dir"
        mistakes.append(
            ValidationIssue(collector.file, "workers", f"{settings.workers} with the backend memory://", expected)
        )
    key = _key(settings.identity_key, backend, collector.file, mistakes)
    found = tuple(Grant(one.name, one.role, one.sha256, one.offices) for one in settings.tokens)
    names = [grant.name for grant in found]
    mistakes += [
        ValidationIssue(collector.file, f"tokens[{index}].name", repr(name), "names that are unique")
        for index, name in enumerate(names)
        if name in names[:index]
    ]
    if not found:
        found = grants
        made_up.append("tokens")
    ticket_keys = secrets_of(settings.ticket_keys, collector.file, mistakes)
    if mistakes:
        raise CatalogError(tuple(mistakes))
    catalog = load_catalog(_beside(file, settings.catalog))
    mistakes = [
        ValidationIssue(collector.file, f"tokens[{index}].offices", repr(office), f"offices of {settings.catalog}")
        for index, token in enumerate(settings.tokens)
        for office in token.offices
        if office not in catalog.offices
    ]
    admission = policies_of(settings.admission, catalog, collector.file, mistakes)
    waiting_rooms = rooms_of(settings.waiting_rooms, catalog, collector.file, mistakes)
    if mistakes:
        raise CatalogError(tuple(mistakes))
    return Configuration(
        backend=backend,
        catalog_name=settings.catalog,
        catalog=catalog,
        identity_key=Secret(key),
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        publish_days=settings.publish_days,
        drain_ms=settings.drain_ms,
        staging=settings.staging,
        grants=found,
        limits=Limits(**msgspec.structs.asdict(settings.limits)),
        admission=admission,
        waiting_rooms=waiting_rooms,
        ticket_keys=ticket_keys,
        made_up=tuple(made_up),
    )


def _with(settings: Settings, given: Mapping[str, Any], source: str, mistakes: list[ValidationIssue]) -> Settings:
    """The settings with what the environment or the command line changes; each value is checked as the file's is."""
    variables = {name: variable for variable, name in ENVIRONMENT.items()}
    for name, value in given.items():
        named = variables[name] if source == "env" else f"--{name.replace('_', '-')}"
        if isinstance(value, str) and isinstance(getattr(settings, name), int):
            value = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value
        collector = IssueCollector(named)
        changed = convert_leniently({name: value}, Settings, collector)
        found = collector.issues()
        mistakes += found
        if not found:
            settings = msgspec.structs.replace(settings, **{name: getattr(changed, name)})
    return settings


def _beside(file: Path | None, name: str) -> str:
    """A catalog's file is named relative to the configuration's."""
    beside = file.parent / name if file is not None else Path(name)
    return str(beside) if beside.is_file() else name


def _key(text: str, backend: str, file: str, mistakes: list[ValidationIssue]) -> bytes:
    if not text:
        if backend == "memory://":
            return os.urandom(32)
        if backend.startswith(_EMBEDDED):
            return _kept_key(Path(backend.removeprefix(_EMBEDDED).partition("?")[0]))
        mistakes.append(ValidationIssue(file, "identity_key", "missing", SECRET_EXPECTED))
        return b""
    key = secret_of(text)
    if not key:
        mistakes.append(ValidationIssue(file, "identity_key", "not shown", SECRET_EXPECTED))
    return key


def _kept_key(directory: Path) -> bytes:
    """The identity key of an embedded store: made once, and kept beside the data, for its owner only. Without it
    nobody in the store would be known again.
    """
    path = directory / "identity.key"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = os.urandom(32)
    # Written whole under another name first: two that start together must not find half of it.
    draft = directory / f"identity.key.{os.getpid()}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(key)
    try:
        os.link(draft, path)
    except FileExistsError:
        return path.read_bytes()
    finally:
        draft.unlink()
    return key


def made_up_grants(tokens: Mapping[Role, str]) -> tuple[Grant, ...]:
    """Grants for tokens that were made up for a run that nobody configured."""
    return tuple(Grant(role, role, hashlib.sha256(token.encode()).hexdigest()) for role, token in tokens.items())
