"""Checks of form fields, and the reason of a refused command in words."""

from __future__ import annotations

__all__ = ["is_count", "queue_number", "refusal_reason"]

import re

from quota_engine.domain.outcomes import Status
from quota_engine.service.pages.i18n import Translator
from quota_engine.waiting_room.results import RoomStatus

_QUEUE_NUMBER_DIGITS_MAX = 8
is_count = re.compile(r"[0-9]{1,8}").fullmatch


def queue_number(text: str) -> int | None:
    """Return the queue number that a text stands for, or ``None`` without a number of at most 8 digits."""
    return int(text) if text.isdecimal() and len(text) <= _QUEUE_NUMBER_DIGITS_MAX else None


def refusal_reason(translator: Translator, status: Status | RoomStatus) -> str:
    """Return the reason of a refusal in words, or the status itself if it has no text."""
    key = f"why_{status}"
    return translator(key) if translator.has(key) else str(status)
