"""Pages of the Python reference: the public names, grouped by task, for autodoc."""

from __future__ import annotations

__all__ = ["GROUPS", "python_pages"]

from typing import Final

import quota_engine

GROUPS: Final = {
    "engine": (
        "The engine",
        "Open an engine, publish days, reserve and confirm. Both classes have the same methods; those of "
        "`AsyncQuotaEngine` are awaited.",
        ("QuotaEngine", "AsyncQuotaEngine"),
    ),
    "rooms-and-draws": (
        "Waiting rooms and draws",
        "`engine.room(id)` and `engine.draw(id)` return these objects.",
        ("WaitingRoom", "AsyncWaitingRoom", "RoomSettings", "Draw", "AsyncDraw", "DrawConfig", "DrawChoice"),
    ),
    "token-buckets": (
        "Token buckets",
        "Rate limits without a catalog.",
        ("TokenBuckets", "AsyncTokenBuckets", "TakeResult", "LimitLevel"),
    ),
    "results": (
        "Results and records",
        "Values that methods return.",
        (),
    ),
    "errors": (
        "Errors",
        "All errors derive from `QuotaEngineError`. A full quota is no error.",
        tuple(
            name
            for name in quota_engine.__all__
            if isinstance(getattr(quota_engine, name), type) and issubclass(getattr(quota_engine, name), Exception)
        ),
    ),
    "catalog": (
        "Catalog, clocks and keys",
        "Load a catalog, set the time in a test, decode keys.",
        ("Catalog", "load_catalog", "SystemClock", "ManualClock", "TicketKeys", "decode_identity_key", "Caller"),
    ),
}
"""Pages of the names in ``quota_engine.__all__``: title, introduction, names. ``results`` has the names of no other."""

_FURTHER: Final = {
    "admission": ("Admission policies", "Policies decide who may try to take a place.", "quota_engine.admission"),
    "catalogs": ("Functions of catalogs", "Opening times, working days, differences.", "quota_engine.catalog"),
    "rate-limiting": (
        "Rate limits in applications",
        "A decorator, and middleware for ASGI and WSGI.",
        "quota_engine.rate_limiting",
    ),
    "client": ("Clients of the service", "The engine's methods over HTTP.", "quota_engine.client"),
    "stores": ("Interfaces of stores", "A store of your own implements these interfaces.", "quota_engine.ports"),
}
"""Pages of a whole public package, besides the names that ``quota_engine`` has as well."""


def _directive(name: str, module: str = "quota_engine") -> list[str]:
    found = getattr(__import__(module, fromlist=[name]), name)
    if not isinstance(found, type):
        kind = "autofunction" if callable(found) and hasattr(found, "__code__") else "autodata"
        return [f".. {kind}:: {module}.{name}", ""]
    if name.startswith("Async") and hasattr(quota_engine, name.removeprefix("Async")):
        # Its methods and their descriptions are those of the synchronous class.
        return [f".. autoclass:: {module}.{name}", *(["   :members: open"] if hasattr(found, "open") else []), ""]
    options = ["   :members:", "   :inherited-members: Exception, Struct, object, tuple, int, str, Enum, StrEnum"]
    return [f".. autoclass:: {module}.{name}", *options, ""]


def _page(title: str, introduction: str, directives: list[str]) -> str:
    return "\n".join([f"# {title}", "", introduction, "", "```{eval-rst}", *directives, "```", ""])


def python_pages() -> dict[str, str]:
    """Return the pages of the Python reference by their place on the site."""
    grouped = {name for _, _, names in GROUPS.values() for name in names}
    rest = tuple(name for name in quota_engine.__all__ if name not in grouped and not name.startswith("__"))
    pages = {}
    for place, (title, introduction, names) in GROUPS.items():
        directives = [line for name in names or rest for line in _directive(name)]
        pages[f"reference/python/{place}.md"] = _page(title, introduction, directives)
    for place, (title, introduction, module) in _FURTHER.items():
        package = __import__(module, fromlist=["__all__"])
        public = [*package.__all__]
        own_names = [name for name in public if getattr(quota_engine, name, None) is not getattr(package, name)]
        directives = [line for name in own_names for line in _directive(name, module)]
        pages[f"reference/python/{place}.md"] = _page(title, introduction, directives)
    return pages
