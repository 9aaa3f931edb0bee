"""Rooms and draws across a real failover to a replica that has not received the last changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from quota_engine import DrawStatus, ManualClock, QuotaEngine, RoomStatus, TicketPhase
from quota_engine.admission.tickets import read_ticket_index
from tests.engine.test_waiting_rooms import CATALOG, FIRST_DAY, KEY, LAST_DAY, OPENS_AT, OPENS_AT_MS, PEOPLE
from tests.support import draw_runs
from tests.support.lossy_proxy import LossyProxy
from tests.support.server_groups import Replicated

KNOWN, LOST, LATER = PEOPLE[:3]
FENCED = "?fence=auto&attempts_max=5"


@pytest.fixture
def group(binary: Path) -> Iterator[Replicated]:
    """A primary and a replica that is in step."""
    with Replicated(binary) as group:
        yield group


def test_lost_ticket_gets_no_pass_after_a_failover(group: Replicated) -> None:
    """Two applicants have one number. The room knows one of them; the other joins again."""
    clock = ManualClock(OPENS_AT_MS - 3_600_000)
    old, new = group.primary, group.replicas[0]
    with (
        LossyProxy(old.socket_path) as proxy,
        QuotaEngine.open(proxy.url + FENCED, identity_key=KEY, catalog=CATALOG, clock=clock) as engine,
    ):
        room = engine.room("december")
        engine.publish(CATALOG, FIRST_DAY, LAST_DAY)
        created = room.create("surabaya", FIRST_DAY, LAST_DAY, opens_at=OPENS_AT)
        assert created is RoomStatus.DONE
        kept = room.join(KNOWN).ticket
        group.wait_in_step()
        new.ask("REPLICAOF", "NO", "ONE")  # cut off: the old primary acknowledges what will be lost
        lost = room.join(LOST).ticket
        proxy.switch_to(new.socket_path)
        later = room.join(LATER).ticket
        assert (read_ticket_index(lost), read_ticket_index(later)) == ((1, 1), (1, 2))
        clock.advance_ms(1_000)
        assert [room.status(ticket).phase for ticket in (kept, lost, later)] == [
            TicketPhase.NOT_OPEN,
            TicketPhase.TICKET_LOST,
            TicketPhase.NOT_OPEN,
        ]
        again = room.join(LOST, replaces_ticket=lost).ticket
        clock.set_ms(OPENS_AT_MS)
        entered = [room.enter(ticket, person).ok for ticket, person in ((kept, KNOWN), (later, LATER), (again, LOST))]
        assert entered == [True, True, True]
        assert room.enter(lost, LOST).ticket_status.phase is TicketPhase.TICKET_LOST
        assert room.view(max_age_ms=1).epoch == 2


def test_repeated_run_of_a_draw_names_the_epoch(group: Replicated) -> None:
    """The run and an application are lost. Another text is refused until an operator names the epoch."""
    clock = ManualClock(draw_runs.NOW_MS)
    old, new = group.primary, group.replicas[0]
    with (
        LossyProxy(old.socket_path) as proxy,
        QuotaEngine.open(
            proxy.url + FENCED, identity_key=draw_runs.KEY, catalog=draw_runs.catalog(), clock=clock
        ) as engine,
    ):
        draw_runs.announced(engine, clock, entropy_source="the index of the exchange")
        draw = engine.draw("dec")
        assert draw.apply("ani", [draw_runs.choice("sby")]).ok
        group.wait_in_step()
        new.ask("REPLICAOF", "NO", "ONE")
        lost = draw.apply("budi", [draw_runs.choice("sby")])
        clock.set_ms(draw_runs.CLOSES_AT_MS)
        assert draw.close().ok
        assert draw.run(draw_runs.SEED, "7,123.45").ok
        proxy.switch_to(new.socket_path)
        receipt = draw.check_receipt("budi", number=lost.number, version=lost.version, epoch=lost.epoch)
        assert receipt.status is DrawStatus.APPLICATION_LOST
        assert draw.close().status is DrawStatus.EPOCH_CHANGED
        assert draw.close(epoch=2).ok
        assert draw.run(draw_runs.SEED, "7,123.46", epoch=2).status is DrawStatus.CONFLICT
        assert draw.run(draw_runs.SEED, "7,123.45").status is DrawStatus.EPOCH_CHANGED
        assert draw.run(draw_runs.SEED, "7,123.45", epoch=2).ok
        files = draw.files()
        assert files is not None
        assert files.head is not None
        assert (files.head.epoch, files.head.totals.applications) == (2, 1)
