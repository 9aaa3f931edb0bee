"""History files: one JSON object a line, in any order.

``{"call": {...}}`` has the fields of :class:`~quota_engine.history.checker.CallRecord`, ``{"loss": {...}}`` those of
:class:`~quota_engine.history.checker.Loss`. ``{"office": "…", "event": {...}}`` has an event as the HTTP API shows it;
the events of an office are in order. ``{"office": "…", "day": 739000, "terms": {...}}`` describes a day of an office
without events. ``{"clock_is_real": false}`` says that clocks were set during the run.
"""

from __future__ import annotations

__all__ = ["HistoryError", "dump", "load"]

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from quota_engine.history.calls import CallRecord
from quota_engine.history.checker import History, Loss


class HistoryError(ValueError):
    """A line of a history file is not what it should be."""


def load(lines: Iterable[str]) -> History:
    """Read a history.

    Raises:
        HistoryError: A line is no JSON object, or lacks a field; the message names the line.
    """
    history = History()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if "call" in entry:
                history.calls.append(CallRecord.of(entry["call"]))
            elif "loss" in entry:
                history.losses.append(Loss(**entry["loss"]))
            elif "event" in entry:
                event = entry["event"]
                _ = event["number"], event["at_ms"], event["kind"]
                history.events.setdefault(entry["office"], []).append(event)
            elif "terms" in entry:
                history.days.setdefault(entry["office"], {})[int(entry["day"])] = _terms_of(entry["terms"])
            elif "clock_is_real" in entry:
                history.clock_is_real = bool(entry["clock_is_real"])
            else:
                raise HistoryError("neither a call nor an event nor a day nor a loss")
        except (ValueError, TypeError, KeyError) as error:
            raise HistoryError(f"line {number} is no entry of a history ({error!r})") from None
    return history


def _terms_of(terms: Mapping[str, Any]) -> Mapping[str, Any]:
    _ = [terms[name] for name in ("opens_at_ms", "starts_at_ms", "ends_at_ms", "forget_at_ms")]
    _ = [(quota["name"], quota["capacity"]) for quota in terms["quotas"]]
    return terms


def dump(history: History) -> Iterator[str]:
    """Write a history, line by line and without line ends."""
    if not history.clock_is_real:
        yield _line({"clock_is_real": False})
    for office, events in sorted(history.events.items()):
        for event in events:
            yield _line({"office": office, "event": event})
    for office, days in sorted(history.days.items()):
        for day, terms in sorted(days.items()):
            yield _line({"office": office, "day": day, "terms": terms})
    for loss in history.losses:
        yield _line({"loss": dataclasses.asdict(loss)})
    for call in history.calls:
        yield _line({"call": _fields_of(call)})


def _fields_of(call: CallRecord) -> dict[str, Any]:
    """Return the fields of a call that differ from their defaults."""
    fields = {one.name: getattr(call, one.name) for one in dataclasses.fields(call) if one.name != "shown"}
    defaults = {one.name: one.default for one in dataclasses.fields(call)}
    kept = {name: value for name, value in fields.items() if value != defaults[name]}
    place = call.shown
    if place is not None:
        shown = place._asdict()
        kept["shown"] = {**shown, "reference": f"{call.office}~{shown.pop('id')}"}
    return kept


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True, default=str)
