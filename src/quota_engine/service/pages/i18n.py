"""Texts of the pages in Indonesian and English, and the formats of dates, times and numbers."""

from __future__ import annotations

__all__ = ["CITIZEN_TEXTS", "LANGUAGES", "OPERATOR_TEXTS", "Texts", "Translator", "preferred_language"]

import datetime
import importlib.resources
import tomllib
from collections.abc import Mapping, Sequence
from typing import Final

Texts = Mapping[str, Mapping[str, str]]
"""Texts by key, then by language."""

LANGUAGES: Final = ("id", "en")
_ACCEPTED_LANGUAGES_MAX: Final = 20
_DATES_LISTED_MAX: Final = 3
_HOURS_FROM_MINUTES: Final = 120
_WEEKDAYS: Final = {
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


def _read_texts(*tables: str) -> dict[str, dict[str, str]]:
    """Return the texts of some tables of the languages' files, by key and then by language."""
    texts: dict[str, dict[str, str]] = {}
    for language, file in _FILES.items():
        for table in tables:
            for key, text in file[table].items():
                texts.setdefault(key, {})[language] = text
    return texts


_FILES: Final = {
    language: tomllib.loads(
        (importlib.resources.files(__package__) / "texts" / f"{language}.toml").read_text(encoding="utf-8")
    )
    for language in LANGUAGES
}
CITIZEN_TEXTS: Final[Texts] = _read_texts("shared", "citizen")
OPERATOR_TEXTS: Final[Texts] = _read_texts("shared", "operator")


class Translator:
    """Texts and formats of one language. ``translator("key", gap=value)`` returns a text with its gaps filled in."""

    def __init__(self, language: str, texts: Texts) -> None:
        """Use ``texts`` in ``language``, which is one of :data:`LANGUAGES`."""
        self.language = language
        self._texts = texts

    def __call__(self, key: str, **gaps: object) -> str:
        """Return the text of a key. Raises ``KeyError`` for an unknown key or a missing gap."""
        text = self._texts[key][self.language]
        return text.format(**gaps) if gaps else text

    def has(self, key: str) -> bool:
        """Return True if the key has a text."""
        return key in self._texts

    def count(self, key: str, count: int, **gaps: object) -> str:
        """Return the text of a key with ``{count}`` filled in; for 1, the text of ``key_one`` if it exists."""
        one = f"{key}_one"
        return self(one if count == 1 and one in self._texts else key, count=self.number(count), **gaps)

    def number(self, number: int) -> str:
        """Format a number with separators: ``12.345`` in Indonesian, ``12,345`` in English."""
        text = f"{number:,}"
        return text.replace(",", ".") if self.language == "id" else text

    def date(self, day: datetime.date) -> str:
        """Format a date with its weekday: ``Senin, 7 Desember 2026``."""
        weekday, month = _WEEKDAYS[self.language][day.weekday()], _MONTHS[self.language][day.month - 1]
        return f"{weekday}, {day.day} {month} {day.year}"

    def weekdays(self) -> list[str]:
        """Return the names of the weekdays, from Monday on."""
        return list(_WEEKDAYS[self.language])

    def dates(self, days: Sequence[datetime.date]) -> str:
        """Format ordered dates: all of them up to three, otherwise the first and the last."""
        if len(days) > _DATES_LISTED_MAX:
            return self("date_range", first=self.date(days[0]), last=self.date(days[-1]))
        return "; ".join(self.date(day) for day in days)

    def time(self, moment: datetime.datetime) -> str:
        """Format a time of day with its zone: ``14.00 WIB`` in Indonesian, ``14:00 WIB`` in English."""
        return f"{self._clock_time(moment.time())} {moment.tzname()}"

    def moment(self, moment: datetime.datetime) -> str:
        """Format a date and a time of day with its zone."""
        return f"{self.date(moment.date())} {self.time(moment)}"

    def time_range(self, start: datetime.time, end: datetime.time) -> str:
        """Format a time window: ``08.00–12.00`` in Indonesian, ``08:00–12:00`` in English."""
        return f"{self._clock_time(start)}–{self._clock_time(end)}"

    def duration(self, duration_ms: int) -> str:
        """Format a duration, rounded up to minutes, and to hours from two hours on."""
        minutes = -(-duration_ms // 60_000)
        if minutes < 1:
            return self("less_than_a_minute")
        if minutes < _HOURS_FROM_MINUTES:
            return self.count("minutes", minutes)
        return self.count("hours", -(-minutes // 60))

    def countdown(self, remaining_ms: int) -> str:
        """Format a countdown: ``4:59`` or ``1:04:59``, with whole days in front.

        The page's script counts on from it.
        """
        seconds = max(0, -(-remaining_ms // 1000))
        days, seconds = divmod(seconds, 86_400)
        hours, seconds = divmod(seconds, 3600)
        minutes, seconds = divmod(seconds, 60)
        clock = f"{hours}:{minutes:02}:{seconds:02}" if hours or days else f"{minutes}:{seconds:02}"
        return f"{self.count('days', days)} {clock}" if days else clock

    def _clock_time(self, time: datetime.time) -> str:
        return f"{time:%H}.{time:%M}" if self.language == "id" else f"{time:%H}:{time:%M}"


def preferred_language(chosen: str, accept_language: str) -> str:
    """Return the language of a reader.

    Args:
        chosen: Language that the reader has chosen; anything else than :data:`LANGUAGES` is ignored.
        accept_language: ``Accept-Language`` header, whose first known language counts. Weights are ignored.

    Returns:
        One of :data:`LANGUAGES`; Indonesian if neither argument names one.
    """
    if chosen in LANGUAGES:
        return chosen
    for part in accept_language.split(",", _ACCEPTED_LANGUAGES_MAX)[:_ACCEPTED_LANGUAGES_MAX]:
        code = part.partition(";")[0].strip().lower().partition("-")[0]
        if code in LANGUAGES:
            return code
    return LANGUAGES[0]
