"""``quota-engine status``: the counters of a store."""

from __future__ import annotations

__all__ = ["status"]

from quota_engine.cli.day_table import day_table
from quota_engine.cli.output import DONE, AsJson, print_json
from quota_engine.cli.store_access import OfficeIds, day_ordinals, open_store, select_offices
from quota_engine.clocks import SystemClock
from quota_engine.domain.day_summary import day_to_builtins
from quota_engine.ports import View


def status(
    backend: str = "",
    *,
    office: OfficeIds = (),
    first_day: str = "",
    days: int = 7,
    as_json: AsJson = False,
) -> int:
    """Show the current counters of a store by office and day.

    Example:  quota-engine status redis://127.0.0.1 --office surabaya --days 3

    Args:
        backend: URL of the store; default: the variable QUOTA_ENGINE_BACKEND.
        office: id of an office; repeat it for more. Default: all offices of the store.
        first_day: first day as an ISO date; default: today (UTC).
        days: number of days, 1 to 400.
        as_json: print the result as JSON, and nothing else.
    """
    with open_store(backend) as store:
        ordinals = day_ordinals(first_day, days)
        found = {name: store.execute(View(name, ordinals)) for name in select_offices(store, office)}
    if as_json:
        offices = [{"office": name, "days": [day_to_builtins(view) for view in views]} for name, views in found.items()]
        print_json({"offices": offices})
        return DONE
    from rich.console import Console

    Console().print(day_table(found, SystemClock().now_ms()))
    return DONE
