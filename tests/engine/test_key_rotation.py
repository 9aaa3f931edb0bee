"""The change of an identity key on real servers, step by step as docs/security.md describes it."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable, Iterator

import pytest

from quota_engine.catalog import day_terms, load_catalog
from quota_engine.cli.main import main
from quota_engine.clocks import ManualClock
from quota_engine.domain.errors import WrongIdentityKey
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.engine.quota_engine import QuotaEngine
from tests.support.identities import nik
from tests.support.postgresql_servers import PostgresqlServer
from tests.support.servers import Server, valkey_server_binary

OLD, NEW = b"the key of the old namespace", b"the key of the new namespace"
LAST_OLD_DAY = datetime.date(2026, 12, 7)
FIRST_NEW_DAY = datetime.date(2027, 1, 11)
"""Later by more than the catalog's limit spans, so that no limit would hold between the two days."""
CATALOG = load_catalog("surabaya")
_DAY_MS = 86_400_000


def opens_at_ms(day: datetime.date) -> int:
    terms = day_terms(CATALOG, "surabaya", day)
    assert terms is not None
    return terms.opens_at_ms


class Stores:
    """Two parts of one server, an old and a new one, and how an operator deletes the old one."""

    def __init__(self, old: str, new: str, delete_old: Callable[[], None], names: Callable[[], list[str]]) -> None:
        self.old, self.new, self.delete_old, self.names = old, new, delete_old, names


@pytest.fixture
def on_valkey() -> Iterator[Stores]:
    with Server(valkey_server_binary()) as server:

        def names() -> list[str]:
            return [str(name) for name in server.ask("KEYS", "*")]

        def delete_old() -> None:
            for name in server.ask("KEYS", "{quota_engine:2026[:}]*"):
                server.ask("UNLINK", name)

        yield Stores(f"{server.url}?namespace=2026", f"{server.url}?namespace=2027", delete_old, names)


@pytest.fixture
def on_postgresql(postgresql: PostgresqlServer) -> Stores:
    old, new = postgresql.new_schema(), postgresql.new_schema()

    def names() -> list[str]:
        rows = postgresql.query("SELECT table_schema FROM information_schema.tables WHERE table_name = 'ledgers'")
        return [name for (name,) in rows if name in (old, new)]

    def delete_old() -> None:
        postgresql.query(f"DROP SCHEMA {old} CASCADE")

    return Stores(postgresql.url(schema=old), postgresql.url(schema=new), delete_old, names)


def reserve(engine: QuotaEngine, day: datetime.date, key: str) -> Outcome:
    return engine.reserve("surabaya", day, nik(1), service="new", session="morning", idempotency_key=key)


@pytest.mark.parametrize("backend", ["on_valkey", "on_postgresql"])
def test_a_new_key_begins_in_a_new_part_of_the_store(
    request: pytest.FixtureRequest,
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stores: Stores = request.getfixturevalue(backend)
    clock = ManualClock(opens_at_ms(LAST_OLD_DAY))

    def compare(key: bytes, url: str) -> tuple[int, bool, bool]:
        monkeypatch.setenv("QUOTA_ENGINE_IDENTITY_KEY", base64.b64encode(key).decode())
        code = main(["store", "key", url, "--json"])
        found = json.loads(capsys.readouterr().out)
        return code, found["matches"], bool(found["stored_fingerprint"])

    # The old key has a reservation. The new key cannot be used beside it, and the new part has no key yet.
    old = QuotaEngine.open(stores.old, identity_key=OLD, catalog=CATALOG, clock=clock)
    old.publish(CATALOG, LAST_OLD_DAY, LAST_OLD_DAY)
    booked = reserve(old, LAST_OLD_DAY, "old")
    assert old.confirm(booked.reference).ok
    assert compare(OLD, stores.old) == (0, True, True), stores.names()
    assert compare(NEW, stores.old) == (1, False, True)
    assert compare(NEW, stores.new) == (0, True, False)
    with pytest.raises(WrongIdentityKey):
        QuotaEngine.open(stores.old, identity_key=NEW, catalog=CATALOG, clock=clock)

    # The new key begins after the last day of the old one. Each part keeps its limit.
    clock.set_ms(opens_at_ms(FIRST_NEW_DAY))
    new = QuotaEngine.open(stores.new, identity_key=NEW, catalog=CATALOG, clock=clock)
    assert compare(NEW, stores.new) == (0, True, True)
    assert compare(OLD, stores.new) == (1, False, True)
    new.publish(CATALOG, FIRST_NEW_DAY, FIRST_NEW_DAY)
    held = reserve(new, FIRST_NEW_DAY, "new")
    assert new.confirm(held.reference).ok
    assert reserve(new, FIRST_NEW_DAY, "again").status is Status.IDENTITY_LIMIT
    assert new.lookup(booked.reference) is None

    # The old part serves its reservations until it is deleted, and the new one does not notice.
    found = old.lookup(booked.reference)
    assert found is not None
    assert found.state == "CONFIRMED"
    assert old.audit().ok
    old.close()
    clock.advance_ms(60 * _DAY_MS)
    stores.delete_old()
    assert stores.names()
    assert not any("2026" in name for name in stores.names() if backend == "on_valkey")
    assert backend == "on_valkey" or len(stores.names()) == 1
    clock.set_ms(opens_at_ms(FIRST_NEW_DAY))
    assert new.lookup(held.reference) is not None
    assert new.audit().ok
    new.close()
