"""Functions that read untrusted or stored bytes, each with the properties that must hold for any input.

A target gets bytes, and raises only if a property does not hold. Such a fault is an error that the function does not
document, or a text that changes when it is read and written again.
"""

from __future__ import annotations

__all__ = ["TARGETS"]

import asyncio
import contextlib
import functools
import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final, cast

import msgspec

from quota_engine.admission.tickets import RoomTickets, TicketKeys, read_pass, read_ticket_index
from quota_engine.api_schema.reservations import ReserveBody
from quota_engine.catalog import IssueCollector, catalog_from, load_catalog
from quota_engine.catalog.parsing import SUFFIXES, parse
from quota_engine.domain.errors import BackendUnavailable, CatalogError, InvalidRequest
from quota_engine.draws.files import (
    applications_of_csv,
    applications_of_lines,
    capacities_of_json,
    json_of_capacities,
    line_of_application,
    result_of_lines,
)
from quota_engine.service.api.offices import AvailabilityQuery
from quota_engine.service.http.last_moment import find_time_left_ms
from quota_engine.service.http.limits import RequestLimits
from quota_engine.service.http.load_shedding import LoadShedder
from quota_engine.service.http.problems import Problem
from quota_engine.service.http.request import decode_body, decode_query
from quota_engine.service.pages.registration_codes import format_code, read_code
from quota_engine.service.pages.signed_cookies import CookieSigner
from quota_engine.service.transport.connections import ConnectionConfig, HttpConnection
from quota_engine.stores.redis.codecs.office import (
    OfficeDecoder,
    applicant_of_text,
    choice_of_text,
    text_of_applicant,
    text_of_choice,
)
from quota_engine.stores.redis.codecs.office_state import event_of_text, penalty_of_text, text_of_event, text_of_penalty
from quota_engine.stores.redis.codecs.office_terms import rules_of_text, text_of_rules
from quota_engine.stores.sql.entry_codec import decode, encode, open_part, seal_part
from quota_engine.waiting_room.transcript import parse_transcript, verify

_NOW_MS: Final = 1_796_367_600_000
_KEYS: Final = TicketKeys("a", {"a": b"a secret for fuzzing only", "b": b"another secret for fuzzing"})
_TICKETS: Final = RoomTickets(_KEYS, "room", "ab" * 32, "a")
_OWNER: Final = "0123456789abcdef" * 2
_SIGNER: Final = CookieSigner(b"an identity key for fuzzing only")
_CODEC_ERRORS: Final = (ValueError, KeyError, IndexError, TypeError)
"""Errors of the codecs of a server's replies. Only the scripts write those texts, so a damaged one is an error."""


def tickets(data: bytes) -> None:
    """Read a text as a ticket, and the same bytes with a valid signature."""
    for text in (data.decode("latin-1"), _KEYS.sign(b"\x01\x01a" + data), _KEYS.sign(data)):
        for applicant in ("", _OWNER):
            with contextlib.suppress(InvalidRequest):
                found = _TICKETS.read(text, _NOW_MS, applicant)
                assert read_ticket_index(text) == found
        with contextlib.suppress(InvalidRequest):
            read_ticket_index(text)


def passes(data: bytes) -> None:
    """Read a text as a pass, and the same bytes with a valid signature."""
    for text in (data.decode("latin-1"), _KEYS.sign(b"\x02\x01a" + data), _KEYS.sign(data)):
        with contextlib.suppress(InvalidRequest):
            found = read_pass(_KEYS, text, "surabaya", 739_000, (_OWNER,))
            assert 0 <= found.until_ms < 2**48


def cookies(data: bytes) -> None:
    """Read a text as a cookie and as a registration code; texts that were signed or sealed are read back."""
    text = data.decode("latin-1")
    assert _SIGNER.read(text, _NOW_MS) == "" or text.endswith(_SIGNER._mac(text.rpartition(".")[0]))
    assert _SIGNER.unseal(_SIGNER.seal(text)) == text
    code = read_code(data.decode(errors="replace"))
    assert not code or read_code(format_code(code)) == code


def catalogs(data: bytes) -> None:
    """Read a file as a catalog. The first byte chooses the format."""
    collector = IssueCollector("fuzz")
    raw = parse(data[1:], SUFFIXES[data[0] % len(SUFFIXES)] if data else ".toml", collector)
    if raw is not None and not collector.issues():
        with contextlib.suppress(CatalogError):
            catalog_from(raw)


