"""``quota-engine doctor``: check versions, extras, the store and the clock, and say how to repair what is wrong."""

from __future__ import annotations

__all__ = ["Check", "doctor"]

import importlib.metadata
import os
import pathlib
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from quota_engine.cli.output import BAD_FINDING, DONE, AsJson, print_json
from quota_engine.cli.store_access import STORE_VARIABLE
from quota_engine.domain.errors import BackendUnavailable, CatalogError, OutcomeUnknown, QuotaEngineError

Level = Literal["ok", "note", "wrong"]
_PACKAGE: Final = "quota-engine"
_CLOCK_MS_MAX: Final = 1_000
"""Largest difference of two clocks that does no harm. Last moments of requests are a few seconds away."""
_SLOW_MS: Final = 20
_EXTRA: Final = re.compile(r"extra == ['\"]([\w-]+)['\"]")
_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")
_LEAST: Final = re.compile(r">=\s*([\d.]+)")
_MARKS: Final[dict[Level, str]] = {"ok": "ok", "note": "note", "wrong": "WRONG"}


class Check(msgspec.Struct, frozen=True):
    """One thing that was checked.

    Args:
        name: what was checked.
        level: ``ok``; ``note`` for what may be intended; ``wrong``.
        text: what was found.
        remedy: how to repair it; ``""`` if there is nothing to repair.
    """

    name: str
    level: Level
    text: str
    remedy: str = ""


def doctor(backend: str = "", *, config: pathlib.Path | None = None, as_json: AsJson = False) -> int:
    """Check versions, extras, the store, its rights, its clock and its durability.

    It changes no bookings. The line below a finding has its remedy. Exit code 0: nothing is wrong; 1: something
    is.

    Example:  quota-engine doctor --config quota.toml

    Args:
        backend: URL of the store, or address of a service; default: the variable QUOTA_ENGINE_BACKEND.
        config: configuration file of the services to check, and whose store to check.
        as_json: print the result as JSON, and nothing else.
    """
    checks = [_python(), _package(), *_extras(), _encoding()]
    url = backend or os.environ.get(STORE_VARIABLE, "")
    if config is not None:
        checked, configured = _configuration(config)
        checks.append(checked)
        url = backend or configured or url
    checks += list(_store(url)) if url else [Check("store", "note", "not given", _STORE_REMEDY)]
    is_wrong = any(check.level == "wrong" for check in checks)
    if as_json:
        print_json({"ok": not is_wrong, "checks": checks})
    else:
        _print(checks)
    return BAD_FINDING if is_wrong else DONE


_STORE_REMEDY: Final = f"name it: quota-engine doctor URL, {STORE_VARIABLE}, or --config FILE"


def _python() -> Check:
    version = platform.python_version()
    if sys.version_info < (3, 11):  # noqa: UP036 - the check is for a package that was copied into an older Python
        return Check("python", "wrong", version, "install Python 3.11 or newer")
    return Check("python", "ok", f"{version} on {platform.system()}")


def _package() -> Check:
    return Check("quota-engine", "ok", importlib.metadata.version(_PACKAGE))


def _extras() -> Iterator[Check]:
    """Yield a check for each extra: its packages with their versions, or what is missing or too old."""
    extras: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires(_PACKAGE) or ():
        extra = _EXTRA.search(requirement)
        if extra is not None:
            extras.setdefault(extra.group(1), []).append(requirement.partition(";")[0].strip())
    for extra_name, requirements in sorted(extras.items()):
        found, missing, old = [], [], []
        for requirement in requirements:
            name = _NAME.split(requirement, maxsplit=1)[0]
            try:
                version = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                missing.append(name)
                continue
            found.append(f"{name} {version}")
            least = _LEAST.search(requirement)
            if least is not None and _numbers(version) < _numbers(least.group(1)):
                old.append(f"{name} {version} is older than {least.group(1)}")
        remedy = f"pip install --upgrade '{_PACKAGE}[{extra_name}]'"
        if old:
            yield Check(f"extra {extra_name}", "wrong", ", ".join(old), remedy)
        elif missing:
            text = f"not installed: {', '.join(missing)}"
            yield Check(f"extra {extra_name}", "note", text, remedy.replace(" --upgrade", ""))
        else:
            yield Check(f"extra {extra_name}", "ok", ", ".join(found))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _encoding() -> Check:
    encoding = (sys.stdout.encoding or "unknown").lower()
    if encoding.replace("-", "") == "utf8":
        return Check("output", "ok", encoding)
    return Check("output", "note", f"{encoding}, which lacks characters", "set PYTHONIOENCODING=utf-8")


def _configuration(config: pathlib.Path) -> tuple[Check, str]:
    """Check a configuration file, and return its store."""
    name = "configuration"
    try:
        from quota_engine.service.config.settings import load_config
    except ImportError as error:
        remedy = f"pip install '{_PACKAGE}[service]'"
        return Check(name, "wrong", f"cannot be checked without {error.name}", remedy), ""
    try:
        settings = load_config(config, os.environ, {}, grants=())
    except CatalogError as error:
        return Check(name, "wrong", "; ".join(map(str, error.issues)), f"correct {config}, see docs/service.md"), ""
    except QuotaEngineError as error:
        return Check(name, "wrong", str(error), f"correct {config}, see docs/service.md"), ""
    if "tokens" in settings.generated:
        remedy = "add [[tokens]], or each start generates other ones"
        return Check(name, "note", f"{config} has no tokens", remedy), settings.backend
    number = len(settings.grants)
    tokens = f"{number} token{'' if number == 1 else 's'}"
    return Check(name, "ok", f"{config}: {settings.catalog_name}, {tokens}"), settings.backend


