"""The nodes of a simulated cluster answer as real ones do while a slot moves, and the store follows them."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from redis.crc import key_slot

from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.fuzz.runner import run_seed
from quota_engine.fuzz.slot_moves import NODES, SlotMoves

KEY = "{surabaya}head"
SLOT = key_slot(KEY.encode())
SEEDS = (2, 22)
KINDS = ("slot_moved", "redirected", "asked", "try_again")
REQUEST = ("EVALSHA", "0" * 40, "1", KEY, "line")


def answers(slots: SlotMoves) -> list[str]:
    """Return the answers of all nodes to a request, without and with ASKING, in short."""
    return [_short(slots.redirection(node, REQUEST, asking=asking)) for asking in (False, True) for node in NODES]


def _short(answer: Any) -> str:
    kind = type(answer).__name__.removesuffix("Error")
    return {"NoneType": "runs", "TryAgain": "again"}.get(
        kind
    ) or f"{kind} {NODES.index((answer.host, answer.port, False))}"


async def _states(slots: SlotMoves) -> list[list[str]]:
    """Return the different answers of the nodes during a move, in order."""
    seen = [answers(slots)]
    move = asyncio.ensure_future(slots.move(1))
    while not move.done():
        await asyncio.sleep(0)
        if (now := answers(slots)) != seen[-1]:
            seen.append(now)
    assert move.result()
    return seen


def test_nodes_redirect_while_a_slot_moves() -> None:
    lua = LuaServer()
    before, _, during, moved, *_, after = asyncio.run(_states(SlotMoves(lua, Random(1))))
    assert before == ["runs", "Moved 0", "Moved 0"] * 2
    (target,) = [one for one in (1, 2) if moved[3 + one] == "runs"]
    assert (during[0], during[3 + target]) == ("again", "again")
    assert (moved[0], moved[target]) == (f"Ask {target}", "Moved 0")
    assert [after[target], after[3 - target], after[0]] == ["runs", f"Moved {target}", f"Moved {target}"]


def test_a_node_without_keys_tells_all_owners() -> None:
    slots = SlotMoves(LuaServer(), Random(1))
    asyncio.run(_states(slots))
    ranges = slots.redirection(NODES[1], ("CLUSTER", "SLOTS"), asking=False)
    assert [one[0] for one in ranges] == [0, SLOT, SLOT + 1]
    assert [one[1] for one in ranges] == [SLOT - 1, SLOT, 16_383]
    assert ranges[1][2] != ranges[0][2] == ranges[2][2]


def test_seeds_with_moves_show_no_violation() -> None:
    fired: dict[str, int] = {}
    for seed in SEEDS:
        report = run_seed(seed, store="lua")
        assert report.violations == (), (seed, report.violations)
        fired = {kind: fired.get(kind, 0) + report.faults.get(kind, 0) for kind in KINDS}
    assert min(fired.values()) >= 1, fired
