"""The meaning of PostgreSQL's errors: what was done, what may be tried again, and the next step.

``docs/postgresql.md`` has the table; each of its rows is a test against a real server.
"""

from __future__ import annotations

__all__ = ["AnswerTimedOut", "ConnectionLost", "StatementFailed", "classify", "classify_connect"]

from typing import Final

import psycopg

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.stores.sql.steps import CommitUnknown, NotStarted, RolledBack

_FINAL: Final = {
    "28P01": "the server rejected the password; correct the password in the URL",
    "28000": "the server rejected the login; check the role and pg_hba.conf",
    "3D000": "the database does not exist; create it, or correct the name in the URL",
    "42501": "the role lacks a right; `quota-engine store init --dry-run --grant-to ROLE` prints the rights",
    "42P01": "a table of the store is missing; `quota-engine store init` makes it",
    "3F000": "the schema of the store is missing; `quota-engine store init` makes it",
    "42703": "a column of the store is missing: its tables are of another version; upgrade quota_engine everywhere",
}
"""Errors that another attempt meets again, and the next step."""
_RETRIED: Final = {
    "40001": "the server could not serialize the transaction",
    "40P01": "the transaction was in a deadlock",
    "55P03": "the lock was not granted in time (lock_timeout_ms)",
    "57014": "the server canceled the statement (statement_timeout_ms)",
    "25P03": "the server ended the idle transaction",
    "25P04": "the server ended the long transaction",
    "25006": "the server is read-only: it is a standby, or was demoted",
    "53100": "the server's disk is full",
    "53200": "the server is out of memory",
    "26000": "a prepared statement is missing: a pooler gave the connection to another session",
    "42P05": "a prepared statement exists already: a pooler gave the connection of another session",
    "0A000": "a prepared statement has a plan of older tables",
}
"""Errors of a transaction that is undone, where another attempt may succeed."""
_UNREACHED: Final = {
    "57P01": "the server shuts down",
    "57P02": "the server restarts after a crash",
    "57P03": "the server is starting, stopping or recovering",
    "53300": "the server has no connection left; lower connections_max, or raise max_connections",
    "25006": "the server is read-only: no host of the URL takes writes",
}
"""Errors at the start of a connection, where another attempt may succeed."""

_TLS: Final = {
    "certificate verify failed": "the server's certificate is not of an authority in sslrootcert; correct sslrootcert",
    "root certificate file": "the file with the trusted authorities cannot be read; correct sslrootcert",
    "does not match host name": "the server's certificate is for another host; correct the host, or the certificate",
    "server does not support SSL": "the server offers no TLS; set ssl=on there, or correct sslmode in the URL",
}
"""Parts of libpq's texts for a connection that TLS refuses, which another attempt meets again, and the next step."""


class StatementFailed(Exception):
    """An error response of the server.

    Attributes:
        sqlstate: Its code of five characters.
        ends_session: True if the server has closed the connection (severity ``FATAL`` or ``PANIC``).
    """

    def __init__(self, sqlstate: str, message: str, *, ends_session: bool = False) -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate
        self.ends_session = ends_session


class ConnectionLost(Exception):
    """The connection was cut before the answer had arrived."""


class AnswerTimedOut(ConnectionLost):
    """No answer arrived in time. The connection was given up."""


def classify(error: Exception, *, commit_sent: bool) -> Exception:
    """Return the error of the port for an error of an exchange; see :class:`~quota_engine.stores.sql.steps.Dialect`."""
    if isinstance(error, psycopg.Error):
        if error.sqlstate is None:
            error = ConnectionLost(str(error).strip())
        else:
            severity = error.diag.severity_nonlocalized or ""
            error = StatementFailed(error.sqlstate, str(error), ends_session=severity in ("FATAL", "PANIC"))
    if isinstance(error, StatementFailed) and not (error.ends_session and commit_sent):
        # The server has answered with an error instead of a commit, so the transaction is undone.
        state = error.sqlstate
        if state in _FINAL:
            return BackendUnavailable(f"{_FINAL[state]} ({error}); nothing was done")
        return RolledBack(f"{_RETRIED.get(state) or _UNREACHED.get(state) or 'the server reported an error'} ({error})")
    if commit_sent:
        return CommitUnknown(f"the answer to a commit was lost ({error})")
    return RolledBack(f"the connection was lost ({error})")


def classify_connect(error: Exception) -> Exception:
    """Return the error of the port for an error of a new connection: nothing was done."""
    refused = next((problem for part, problem in _TLS.items() if part in str(error)), None)
    if refused is not None:
        return BackendUnavailable(f"{refused} ({_one_line(error)})")
    state = getattr(error, "sqlstate", None) or _state_of_text(str(error))
    if state in _FINAL:
        return BackendUnavailable(f"{_FINAL[state]} ({_one_line(error)})")
    return NotStarted(f"{_UNREACHED.get(state, 'no server was reached')} ({_one_line(error)})")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _state_of_text(text: str) -> str:
    """Return the code of an error of libpq's connect, which has a text only.

    The texts depend on the server's language, so an unknown text counts as a server that was not reached.
    """
    for part, state in (
        ("password authentication failed", "28P01"),
        ("no password supplied", "28P01"),
        ("no pg_hba.conf entry", "28000"),
        ("is not permitted to log in", "28000"),
        ("role", "28000") if 'role "' in text and "does not exist" in text else ("\0", ""),
        ('database "', "3D000") if "does not exist" in text else ("\0", ""),
        ("permission denied for database", "42501"),
        ("too many clients", "53300"),
        ("remaining connection slots", "53300"),
        ("too many connections", "53300"),
        ("the database system is", "57P03"),
        ("session is read-only", "25006"),
        ("session is not read-only", "25006"),
    ):
        if part in text:
            return state
    return ""
