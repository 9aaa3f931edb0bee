"""Audit log of operators' commands: one log line for each, whether it came through the API or the pages.

A line has names of the catalog, days, ids and numbers, and no other text that a person has typed: neither an identity
nor a seed.
"""

from __future__ import annotations

__all__ = ["LOGGER_NAME", "record", "recorded"]

import logging
import re
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from quota_engine.service.observability.command_log import CommandLog

LOGGER_NAME: Final = "quota_engine.operators"
_logger = logging.getLogger(LOGGER_NAME)
_is_loggable = re.compile(r"(?!.*(?:[0-9][_.~-]*){16})[A-Za-z0-9_.~-]{1,160}").fullmatch
"""A national identity number has 16 digits, no name here has, and a person may type one into the wrong field.

Separators count as nothing, because people write the number in groups.
"""


def record(operator: str, command: str, subject: Mapping[str, object], result: object) -> None:
    """Log that ``operator`` gave ``command``.

    Args:
        operator: name of the token's owner.
        subject: what the command was about; fields are left out whose name or value is not a plain name or number.
        result: HTTP status, or the name of an error.
    """
    fields = "".join(f" {name}={value}" for name, value in _loggable(subject).items())
    _logger.info("%s: %s%s: %s", operator, command, fields, result)


def _loggable(subject: Mapping[str, object]) -> dict[str, str]:
    # A form may also choose names, such as that of a quota whose capacity it sets.
    return {name: str(value) for name, value in subject.items() if _is_loggable(name) and _is_loggable(str(value))}


async def recorded(
    commands: CommandLog, operator: str, command: str, subject: Mapping[str, object], work: Awaitable[Any]
) -> Any:
    """Await ``work``, and log the command with the HTTP status of its response or the name of its error.

    Args:
        commands: where the command is recorded for the operators' pages, too.
        operator: name of the token's owner.
        command: name of the call, or path of the page.
        subject: as for :func:`record`.
        work: returns the response.

    Returns:
        The response that ``work`` returns.
    """
    result: object = "canceled"
    try:
        response = await work
        result = getattr(response, "status", 0) or response.status_code
        return response
    except Exception as error:
        result = type(error).__name__
        raise
    finally:
        record(operator, command, subject, result)
        await commands.add(operator, command, _loggable(subject), str(result))