def redis_texts(data: bytes) -> None:
    """Read texts of the scripts. A text that is read and written again is read as the same value."""
    text = data.decode(errors="replace")
    pairs: tuple[tuple[Callable[[str], Any], Callable[[Any], str]], ...] = (
        (choice_of_text, text_of_choice),
        (rules_of_text, text_of_rules),
        (penalty_of_text, text_of_penalty),
        (applicant_of_text, text_of_applicant),
    )
    for read, write in pairs:
        with contextlib.suppress(*_CODEC_ERRORS):
            value = read(text)
            assert read(write(value)) == value, (read, text)
    choices = {str(index): "new\t\tmorning\tonline\t\tmorning,online|online" for index in range(3)}
    with contextlib.suppress(*_CODEC_ERRORS):
        event = event_of_text(text, OfficeDecoder("surabaya"), choices)
        written = text_of_event(event, lambda _choice, _day: "0")
        assert event_of_text(written, OfficeDecoder("surabaya"), choices) == event, text
    decoder = OfficeDecoder("surabaya")
    for read in (decoder.lookup, decoder.wait_list_position, functools.partial(decoder.view, 739_000)):
        with contextlib.suppress(*_CODEC_ERRORS):
            read(text)


def sql_entries(data: bytes) -> None:
    """Read bytes as an entry and as a part of a snapshot, with a right and with a wrong checksum."""
    for body in (data, b"\x92\x01" + data):
        with contextlib.suppress(BackendUnavailable):
            content = decode(body, "entry 7 of surabaya")
            assert decode(encode(*content), "entry 8 of surabaya") == content or b"\xca" in body or b"\xcb" in body
        for part in (body, seal_part(body)):
            with contextlib.suppress(BackendUnavailable):
                open_part(part, "snapshot 7 of surabaya")


def draw_files(data: bytes) -> None:
    """Read bytes as each file of a draw and as a transcript. Canonical lines survive."""
    lines = data.split(b"\n")
    with contextlib.suppress(CatalogError):
        for application in applications_of_lines(lines, "applications.jsonl"):
            assert list(applications_of_lines([line_of_application(application)], "again")) == [application]
    with contextlib.suppress(CatalogError):
        list(applications_of_csv(data.decode("latin-1").split("\n"), "applications.csv"))
    with contextlib.suppress(CatalogError):
        capacities = capacities_of_json(data, "capacities.json")
        assert capacities_of_json(json_of_capacities(capacities), "again") == capacities
    with contextlib.suppress(CatalogError):
        result_of_lines(lines, "result.jsonl")
    with contextlib.suppress(InvalidRequest):
        transcript = parse_transcript(data)
        if transcript.tickets < 1_000:
            verify(transcript)


def identities(data: bytes) -> None:
    """Normalize a text as an identity. A normalized identity is its own normal form."""
    text = data.decode(errors="replace")
    identity_format = _surabaya().identity_format
    with contextlib.suppress(InvalidRequest):
        normal = identity_format.normalize(text, "applicants")
        assert identity_format.normalize(normal, "applicants") == normal
        assert re.fullmatch("[0-9]{16}", normal)


def http_bodies(data: bytes) -> None:
    """Decode a body, a query and headers with times."""
    with contextlib.suppress(Problem):
        decode_body(data, {b"content-type": b"application/json"}, _body_decoder())
    with contextlib.suppress(Problem):
        decode_query(data, AvailabilityQuery)
    name, _, value = data.partition(b":")
    with contextlib.suppress(Problem):
        left_ms = find_time_left_ms({name.lower(): value, b"request-timeout": value}, is_read=False)
        assert left_ms is None or 250 <= left_ms <= 3_600_000


def http_requests(data: bytes) -> None:
    """Parse bytes of a connection, at once and in pieces: the requests and the refusal are the same."""
    whole = _received((data,))
    size = 1 + len(data) % 7
    pieces = tuple(data[at : at + size] for at in range(0, len(data), size))
    assert _received(pieces) == whole, data


@functools.cache
def _surabaya() -> Any:
    return load_catalog("surabaya")


@functools.cache
def _body_decoder() -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(ReserveBody)


class _Transport:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else None

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _received(pieces: tuple[bytes, ...]) -> list[Any]:
    """Return the requests that a connection hands to its application, and the statuses of refusals at its end."""
    seen: list[Any] = []

    async def app(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        headers = [line for line in scope["headers"] if line[0] == b"host"]
        body = (await receive()).get("body", b"")
        seen.append((scope["method"], scope["path"], scope["query_string"], headers, body))
        await send({"type": "http.response.start", "status": 204, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    config = SimpleNamespace(loaded=True, loaded_app=app, timeout_keep_alive=5)
    state = SimpleNamespace(connections=set(), tasks=set(), total_requests=0, default_headers=[])
    shedder = SimpleNamespace(at_capacity=lambda _: False)
    limits = RequestLimits(header_bytes_max=4_096, body_bytes_max=4_096)
    connection_config = ConnectionConfig(limits, cast("LoadShedder", shedder), seen.append)

    async def run() -> None:
        connection = HttpConnection(connection_config, config, state, {}, asyncio.get_running_loop())
        connection.connection_made(_Transport())  # type: ignore[arg-type]
        for piece in pieces:
            connection.data_received(piece)
        while state.tasks:
            await asyncio.gather(*state.tasks)
            await asyncio.sleep(0)

    _loop().run_until_complete(run())
    return seen


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (
        tickets,
        passes,
        cookies,
        catalogs,
        redis_texts,
        sql_entries,
        draw_files,
        identities,
        http_bodies,
        http_requests,
    )
}
"""The targets by name."""
