"""HTTP client of the target as an operator or auditor uses it: sequential calls, standard library only."""

from __future__ import annotations

__all__ = ["STAGING_HEADER", "TargetClient", "TargetError", "check_target"]

import datetime
import http.client
import ipaddress
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from quota_engine import typed_data
from quota_engine.domain.errors import QuotaEngineError
from quota_engine.loadtest.plan import PlanError
from quota_engine.method_binding import SyncResource

STAGING_HEADER: Final = "x-quota-engine-staging"
_EVENTS_MAX: Final = 1000
_TRIES_MAX: Final = 3


class TargetError(QuotaEngineError):
    """A failed call to the target; the text has the call and the target's reason."""


class TargetClient(SyncResource):
    """Calls the target at ``url`` with ``token`` over one connection, which the first call opens."""

    def __init__(self, url: str, token: str, timeout_s: float = 60.0) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PlanError(f"--host {url!r} is no address such as http://127.0.0.1:8000")
        self.url = url.rstrip("/")
        self.name = parts.hostname
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout_s)
        self._path = parts.path.rstrip("/")
        self._token = token
        self.is_staging = False

    def close(self) -> None:
        """Close the connection. A later call opens it again."""
        self._connection.close()

    def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Return the status and the decoded body of a response.

        Raises:
            TargetError: no response after three tries.
        """
        status, found = self._exchange(method, path, body, headers)
        try:
            return status, typed_data.decode_json(found) if found else None
        except msgspec.DecodeError:
            return status, None

    def file(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            TargetError: the file does not exist, or no response came.
        """
        status, found = self._exchange("GET", path)
        if status != http.HTTPStatus.OK:
            raise TargetError(f"GET {path}: {status}")
        return found

    def _exchange(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send a request, again if no response came: every call here may be repeated without harm."""
        content = None if body is None else msgspec.json.encode(body)
        sent = {"authorization": f"Bearer {self._token}"} if self._token else {}
        if content is not None:
            sent["content-type"] = "application/json"
        for number in range(_TRIES_MAX):
            try:
                self._connection.request(method, self._path + path, content, {**sent, **(headers or {})})
                answer = self._connection.getresponse()
                found = answer.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if number == _TRIES_MAX - 1:
                    raise TargetError(f"{method} {path}: no answer ({type(error).__name__})") from None
        self.is_staging = answer.getheader(STAGING_HEADER, "").lower() == "true"
        return answer.status, found

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the decoded body of a successful response.

        Raises:
            TargetError: any other response, or none.
        """
        status, found = self.call(method, path, body)
        if status >= 400 or found is None:
            detail = found.get("detail", "") if isinstance(found, dict) else "an unknown body"
            raise TargetError(f"{method} {path}: {status} {detail}")
        return found

    def offices(self) -> list[dict[str, Any]]:
        """Return the offices of the target's catalog."""
        found: list[dict[str, Any]] = self.ask("GET", "/v1/offices")["offices"]
        return found

    def availability(self, office: str, first: datetime.date, last: datetime.date) -> list[dict[str, Any]]:
        """Return the days of an office from ``first`` to ``last`` with their counters."""
        path = f"/v1/offices/{office}/availability?first_day={first}&last_day={last}"
        found: list[dict[str, Any]] = self.ask("GET", path)["days"]
        return found

    def audit(self) -> list[str]:
        """Return the findings of the target's audit."""
        found: list[str] = self.ask("GET", "/v1/audit")["findings"]
        return found

    def events(self, office: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the events of an office with numbers above ``after``, in order."""
        while True:
            page = self.ask("GET", f"/v1/offices/{office}/events?after={after}&limit={_EVENTS_MAX}")
            yield from page["events"]
            if len(page["events"]) < _EVENTS_MAX:
                return
            after = page["next_after"]

    def last_event(self, office: str) -> int:
        """Return the number of an office's last event, 0 without events."""
        number = 0
        for event in self.events(office):
            number = event["number"]
        return number


def check_target(host: TargetClient, *, force: bool, remote: bool) -> None:
    """Check that a load test may use the target.

    Args:
        host: the target.
        force: accept a target that does not say that it is a staging service.
        remote: accept a target on another machine.

    Raises:
        PlanError: the target is none of these.
        TargetError: the target does not respond.
    """
    if not remote and not _is_this_machine(host.name):
        raise PlanError(f"{host.name} is another machine: --remote allows that")
    host.ask("GET", "/v1/offices")
    if not host.is_staging and not force:
        raise PlanError(
            f"{host.url} does not say that it is a staging (X-Quota-Engine-Staging: true in each answer, as "
            "`quota-engine serve --staging` gives): a load test takes places away from people. --force goes without."
        )


def _is_this_machine(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
