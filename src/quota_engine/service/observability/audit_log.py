"""Who of the operators did what: a line in the log for each of their commands, whether by the interface or the pages.

Names of the catalog, days, ids and numbers are in it, and nothing else that somebody has typed: no identity, no seed.
"""

from __future__ import annotations

__all__ = ["LOGGER", "in_the_log", "with_a_line", "write_down"]

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from quota_engine.service.http.endpoint import Call

LOGGER: Final = "quota_engine.operators"
_logger = logging.getLogger(LOGGER)
_is_name = re.compile(r"(?!.*[0-9]{16})[A-Za-z0-9_.~-]{1,160}").fullmatch
"""A national number has sixteen digits: no name of ours has, and somebody may have typed one into the wrong field."""


def write_down(who: str, what: str, about: Mapping[str, object], came_to: object) -> None:
    """Write down that the owner of the token ``who`` gave the command ``what`` about this, and what it came to."""
    told = "".join(f" {name}={value}" for name, value in about.items() if _is_name(str(value)))
    _logger.info("%s: %s%s: %s", who, what, told, came_to)


async def in_the_log(who: str, what: str, about: Mapping[str, object], doing: Awaitable[Any]) -> Any:
    """Carry a command out, and write it down with the HTTP status of its answer, or with what it failed of."""
    came_to: object = "cut off"
    try:
        answer = await doing
        came_to = getattr(answer, "http", 0) or answer.status_code
        return answer
    except Exception as error:
        came_to = type(error).__name__
        raise
    finally:
        write_down(who, what, about, came_to)


def with_a_line(name: str, handler: Callable[[Any, Call], Awaitable[Any]]) -> Callable[[Any, Call], Awaitable[Any]]:
    """The handler of the call ``name``, with a line for each time that it is carried out."""

    async def carried_out(service: Any, call: Call) -> Any:
        who = "" if call.grant is None else call.grant.name
        about = {**call.path, **_numbers_of(call.body), "request": call.request_id}
        return await in_the_log(who, name, about, handler(service, call))

    return carried_out


def _numbers_of(body: Any) -> dict[str, object]:
    """The numbers and dates of a body: what was set to what."""
    fields = msgspec.to_builtins(body) if isinstance(body, msgspec.Struct) else {}
    return {name: value for name, value in fields.items() if type(value) is int or name in ("first_day", "last_day")}