def _store(url: str) -> Iterator[Check]:
    """Yield the checks of a store: reachable with all rights, fast, its clock, its durability."""
    if url.startswith(("http://", "https://")):
        yield from _service(url)
        return
    from quota_engine.engine.store_discovery import store_factory
    from quota_engine.ports import ListOffices

    shown = _shown(url)
    folder = pathlib.Path(unquote(urlsplit(url).path))
    if url.startswith(("sqlite:", "valkey+embedded:", "postgresql+embedded:")) and not folder.exists():
        # An opening would make an empty store there.
        yield Check(
            "store", "wrong", f"{shown} does not exist", "correct the path; the first  serve  makes a new store"
        )
        return
    try:
        # An opening checks version, rights and durability of the server.
        store = store_factory(url).open_store(url, None)
    except (BackendUnavailable, OutcomeUnknown) as error:
        problem, _, package = str(error).partition(": pip install ")
        remedy = "start the server, or correct the URL, its user and its rights"
        yield Check("store", "wrong", f"{shown}: {problem}", f"pip install {package}" if package else remedy)
        return
    except QuotaEngineError as error:
        yield Check("store", "wrong", f"{shown}: {error}", "correct the URL, see docs/backends.md")
        return
    try:
        started_s = time.perf_counter()
        offices = store.execute(ListOffices())
        took_ms = (time.perf_counter() - started_s) * 1_000
        number = f"{len(offices)} office{'' if len(offices) == 1 else 's'}"
        text = f"{shown}: {number}, answers in {took_ms:.1f} ms"
        if took_ms > _SLOW_MS:
            yield Check("store", "note", text, "move the processes nearer to the store, or look at its load")
        else:
            yield Check("store", "ok", text)
        yield from _clock(_time_reader(url, store))
        yield _durability(url)
    except (BackendUnavailable, OutcomeUnknown) as error:
        yield Check("store", "wrong", f"{shown}: {error}", "look at the server's log and its rights")
    finally:
        store.close()


def _service(url: str) -> Iterator[Check]:
    try:
        import httpx
    except ImportError:
        yield Check("service", "wrong", "cannot be asked without httpx", f"pip install '{_PACKAGE}[client]'")
        return
    from quota_engine.api_schema.headers import TIME_HEADER

    try:
        response = httpx.get(f"{url.rstrip('/')}/health/ready", timeout=10)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield Check("service", "wrong", f"{url}: {error}", "start the service, or correct the address")
        return
    if response.status_code == 200:
        yield Check("service", "ok", f"{url} is ready")
    else:
        yield Check(
            "service", "wrong", f"{url} answers {response.status_code}", "read the service's log; is its store up?"
        )
    stated = response.headers.get(TIME_HEADER, "")
    if stated.isascii() and stated.isdigit():
        yield from _clock(lambda: int(stated))


def _time_reader(url: str, store: object) -> Callable[[], int] | None:
    """Return a function that reads the store's clock, or ``None`` if the store has this machine's."""
    if url.startswith("postgres"):
        if "+embedded" in url:
            return None
        from quota_engine.stores.sql.postgresql.administration import read_server_time_ms

        return lambda: read_server_time_ms(url)
    return getattr(store, "read_server_time_ms", None)


def _clock(read: Callable[[], int] | None) -> Iterator[Check]:
    """Yield the difference of the store's clock to this machine's, less half of the way there and back."""
    if read is None:
        yield Check("clock", "ok", "the store has the clock of this machine")
        return
    before_ms = time.time_ns() / 1e6
    server_ms = read()
    after_ms = time.time_ns() / 1e6
    difference_ms = round(server_ms - (before_ms + after_ms) / 2)
    if abs(difference_ms) > _CLOCK_MS_MAX + (after_ms - before_ms):
        side = "ahead of" if difference_ms > 0 else "behind"
        text = f"the server is {abs(difference_ms):,} ms {side} this machine"
        yield Check("clock", "wrong", text, "set both clocks by NTP (chronyd or systemd-timesyncd)")
    else:
        yield Check("clock", "ok", f"the server differs by {difference_ms:+,} ms")


def _durability(url: str) -> Check:
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query)).get("durability", "")
    scheme = parts.scheme.partition("+")[0]
    if scheme == "memory":
        return Check("durability", "note", "memory://: all is lost at the end of the process", "use sqlite:///FILE")
    if scheme in ("redis", "rediss", "unix") and given in ("", "memory"):
        remedy = "durability=fsync in the URL, and appendfsync always in the server"
        return Check("durability", "note", "memory: a crash of the server can lose confirmed places", remedy)
    if given == "memory":
        remedy = "leave durability=memory out of the URL"
        return Check("durability", "note", "memory: a crash of the server can lose confirmed places", remedy)
    return Check("durability", "ok", given or "fsync")


def _shown(url: str) -> str:
    """Return a URL without its user, password and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _print(checks: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "note": "yellow", "wrong": "bold red"}
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    for check in checks:
        table.add_row(Text(_MARKS[check.level], style=styles[check.level]), Text(check.name), Text(check.text))
        if check.remedy:
            table.add_row("", "", Text(f"-> {check.remedy}"))
    console = Console()
    console.print(table)
    wrong = sum(check.level == "wrong" for check in checks)
    console.print(f"{wrong} wrong" if wrong else "nothing is wrong", highlight=False)
