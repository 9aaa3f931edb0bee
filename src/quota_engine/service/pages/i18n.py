"""What the pages say, in Indonesian and English: ``texts.toml``, and how days and times are said."""

from __future__ import annotations

__all__ = ["LANGUAGES", "Words", "language_of"]

import datetime
import importlib.resources
import tomllib
from collections.abc import Sequence
from typing import Final

LANGUAGES: Final = ("id", "en")

_TEXTS: Final[dict[str, dict[str, str]]] = {
    name: text
    for file in ("texts.toml", "operator_texts.toml")
    for name, text in tomllib.loads((importlib.resources.files(__package__) / file).read_text(encoding="utf-8")).items()
}
_DAYS: Final = {
    "id": ("Senin", "Selasa", "Rabu", "Kamis", "Jumat", "Sabtu", "Minggu"),
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
}
_MONTHS: Final = {
    "id": (
        "Januari", "Februari", "Maret", "April", "Mei", "Juni", "Juli", "Agustus", "September", "Oktober", "November",
        "Desember",
    ),
    "en": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ),
}  # fmt: skip


class Words:
    """The texts of one language. ``words("name", key=value)`` is a text with its gaps filled in."""

    def __init__(self, language: str) -> None:
        self.language = language

    def __call__(self, name: str, **gaps: object) -> str:
        """The text of this name. Raises ``KeyError`` if there is none."""
        text = _TEXTS[name][self.language]
        return text.format(**gaps) if gaps else text

    def has(self, name: str) -> bool:
        """Whether there is a text of this name."""
        return name in _TEXTS

    def count(self, name: str, count: int, **gaps: object) -> str:
        """The text of this name with its ``{count}``; the one that ends in ``_one`` if there is one, and one it is."""
        one = f"{name}_one"
        return self(one if count == 1 and one in _TEXTS else name, count=self.number(count), **gaps)

    def number(self, number: int) -> str:
        """A number as it is written: ``12.345`` in Indonesian, ``12,345`` in English."""
        text = f"{number:,}"
        return text.replace(",", ".") if self.language == "id" else text

    def date(self, day: datetime.date) -> str:
        """A day as people say it: ``Senin, 7 Desember 2026``."""
        weekday, month = _DAYS[self.language][day.weekday()], _MONTHS[self.language][day.month - 1]
        return f"{weekday}, {day.day} {month} {day.year}"

    def dates(self, days: Sequence[datetime.date]) -> str:
        """Several days, in order: each by itself, or the first and the last of more than three."""
        if len(days) > 3:
            return self("from_to", first=self.date(days[0]), last=self.date(days[-1]))
        return "; ".join(self.date(day) for day in days)

    def time(self, moment: datetime.datetime) -> str:
        """A time of day, with its zone: ``14.00 WIB`` in Indonesian, ``14:00 WIB`` in English."""
        return f"{self._hour(moment.time())} {moment.tzname()}"

    def hours(self, start: datetime.time, end: datetime.time) -> str:
        """A time window: ``08.00–12.00`` in Indonesian, ``08:00–12:00`` in English."""
        return f"{self._hour(start)}–{self._hour(end)}"

    def duration(self, duration_ms: int) -> str:
        """How long something takes, rounded up: minutes, and from two hours on hours."""
        minutes = -(-duration_ms // 60_000)
        if minutes < 1:
            return self("moment_only")
        if minutes < 120:
            return self.count("minutes", minutes)
        return self.count("hours", -(-minutes // 60))

    def left(self, bounds_ms: int) -> str:
        """What a clock shows: ``4:59``, ``1:04:59``, and whole days in front. The page's script goes on counting."""
        seconds = max(0, -(-bounds_ms // 1000))
        days, seconds = divmod(seconds, 86_400)
        hours, seconds = divmod(seconds, 3600)
        minutes, seconds = divmod(seconds, 60)
        clock = f"{hours}:{minutes:02}:{seconds:02}" if hours or days else f"{minutes}:{seconds:02}"
        return f"{self.count('days_count', days)} {clock}" if days else clock

    def _hour(self, time: datetime.time) -> str:
        return f"{time:%H}.{time:%M}" if self.language == "id" else f"{time:%H}:{time:%M}"

    def moment(self, moment: datetime.datetime) -> str:
        """A day and a time."""
        return f"{self.date(moment.date())} {self.time(moment)}"


def language_of(chosen: str, accept: str) -> str:
    """The language that was chosen, else the browser's first that there is, else Indonesian."""
    if chosen in LANGUAGES:
        return chosen
    for part in accept.split(",", 20)[:20]:
        code = part.partition(";")[0].strip().lower().partition("-")[0]
        if code in LANGUAGES:
            return code
    return LANGUAGES[0]
