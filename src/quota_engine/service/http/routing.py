"""Routing table of the API: a tree of path segments.

The time of a lookup depends on the length of the path, not on the number of endpoints.
"""

from __future__ import annotations

__all__ = ["RoutingTable"]

import functools
from typing import Any, Final

from starlette.types import ASGIApp

_PARAMETER: Final = "{}"
_CACHED_MAX: Final = 1_024


class _Node:
    """One path segment: the segments that may follow, and the applications at this path by method."""

    __slots__ = ("apps", "children", "parameters")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.apps: dict[str, ASGIApp] = {}
        self.parameters: tuple[str, ...] = ()


class RoutingTable:
    """ASGI applications by method and path. ``/a/{name}`` matches any segment that is not empty."""

    def __init__(self) -> None:
        self._root = _Node()
        self.find = functools.lru_cache(maxsize=_CACHED_MAX)(self._find)
        """Return the applications at a path by method, and the path parameters; ``None`` if the path is unknown.

        Callers must not change the result: it is cached, because nearly all requests of an opening have one path.
        """

    def add(self, method: str, path: str, app: ASGIApp) -> None:
        """Register an application. One for GET also serves HEAD."""
        node = self._root
        parameters: list[str] = []
        for segment in path.split("/")[1:]:
            if segment.startswith("{"):
                parameters.append(segment[1:-1])
                segment = _PARAMETER
            node = node.children.setdefault(segment, _Node())
        node.apps[method] = app
        if method == "GET":
            node.apps["HEAD"] = app
        node.parameters = tuple(parameters)
        self.find.cache_clear()

    def _find(self, path: str) -> tuple[dict[str, ASGIApp], dict[str, Any]] | None:
        node = self._root
        values: list[str] = []
        for segment in path.split("/")[1:]:
            child = node.children.get(segment)
            if child is None or segment == _PARAMETER:
                child = node.children.get(_PARAMETER)
                if child is None or not segment:
                    return None
                values.append(segment)
            node = child
        if not node.apps:
            return None
        return node.apps, dict(zip(node.parameters, values, strict=True))
