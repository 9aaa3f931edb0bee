"""Write the transcripts of the example in ``waiting-room.md``: ``python docs/rooms/make.py [FOLDER]``.

A real run of the engine with a manual clock: a week of Surabaya, 5,000 tickets before the opening and 400 after it.
Keys and times are fixed, so each run writes the same bytes.
"""

from __future__ import annotations

__all__ = ["main"]

import pathlib
import sys
from typing import Final

import msgspec

from quota_engine import ManualClock, QuotaEngine, RoomTranscript, load_catalog

OPENS_AT: Final = "2026-12-04T14:00:00+07:00"
FOLDER: Final = pathlib.Path(__file__).parent


def _write(folder: pathlib.Path, name: str, transcript: RoomTranscript) -> None:
    text = msgspec.json.format(msgspec.json.encode(transcript), indent=2)
    (folder / name).write_bytes(text + b"\n")


def main(folder: pathlib.Path = FOLDER) -> str:
    """Write the three transcripts to ``folder``, and return the 1,000th ticket."""
    clock = ManualClock.at("2026-12-04T13:00:00+07:00")
    catalog = load_catalog("surabaya")
    with QuotaEngine.open(catalog=catalog, clock=clock, identity_key=b"the key of an example") as engine:
        engine.publish(catalog, "2026-12-07", "2026-12-11")
        room = engine.room("surabaya-2026-12")
        room.create(
            "surabaya",
            "2026-12-07",
            "2026-12-11",
            opens_at=OPENS_AT,
            entropy_source="the six numbers of the national lottery drawn on 4 December 2026 at 14:05, in order",
        )
        tickets = [room.join(f"{3578_0000_0000_0000 + number}").ticket for number in range(5_000)]
        clock.set_ms(ManualClock.at(OPENS_AT).now_ms() - 60_000)
        _write(folder, "surabaya-before.json", room.transcript())
        clock.set_ms(ManualClock.at("2026-12-04T14:06:00+07:00").now_ms())
        room.open("04 11 19 23 38 42")
        _write(folder, "surabaya-opened.json", room.transcript())
        for number in range(400):
            clock.advance_ms(100)
            room.join(f"{3578_0000_0001_0000 + number}")
        clock.advance_ms(7_200_000)
        room.view()
        _write(folder, "surabaya-after.json", room.transcript())
    return tickets[999]


if __name__ == "__main__":
    sys.stdout.write(main(*map(pathlib.Path, sys.argv[1:])) + "\n")
