"""A server keeps small collections as lists, which it searches from their beginning; those of an office are tables."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from quota_engine.clocks import ManualClock
from quota_engine.conformance.world import DAY, OPENS_AT_MS, STARTS_AT_MS
from quota_engine.domain.commands import Command, Publish, Reserve, SetRules
from quota_engine.domain.model import Choice, DayTerms, QuotaTerms, Rules
from quota_engine.ports import ApplyMany
from quota_engine.stores.redis.factory import open_store
from quota_engine.stores.redis.keys import OFFICE_KEY_NAMES, keys_of
from tests.support.servers import Server

TABLES = {"records": "hashtable", "claims": "hashtable", "due": "skiplist"}
"""The keys that grow with each reservation."""
DAY_TERMS = DayTerms(0, STARTS_AT_MS, STARTS_AT_MS, STARTS_AT_MS, (QuotaTerms("total", 50),))
CHOICE = Choice("passport", "", "", "", "", (("total",),))


@pytest.fixture(params=["valkey_server", "redis_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """An empty server of each kind."""
    found: Server = request.getfixturevalue(request.param)
    return found


def encodings(client: Any, office: str) -> dict[str, str]:
    """Return how the server keeps the keys that grow with each reservation."""
    keys = dict(zip(OFFICE_KEY_NAMES, keys_of("", office), strict=True))
    return {name: client.object("encoding", keys[name]).decode() for name in TABLES}


@pytest.mark.parametrize("functions", ["auto", "off"])
@pytest.mark.parametrize(
    "first",
    [
        (SetRules(Rules(extensions_max=1)),),
        (Publish(DAY, DAY_TERMS),),
        (Publish(DAY, DAY_TERMS), Reserve("a", DAY, ("sari",), CHOICE)),
    ],
    ids=["rules", "day", "hold"],
)
def test_the_keys_of_reservations_are_tables(server: Server, functions: str, first: tuple[Command, ...]) -> None:
    """They are tables from the first call that writes, and after a server has loaded them from its disk."""
    backend = open_store(f"{server.url}?functions={functions}", ManualClock(OPENS_AT_MS))
    backend.execute(ApplyMany("office", first))
    client = redis.Redis.from_url(server.url)
    assert encodings(client, "office") == TABLES
    for key in keys_of("", "office"):
        payload = client.dump(key)
        if payload is not None:
            client.restore(key, 0, payload, replace=True)  # reads a value as a file of the server has it
    assert encodings(client, "office") == TABLES
    client.close()
    backend.close()
