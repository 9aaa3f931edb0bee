"""``quota-engine room verify`` with a published transcript alone."""

from __future__ import annotations

import json
import pathlib
import time

import msgspec
import pytest

from quota_engine.admission.tickets import RoomTickets, TicketKeys
from quota_engine.cli import main
from quota_engine.waiting_room.transcript import RoomTranscript, TranscriptEpoch, TranscriptWindow, position_of
from tests.waiting_room.test_transcript import AFTER, BEFORE, DURING, signed


def written(folder: pathlib.Path, record: RoomTranscript, name: str = "record.json", **lies: object) -> str:
    path = folder / name
    path.write_bytes(msgspec.json.encode(signed(msgspec.structs.replace(record, **lies))))
    return str(path)


def test_a_valid_transcript_exits_with_0(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output has the number of tickets and the commitment to compare."""
    file, earlier = written(tmp_path, AFTER), written(tmp_path, BEFORE, "earlier.json")
    assert main.main(["room", "verify", file, "--earlier", earlier]) == 0
    out = capsys.readouterr().out
    assert "OK: 135 of 135 tickets" in out
    assert AFTER.commitment in out


def test_a_transcript_of_an_open_room_has_pending_parts(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["room", "verify", written(tmp_path, DURING), "--ticket", "120"]) == 0
    out = capsys.readouterr().out
    assert "OK: 100 of 130 tickets" in out
    assert "pending: the closing seed" in out
    assert "ticket number 120: no position yet" in out


def test_a_forged_transcript_exits_with_1(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The finding is printed as text and as JSON."""
    file = written(tmp_path, AFTER, seed="00" * 32)
    assert main.main(["room", "verify", file]) == 1
    assert "WRONG: the seed does not match the commitment" in capsys.readouterr().out
    assert main.main(["room", "verify", file, "--json", "--ticket", "3"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["ok"], result["tickets_checked"], result["ticket"]) == (
        False,
        0,
        {"number": 3, "position": None, "signature_checked": False},
    )
    earlier = written(tmp_path, DURING, "earlier.json", commitment="00" * 32)
    assert main.main(["room", "verify", written(tmp_path, AFTER), "--earlier", earlier]) == 1
    assert "WRONG: commitment was 00" in capsys.readouterr().out


def test_a_ticket_shows_its_position(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ticket is named by its number or its text; no secret is needed."""
    file = written(tmp_path, AFTER)
    tickets = RoomTickets(TicketKeys("k1", {"k1": b"a secret of the office"}), "december", AFTER.commitment, "k1")
    for ticket in ("111", tickets.ticket(110, 1, "0f" * 16, 2**40)):
        assert main.main(["room", "verify", file, "--json", "--ticket", ticket]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["ticket"] == {"number": 111, "position": position_of(AFTER, 111), "signature_checked": False}
        assert 101 <= result["ticket"]["position"] <= 130
    assert main.main(["room", "verify", file, "--ticket", "111"]) == 0
    assert "The signature of a ticket is not checked" in capsys.readouterr().out


def test_a_lost_ticket_exits_with_1(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text of a ticket has its epoch. The number alone does not show that it is another applicant's now."""
    epochs = (TranscriptEpoch(2, 111),)
    file = written(tmp_path, AFTER, epoch=2, epochs=epochs)
    tickets = RoomTickets(TicketKeys("k1", {"k1": b"a secret of the office"}), "december", AFTER.commitment, "k1")
    for index, epoch, code in ((109, 1, 0), (110, 2, 0), (110, 1, 1)):
        ticket = tickets.ticket(index, epoch, "0f" * 16, 2**40)
        assert main.main(["room", "verify", file, "--ticket", ticket]) == code
    assert "WRONG: the room lost ticket number 111 of epoch 1 in a failover" in capsys.readouterr().out


def test_several_earlier_transcripts_are_compared(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one from before the opening fixes the commitment, and the one from just after it the number of tickets."""
    file, before, opened = (written(tmp_path, one, f"{one.as_of_ms}.json") for one in (AFTER, BEFORE, DURING))
    assert main.main(["room", "verify", file, "--earlier", before, "--earlier", opened]) == 0
    later = (TranscriptWindow(one.window, one.first + 1, one.tickets) for one in AFTER.windows[1:])
    more = (TranscriptWindow(0, 1, 101), *later)
    file = written(tmp_path, AFTER, windows=more)
    assert main.main(["room", "verify", file, "--earlier", before]) == 0
    assert main.main(["room", "verify", file, "--earlier", before, "--earlier", opened]) == 1
    assert "WRONG: windows that had ended before have changed" in capsys.readouterr().out
    assert main.main(["room", "verify", before, "--earlier", opened]) == 1
    assert "WRONG: the earlier transcript is from" in capsys.readouterr().out


def test_a_transcript_without_positions_is_not_called_ok(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the opening there is nothing to check, and after the close a room without seeds is refused."""
    assert main.main(["room", "verify", written(tmp_path, BEFORE)]) == 0
    out = capsys.readouterr().out
    assert "OK" not in out
    assert "No position can be checked yet" in out
    assert main.main(["room", "verify", written(tmp_path, AFTER, seed="", closing_seed="")]) == 1
    assert "the seed is missing" in capsys.readouterr().out


@pytest.mark.parametrize("ticket", ["0", "136", "999999999999", "-1", "not a ticket", "AQFh"])
def test_an_invalid_ticket_exits_with_2(
    ticket: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and nothing on standard output."""
    assert main.main(["room", "verify", written(tmp_path, AFTER), f"--ticket={ticket}"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "ticket" in printed.err


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b"\xff", b'{"format": "quota_engine room 2"}', b" " * 4_000_001])
def test_an_invalid_transcript_exits_with_2(
    text: bytes, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, with the name of the file."""
    path = tmp_path / "record.json"
    path.write_bytes(text)
    assert main.main(["room", "verify", str(path)]) == 2
    assert "record.json" in capsys.readouterr().err
    assert main.main(["room", "verify", str(tmp_path / "nowhere.json")]) == 2
    assert main.main(["room", "verify", str(tmp_path)]) == 2


def test_a_hundred_thousand_tickets_take_seconds(tmp_path: pathlib.Path) -> None:
    """A tenth of the million that has to be done in 20 seconds on one core; this machine may be busy."""
    file = written(tmp_path, DURING, windows=(TranscriptWindow(0, 1, 100_000),))
    started_s = time.process_time()
    assert main.main(["room", "verify", file]) == 0
    assert time.process_time() - started_s < 10
