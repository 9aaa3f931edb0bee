"""Entries and snapshots that the first version wrote are read by every later one."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.stores.sql import entry_codec
from quota_engine.stores.sql.entry_codec import DamagedLedger, decode, encode
from quota_engine.stores.sql.ledger_state import LedgerState, new_state

FORMATS: dict[str, Any] = {
    path.stem: json.loads(path.read_text()) for path in sorted(Path(__file__).parent.glob("format_*.json"))
}
"""The kept ledgers, one of each kind, with their entries, a snapshot and the state."""


def described(state: LedgerState) -> Any:
    """Return the whole state as JSON has it."""
    return json.loads(json.dumps(msgspec.to_builtins(state.kind.describe(state.state), str_keys=True)))


def contains(found: Any, kept: Any) -> bool:
    """Return True if a state is the kept one. Later versions may have added fields."""
    if isinstance(kept, dict):
        return isinstance(found, dict) and all(key in found and contains(found[key], kept[key]) for key in kept)
    if isinstance(kept, list):
        return len(found) == len(kept) and all(map(contains, found, kept))
    return bool(found == kept)


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("kind", ["office", "room", "draw", "registry", "buckets"])
def test_kept_entries_and_snapshots_are_read(version: str, kind: str) -> None:
    """Both lead to the state that the first version had."""
    kept = FORMATS[version][kind]
    replayed, restored = new_state(kept["address"]), new_state(kept["address"])
    for entry in kept["entries"]:
        replayed.replay(b64decode(entry), "a kept entry")
    reader = restored.reader()
    for number, part in enumerate(kept["snapshot"]):
        reader.read(number, b64decode(part))
    assert reader.is_complete
    assert reader.position.number == len(kept["entries"]) > 3
    assert described(replayed) == described(restored)
    assert contains(described(replayed), kept["state"])


def test_a_newer_format_is_refused() -> None:
    body = encode("content")
    assert decode(body, "entry 1") == ["content"]
    newer = msgspec.msgpack.encode((entry_codec.FORMAT + 1, "content"))
    with pytest.raises(
        BackendUnavailable, match=r"entry 1 has format 2, .* start every process with the newer version"
    ):
        decode(newer, "entry 1")


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x01", b"\x90"])
def test_bytes_that_are_no_entry_are_damaged(body: bytes) -> None:
    with pytest.raises(DamagedLedger, match="entry 1 cannot be read"):
        decode(body, "entry 1")
