"""Exchanges on one connection of libpq, in pipeline mode; written once for both kinds of waiting.

An exchange is sent in one write. :func:`run` is a generator that never waits: it yields when it needs the socket, and
a connection of :mod:`~quota_engine.stores.sql.postgresql.connections` waits.
"""

from __future__ import annotations

__all__ = ["Prepared", "Wait", "Waits", "rollback", "run"]

import enum
import hashlib
import struct
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg import pq

from quota_engine.stores.sql.postgresql.errors import ConnectionLost, StatementFailed
from quota_engine.stores.sql.steps import Rows

T = TypeVar("T")


class Wait(enum.Enum):
    """The condition of the socket that an exchange waits for."""

    READ = "read"
    READ_OR_WRITE = "read or write"


Waits = Generator[Wait, None, T]
"""A generator that waits for the socket; it returns a result."""

_TEXT: Final = int(pq.Format.TEXT)
_BINARY: Final = int(pq.Format.BINARY)
_OK: Final = int(pq.ConnStatus.OK)
_TUPLES: Final = int(pq.ExecStatus.TUPLES_OK)
_COMMAND_DONE: Final = int(pq.ExecStatus.COMMAND_OK)
_SYNC: Final = int(pq.ExecStatus.PIPELINE_SYNC)
_ABORTED: Final = int(pq.ExecStatus.PIPELINE_ABORTED)


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


_DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {
    16: lambda data: data == b"\x01",  # boolean
    17: bytes,  # bytea
    20: _signed,  # bigint
    21: _signed,  # smallint
    23: _signed,  # integer
    25: lambda data: data.decode(),  # text
    1043: lambda data: data.decode(),  # varchar
    2278: lambda _: None,  # void
}


class Prepared:
    """A statement, with the name that each connection prepares it under.

    The name is a hash of the text. Behind a pooler a session may have been prepared by another client, and the same
    name has the same text there.

    Attributes:
        name: The name, for libpq.
        text: The SQL, for libpq.
    """

    __slots__ = ("name", "text")

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.name = b"qe_" + hashlib.sha256(self.text).hexdigest()[:24].encode()


_ROLLBACK: Final = Prepared("ROLLBACK")


def run(
    connection: pq.abc.PGconn,
    prepared_names: set[bytes] | None,
    commands: Sequence[tuple[Prepared, Sequence[Any]]],
    *,
    one_by_one: bool,
) -> Waits[list[Rows]]:
    """Send commands in one write, and return the rows of each.

    Args:
        connection: In pipeline mode and without blocking.
        prepared_names: The names that this connection has prepared, which grows; ``None`` to prepare nothing.
        commands: Statements with their parameters.
        one_by_one: True to make each command a separate transaction, if none is open.

    Raises:
        StatementFailed: The first error of a statement. The commands after it were not carried out.
        ConnectionLost: The connection was cut.
    """
    syncs = 0
    is_wanted: list[bool] = []
    try:
        for statement, parameters in commands:
            values, formats = _encoded(parameters)
            if prepared_names is None:
                connection.send_query_params(statement.text, values, None, formats, _BINARY)
            else:
                if statement.name not in prepared_names:
                    connection.send_prepare(statement.name, statement.text)
                    prepared_names.add(statement.name)
                    is_wanted.append(False)
                connection.send_query_prepared(statement.name, values, formats, _BINARY)
            is_wanted.append(True)
            if one_by_one:
                connection.pipeline_sync()
                syncs += 1
        if not one_by_one:
            connection.pipeline_sync()
            syncs = 1
        while connection.flush():
            yield Wait.READ_OR_WRITE
            connection.consume_input()
    except psycopg.Error as error:
        # Not an answer of the server: everything that it answers arrives as a result.
        raise ConnectionLost(_one_line(error)) from error
    results = yield from _results(connection, syncs)
    return [_rows(result) for result, wanted in zip(results, is_wanted, strict=True) if wanted]


def _results(connection: pq.abc.PGconn, syncs: int) -> Waits[list[pq.abc.PGresult]]:
    """Read the results until the last of ``syncs`` marks."""
    results: list[pq.abc.PGresult] = []
    failed: pq.abc.PGresult | None = None
    lost = ""
    empty = 0
    while syncs:
        while not lost and connection.is_busy():
            yield Wait.READ
            try:
                connection.consume_input()
            except psycopg.Error as error:
                # The last message may explain the cut, so all that arrived before the cut is read.
                lost = _one_line(error)
        result = connection.get_result()
        if result is None:  # the end of one command's results
            empty += 1
            if empty > 1 or connection.status != _OK:
                break
            continue
        empty = 0
        status = result.status
        if status in (_TUPLES, _COMMAND_DONE):
            results.append(result)
        elif status == _SYNC:
            syncs -= 1
        elif status != _ABORTED:
            failed = failed or result
    if failed is not None:
        raise _error_of(failed)
    if syncs:
        raise ConnectionLost(lost or "the server closed the connection")
    return results


def rollback(connection: pq.abc.PGconn) -> Waits[None]:
    """End the open transaction, if there is one."""
    if connection.transaction_status != pq.TransactionStatus.IDLE:
        yield from run(connection, None, [(_ROLLBACK, ())], one_by_one=False)


def _error_of(result: pq.abc.PGresult) -> Exception:
    field = pq.DiagnosticField
    state = result.error_field(field.SQLSTATE)
    if state is None:
        return ConnectionLost(" ".join(result.get_error_message().split()))
    message = result.error_field(field.MESSAGE_PRIMARY) or b""
    severity = result.error_field(field.SEVERITY_NONLOCALIZED)
    return StatementFailed(
        state.decode(), message.decode(errors="replace"), ends_session=severity in (b"FATAL", b"PANIC")
    )


def _encoded(parameters: Sequence[Any]) -> tuple[list[bytes | None], list[int]]:
    """Return the parameters in libpq's formats: bytes and lists in binary, everything else as text."""
    values: list[bytes | None] = []
    formats: list[int] = []
    for value in parameters:
        if isinstance(value, list):
            value = _encoded_array(value)
        is_bytes = isinstance(value, bytes | bytearray | memoryview)
        values.append(bytes(value) if is_bytes else None if value is None else str(value).encode())
        formats.append(_BINARY if is_bytes else _TEXT)
    return values, formats


_ELEMENT_TYPES: Final = {bytes: 17, int: 20, str: 25}
"""PostgreSQL's object ids of the types of elements: bytea, bigint, text."""
_ARRAY_HEAD: Final = struct.Struct("!5i")
_BIGINT: Final = struct.Struct("!iq")


def _encoded_array(values: list[Any]) -> bytes:
    """Return an array without nulls in PostgreSQL's binary format. There are values, and all have the same type."""
    kind = type(values[0])
    head = _ARRAY_HEAD.pack(1, 0, _ELEMENT_TYPES[kind], len(values), 1)  # dimensions, nulls, type, size, first index
    if kind is int:
        return head + b"".join([_BIGINT.pack(8, value) for value in values])
    encoded = [value.encode() for value in values] if kind is str else values
    return head + b"".join([part for value in encoded for part in (len(value).to_bytes(4, "big"), value)])


def _rows(result: pq.abc.PGresult) -> Rows:
    if result.status != _TUPLES:
        return []
    decoders = [_DECODERS[result.ftype(column)] for column in range(result.nfields)]
    get_value = result.get_value
    rows: Rows = []
    for row in range(result.ntuples):
        values = [get_value(row, column) for column in range(len(decoders))]
        rows.append(
            tuple(None if value is None else decode(value) for decode, value in zip(decoders, values, strict=True))
        )
    return rows


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
