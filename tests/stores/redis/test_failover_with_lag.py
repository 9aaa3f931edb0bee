"""A replica that lacks the last acknowledged changes takes over, with durability=memory and fence=auto."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quota_engine import ManualClock, QuotaEngine, TicketPhase, load_catalog
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.draws.outcomes import DrawStatus
from quota_engine.waiting_room.results import RoomStatus
from tests.support.draw_runs import KEY, announced, catalog, choice
from tests.support.lossy_proxy import LossyProxy
from tests.support.server_groups import Replicated

ROOM_OPENS_AT_MS = 1_000_000_000_000
FENCED = "?fence=auto&attempts_max=3"


@pytest.fixture
def group(binary: Path) -> Iterator[Replicated]:
    """A primary and a replica that is in step."""
    with Replicated(binary) as group:
        yield group


def cut_off(group: Replicated) -> None:
    """Promote the replica. The old primary does not know it, and acknowledges what will be lost."""
    group.wait_in_step()
    group.promote(group.replicas[0])


def test_workers_agree_on_a_room_that_lost_joins(group: Replicated) -> None:
    """Both find the lost ticket lost and the positions the same, and none of them returns to the old primary."""
    clock = ManualClock(ROOM_OPENS_AT_MS - 1_000)
    options: dict[str, Any] = {"identity_key": KEY, "catalog": load_catalog("surabaya"), "clock": clock}
    old, new = group.members
    with (
        LossyProxy(old.socket_path) as proxy,
        QuotaEngine.open(proxy.url + FENCED, **options) as one,
        QuotaEngine.open(proxy.url + FENCED, **options) as other,
    ):
        assert one.room("december").create("surabaya", 739_000, opens_at=ROOM_OPENS_AT_MS) is RoomStatus.DONE
        kept = one.room("december").join("3578012345678901").ticket
        cut_off(group)
        lost = one.room("december").join("3578012345678902").ticket
        assert other.room("december").status(lost).phase is TicketPhase.NOT_OPEN
        proxy.switch_to(new.socket_path)
        later = other.room("december").join("3578012345678903").ticket  # it has the number of the lost one
        clock.set_ms(ROOM_OPENS_AT_MS + 2_000)
        for worker in (one, other):
            assert worker.room("december").status(lost).phase is TicketPhase.TICKET_LOST
        statuses = [[worker.room("december").status(ticket) for ticket in (kept, later)] for worker in (one, other)]
        assert statuses[0] == statuses[1]
        assert {status.position for status in statuses[0]} == {1, 2}
        proxy.switch_to(old.socket_path)
        clock.advance_ms(60_000)
        for worker in (one, other):
            with pytest.raises(BackendUnavailable, match=r"waiting room december is at epoch 1 on this server, .* old"):
                worker.room("december").status(kept)


def test_workers_agree_on_a_draw_that_lost_applications(group: Replicated) -> None:
    """Both report the lost application to its applicant, and another one has its number."""
    clock = ManualClock(0)
    options: dict[str, Any] = {"identity_key": KEY, "catalog": catalog(), "clock": clock}
    old, new = group.members
    with (
        LossyProxy(old.socket_path) as proxy,
        QuotaEngine.open(proxy.url + FENCED, **options) as one,
        QuotaEngine.open(proxy.url + FENCED, **options) as other,
    ):
        announced(one, clock)
        assert one.draw("dec").apply("kept", [choice("sby")]).number == 1
        cut_off(group)
        lost = one.draw("dec").apply("lost", [choice("sby")])
        found = other.draw("dec").find("lost")
        assert found is not None
        assert found.number == lost.number == 2
        proxy.switch_to(new.socket_path)
        assert other.draw("dec").apply("later", [choice("sby")]).number == 2
        for worker in (one, other):
            checked = worker.draw("dec").check_receipt("lost", number=2, version=1, epoch=lost.epoch)
            assert checked.status is DrawStatus.APPLICATION_LOST
        proxy.switch_to(old.socket_path)
        for worker in (one, other):
            with pytest.raises(BackendUnavailable, match=r"draw dec is at epoch 1 on this server, .* old primary"):
                worker.draw("dec").find("lost")
