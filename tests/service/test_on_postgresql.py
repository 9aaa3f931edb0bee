"""Reservations, rooms and draws of the service on PostgreSQL: some of the tests that run in memory elsewhere."""

from __future__ import annotations

import pytest

from tests.service.api.test_draws import (
    drawing,  # noqa: F401 - a fixture
    test_application_can_be_found_changed_and_withdrawn,  # noqa: F401
    test_close_run_and_award,  # noqa: F401
)
from tests.service.api.test_operations import (
    test_consumer_group_delivers_each_event_once,  # noqa: F401
    test_move_to_another_office_has_a_new_reference,  # noqa: F401
    test_wait_list_offers_returned_places,  # noqa: F401
)
from tests.service.api.test_operators import test_auditor_reads_events_and_audits  # noqa: F401
from tests.service.api.test_reservations import (
    test_identity_limit_and_party_size,  # noqa: F401
    test_release_cancel_and_reschedule,  # noqa: F401
    test_repeated_key_finds_the_reservation,  # noqa: F401
    test_reserve_confirm_look_up_and_check_in,  # noqa: F401
)
from tests.service.api.test_rooms import (
    rooms,  # noqa: F401 - a fixture
    test_create_room_is_idempotent,  # noqa: F401
    test_join_enter_reserve_and_verify,  # noqa: F401
)
from tests.support import in_process_service
from tests.support.postgresql_servers import PostgresqlServer


@pytest.fixture(autouse=True)
def on_postgresql(postgresql: PostgresqlServer, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the services of these tests keep their ledgers in a schema of a PostgreSQL, without waiting for the disk."""
    url = postgresql.url(schema=schema, durability="memory", options="-csynchronous_commit%3Doff")
    monkeypatch.setattr(in_process_service, "BACKEND", url)
