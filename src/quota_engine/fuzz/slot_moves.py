"""Slots that move between the nodes of a simulated cluster, as the nodes answer for them.

The nodes share the keys of one server, so a move copies nothing. They answer as real nodes do meanwhile: with
``MOVED``, ``ASK`` and ``TRYAGAIN``, and with a map of the slots that each node learns at another time.
"""

from __future__ import annotations

__all__ = ["NODES", "SlotMoves"]

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, TryAgainError

from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.stores.redis.retrying_calls import Node
from quota_engine.stores.redis.routing import SLOTS

NODES: Final = tuple(Node(f"node-{number}", 6379) for number in range(3))
_BEGUN, _PARTLY, _MOVED = range(3)
_SCRIPTED: Final = frozenset({"EVALSHA", "EVAL", "FCALL", "EVALSHA_RO", "EVAL_RO", "FCALL_RO"})
_WITHOUT_KEYS: Final = frozenset({"TIME", "FUNCTION", "SCRIPT"})


class SlotMoves:
    """The owners of slots, as each node knows them. The first node has all slots at first."""

    def __init__(self, lua: LuaServer, random: Random) -> None:
        self._lua = lua
        self._random = random
        self._owners: list[dict[int, int]] = [{} for _ in NODES]
        self._moving: dict[int, tuple[int, int, int]] = {}
        """By slot: source, target and phase of its move."""
        self._slots: dict[int, None] = {}
        """The slots that requests have named, those of the last requests last."""

    def redirection(self, node: Node, request: Sequence[str], *, asking: bool) -> Any:
        """Return the reply of a node that does not carry a request out, or ``None`` if it does.

        Args:
            node: the node.
            request: the request.
            asking: True if ASKING came before it.
        """
        here = NODES.index(node)
        name, *words = request
        if name == "CLUSTER":
            return self._map_of(here)
        if name in _WITHOUT_KEYS:
            return None
        slot = key_slot((words[2] if name in _SCRIPTED else words[0]).encode())
        self._slots.pop(slot, None)
        self._slots[slot] = None  # the last one is the one that was named last
        source, target, phase = self._moving.get(slot, (-1, -1, _BEGUN))
        owner = self._owners[here].get(slot, 0)
        if here == target and asking and owner != here:
            if phase != _MOVED:
                return TryAgainError("Multiple keys request during rehashing of slot")
        elif owner != here:
            return MovedError(f"{slot} {NODES[owner].host}:{NODES[owner].port}")
        elif here == source and phase == _PARTLY:
            return TryAgainError("Multiple keys request during rehashing of slot")
        elif here == source and phase == _MOVED:
            return AskError(f"{slot} {NODES[target].host}:{NODES[target].port}")
        self._lua.replication_id = f"{here}{self._lua.replication_id[1:]}"  # each node has a separate history
        return None

    async def move(self, lasts_ms: int) -> bool:
        """Move a slot that requests have just named to another node; returns False if each of them moves already."""
        slots = [slot for slot in self._slots if slot not in self._moving]
        if not slots:
            return False
        slot = self._random.choice(slots[-2:])
        source = self._owners[0].get(slot, 0)
        target = self._random.choice([one for one in range(len(NODES)) if one != source])
        for phase in (_BEGUN, _PARTLY, _MOVED):
            self._moving[slot] = source, target, phase
            await asyncio.sleep(lasts_ms * self._random.random() / 1000)
        for node in (target, source, 3 - source - target):
            self._owners[node][slot] = target
            await asyncio.sleep(lasts_ms * self._random.random() / 1000)
        del self._moving[slot]
        return True

    def _map_of(self, here: int) -> list[list[Any]]:
        """Return the reply to ``CLUSTER SLOTS``."""
        ranges: list[list[Any]] = []
        first = 0
        for slot, owner in (*sorted(self._owners[here].items()), (SLOTS, 0)):
            if slot > first:
                ranges.append([first, slot - 1, [NODES[0].host, NODES[0].port]])
            if slot < SLOTS:
                ranges.append([slot, slot, [NODES[owner].host, NODES[owner].port]])
            first = slot + 1
        return ranges
