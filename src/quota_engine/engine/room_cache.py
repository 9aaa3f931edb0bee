"""The waiting rooms that an engine has handed out, so that all callers of a room share one view of it."""

from __future__ import annotations

__all__ = ["RoomCache"]

from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from quota_engine.workflows.room_view_cache import RoomViewCache

RoomT = TypeVar("RoomT")

ROOMS_MAX: Final = 1_000
ROOMS_KEPT: Final = 750


class CachedRoom(NamedTuple, Generic[RoomT]):
    """A room, and the view that it answers from."""

    view_cache: RoomViewCache
    room: RoomT


class RoomCache(Generic[RoomT]):
    """Up to 1,000 rooms by name. Safe to share between threads."""

    def __init__(
        self, new_view_cache: Callable[[str], RoomViewCache], new_room: Callable[[RoomViewCache], RoomT]
    ) -> None:
        """Create an empty cache.

        Args:
            new_view_cache: creates the empty view of the room of a name.
            new_room: creates the room that answers from a view.
        """
        self._new_view_cache = new_view_cache
        self._new_room = new_room
        self._rooms: dict[str, CachedRoom[RoomT]] = {}

    def get(self, name: str) -> RoomT:
        """Return the room of this name.

        Raises:
            InvalidRequest: this is not a name.
        """
        return self._get(name).room

    def view_cache(self, name: str) -> RoomViewCache:
        """Return the view that the room of this name answers from. Raises as :meth:`get` does."""
        return self._get(name).view_cache

    def _get(self, name: str) -> CachedRoom[RoomT]:
        cached = self._rooms.get(name) if isinstance(name, str) else None
        if cached is None:
            view_cache = self._new_view_cache(name)
            if len(self._rooms) >= ROOMS_MAX:
                self._evict()
            cached = self._rooms.setdefault(name, CachedRoom(view_cache, self._new_room(view_cache)))
        return cached

    def clear(self) -> None:
        """Forget all rooms."""
        self._rooms.clear()

    def __len__(self) -> int:
        return len(self._rooms)

    def _evict(self) -> None:
        """Evict the unknown rooms, then the oldest ones.

        Lookups of unknown rooms must not evict real ones. An eviction leaves space for many rooms, so that it does not
        run at each call.
        """
        for name in [name for name, cached in list(self._rooms.items()) if not cached.view_cache.is_known]:
            self._rooms.pop(name, None)
        for name in list(self._rooms)[: max(0, len(self._rooms) - ROOMS_KEPT)]:
            self._rooms.pop(name, None)
