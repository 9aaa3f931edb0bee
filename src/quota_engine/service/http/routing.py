"""Which call an address is: a tree of the addresses' parts, walked in the time that the parts take, however many calls
there are.
"""

from __future__ import annotations

__all__ = ["Table"]

import functools
from typing import Any, Final

from starlette.types import ASGIApp

_ANY: Final = "{}"
_KEPT_MAX: Final = 1_024


class _Node:
    """A part of an address: what may come next, by its text or any (``{}``), and what is here, by method."""

    __slots__ = ("apps", "names", "next")

    def __init__(self) -> None:
        self.next: dict[str, _Node] = {}
        self.apps: dict[str, ASGIApp] = {}
        self.names: tuple[str, ...] = ()


class Table:
    """Applications by method and address; ``/a/{name}`` takes any part that is not empty in place of the name."""

    def __init__(self) -> None:
        self._root = _Node()
        self.find = functools.lru_cache(maxsize=_KEPT_MAX)(self._walk)
        """What is at an address, by method, and the parts that stand for names, which must not be changed; ``None`` if
        nothing is. In a rush nearly all ask for the same.
        """

    def add(self, method: str, path: str, app: ASGIApp) -> None:
        """Put an application at an address. One that is asked for with GET can be asked for with HEAD."""
        node = self._root
        names: list[str] = []
        for part in path.split("/")[1:]:
            if part.startswith("{"):
                names.append(part[1:-1])
                part = _ANY
            node = node.next.setdefault(part, _Node())
        node.apps[method] = app
        if method == "GET":
            node.apps["HEAD"] = app
        node.names = tuple(names)
        self.find.cache_clear()

    def _walk(self, path: str) -> tuple[dict[str, ASGIApp], dict[str, Any]] | None:
        node = self._root
        values: list[str] = []
        for part in path.split("/")[1:]:
            following = node.next.get(part)
            if following is None or part == _ANY:
                following = node.next.get(_ANY)
                if following is None or not part:
                    return None
                values.append(part)
            node = following
        if not node.apps:
            return None
        return node.apps, dict(zip(node.names, values, strict=True))
