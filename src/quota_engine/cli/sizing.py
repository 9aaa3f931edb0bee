"""``quota-engine sizing``: the machines of an opening, computed from measured figures."""

from __future__ import annotations

__all__ = ["FIGURES", "Figure", "SizingRow", "compute_sizes", "sizing", "sizing_rows"]

import sys
from typing import Final, NamedTuple

from quota_engine.cli.output import DONE, AsJson, print_json
from quota_engine.domain.validation import check_integer

_PEOPLE_MAX: Final = 1_000_000_000
_OFFICES_MAX: Final = 1_000_000
_PLACES_MAX: Final = 1_000_000
_DAYS_MAX: Final = 3_660
_WITHIN_S_MAX: Final = 86_400


class Figure(NamedTuple):
    """A measured figure, and the page that says how it was measured."""

    value: float
    unit: str
    meaning: str
    source: str


FIGURES: Final[dict[str, Figure]] = {
    "reservation": Figure(366, "bytes", "a reservation with its events, on Valkey", "performance.md#on-valkey"),
    "ticket": Figure(80, "bytes", "a ticket of a waiting room, on Valkey", "waiting-room.md#limits"),
    "bucket": Figure(250, "bytes", "a token bucket that is not full", "admission.md#token-buckets"),
    "stream": Figure(12_288, "bytes", "an open event stream, in the service", "performance.md#through-http"),
    "reserve": Figure(96, "µs", "a reserve through HTTP, of the service's processor", "performance.md#through-http"),
    "poll": Figure(57, "µs", "a poll of a ticket, of the service's processor", "performance.md#through-http"),
    "store_reserve": Figure(22, "µs", "a reserve, of the store's processor", "performance.md#on-valkey"),
}
"""Figures of the calculation by name."""

HEADROOM: Final = 2
"""Factor of processor time, because machines differ and an opening has more than one kind of call."""
STORE_OVERHEAD: Final = 4 / 3
"""Factor of the data, for the server's own structures."""
REWRITE_COPY: Final = 2
"""Factor of the memory, for a copy while the server rewrites its file."""
DISK_COPIES: Final = 3
"""The file, its rewrite, and a backup."""
CALLS_PER_ROOM_S: Final = 100
"""Tickets that a waiting room calls in a second at most (``per_minute_max``)."""
_POLL_INTERVAL_S, _POLL_INTERVAL_MAX_S, _POLLS_OF_ROOM = 30, 75, 5_000


class SizingRow(NamedTuple):
    """A row of the result: its name, its value, and how it was computed."""

    name: str
    value: str
    computation: str


class Sizes(NamedTuple):
    """The result of the calculation in plain numbers, as ``--json`` prints it."""

    reserves_per_s: int
    polls_per_s: int
    store_memory_bytes: int
    store_disk_bytes: int
    store_cores: int
    service_cores: int
    service_stream_bytes: int


def compute_sizes(
    *, offices: int, places: int, people: int, days: int, within_s: int, waiting_room: bool, buckets: bool
) -> Sizes:
    """Return the sizes of an opening. Arguments as for :func:`sizing`."""
    data = offices * places * days * FIGURES["reservation"].value
    data += people * FIGURES["ticket"].value if waiting_room else 0
    data += people * FIGURES["bucket"].value if buckets else 0
    memory = round(data * STORE_OVERHEAD * REWRITE_COPY)
    reserves_per_s = -(-people // within_s)
    polls_per_s = 0
    if waiting_room:
        reserves_per_s = min(reserves_per_s, offices * CALLS_PER_ROOM_S)
        in_room = -(-people // offices)
        in_room_polls = min(in_room / _POLL_INTERVAL_S, max(_POLLS_OF_ROOM, in_room / _POLL_INTERVAL_MAX_S))
        polls_per_s = round(offices * in_room_polls)
    service_us = reserves_per_s * FIGURES["reserve"].value + polls_per_s * FIGURES["poll"].value
    return Sizes(
        reserves_per_s=reserves_per_s,
        polls_per_s=polls_per_s,
        store_memory_bytes=memory,
        store_disk_bytes=memory * DISK_COPIES,
        store_cores=_cores(reserves_per_s * FIGURES["store_reserve"].value),
        service_cores=_cores(service_us),
        service_stream_bytes=round(people * FIGURES["stream"].value) if waiting_room else 0,
    )


def sizing_rows(sizes: Sizes) -> list[SizingRow]:
    """Return what to order for the sizes, with the computation of each."""
    rates = f"{sizes.reserves_per_s:,} reserves and {sizes.polls_per_s:,} polls a second, with twice the processor time"
    rows = [
        SizingRow("service cores", f"{sizes.service_cores:,}", rates),
        SizingRow(
            "store memory", _bytes(sizes.store_memory_bytes), "data, a third for structures, and a copy for rewrites"
        ),
        SizingRow("store disk", _bytes(sizes.store_disk_bytes), "the file, its rewrite, and a backup"),
        SizingRow(
            "store cores",
            f"{sizes.store_cores:,}",
            "one server uses one; for more, a cluster, which spreads offices"
            if sizes.store_cores > 1
            else "one server",
        ),
    ]
    if sizes.service_stream_bytes:
        streams = "if every visitor's page has an open stream; polls need none"
        rows.append(SizingRow("service memory", _bytes(sizes.service_stream_bytes), streams))
    return rows


def sizing(
    *,
    people: int,
    offices: int = 1,
    places: int = 100,
    days: int = 90,
    within_s: int = 60,
    waiting_room: bool = False,
    buckets: bool = False,
    as_json: AsJson = False,
) -> int:
    """Compute the machines of an opening: memory, disk and cores of store and service.

    The figures were measured; docs/sizing.md has their sources. Check the result with quota-engine bench and
    quota-engine loadtest on your machines.

    Example:  quota-engine sizing --people 1000000 --offices 125 --waiting-room

    Args:
        people: people that you expect at the opening, 1 to 1,000,000,000.
        offices: offices that open together, 1 to 1,000,000.
        places: places of an office and day, 1 to 1,000,000.
        days: days that the store remembers: the published ones and the retention, 1 to 3,660.
        within_s: seconds within which the people press the button, 1 to 86,400.
        waiting_room: there is a waiting room in front of each office.
        buckets: each person has a token bucket in the store.
        as_json: print the result as JSON, and nothing else.
    """
    for name, value, most in (
        ("--people", people, _PEOPLE_MAX),
        ("--offices", offices, _OFFICES_MAX),
        ("--places", places, _PLACES_MAX),
        ("--days", days, _DAYS_MAX),
        ("--within-s", within_s, _WITHIN_S_MAX),
    ):
        check_integer(value, name, 1, most)
    sizes = compute_sizes(
        offices=offices, places=places, people=people, days=days,
        within_s=within_s, waiting_room=waiting_room, buckets=buckets,
    )  # fmt: skip
    if as_json:
        print_json({**sizes._asdict(), "figures": {name: figure._asdict() for name, figure in FIGURES.items()}})
        return DONE
    for row in sizing_rows(sizes):
        sys.stdout.write(f"{row.name:15} {row.value:>9}  {row.computation}\n")
    return DONE


def _cores(us_per_s: float) -> int:
    return max(1, -(-round(us_per_s * HEADROOM) // 1_000_000))


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{-(-count // 1024):,} KiB"
