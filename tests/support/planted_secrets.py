"""Planted identities and secrets, and a search for them in everything that a service lets out or keeps.

The search finds each form in which a value could leave: plain, percent-encoded, with HTML entities or JSON escapes,
in base64 or in hex. It finds an identity in any spelling: with other digits, separators or invisible characters.
"""

from __future__ import annotations

__all__ = ["Sightings", "fold", "forms_of_secret"]

import base64
import html
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote_plus

_JSON_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_SEPARATORS: Final = re.compile(r"[\s.\-_,]+")
_SEPARATOR: Final = "\n\0\n"
"""Separates the texts of a channel, and does not disappear when a text is folded."""
_CONTEXT: Final = 60


def fold(text: str) -> str:
    """Return a text with plain digits, and without separators and invisible characters, so that spellings are equal."""
    return _SEPARATORS.sub("", text if text.isascii() else text.translate(_FOLDED))


class _Folded(dict[int, str]):
    """Characters by their code: digits as plain ones, and nothing for invisible characters."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character) in ("Cf", "Mn"):
            folded = ""
        else:
            folded = str(unicodedata.digit(character)) if character.isdigit() else character
        self[code] = folded
        return folded


_FOLDED: Final = _Folded()


def _decoded(text: str) -> Iterator[str]:
    """Yield a text as it is, and with each kind of escape undone that it has."""
    yield text
    if "%" in text:
        yield unquote_plus(text)
    if "&" in text:
        yield html.unescape(text)
    if "\\u" in text:
        yield _JSON_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def forms_of_secret(secret: bytes) -> set[str]:
    """Return the texts that show a secret: as it is, in base64 at each alignment, and in hex."""
    forms = {secret.hex(), secret.decode("latin-1")}
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + secret)
        # The first and the last characters also depend on the neighbors.
        inner = encoded.rstrip(b"=")[4 if shift else 0 : -1].decode()
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return {form for form in forms if len(form) >= 8}


class Sightings:
    """Everything that a run let out or kept, by channel, and the planted values that must not be in it.

    Args:
        identities: national numbers of 16 digits, in their plain spelling.
    """

    def __init__(self, identities: Iterable[str]) -> None:
        self._identities = tuple(identities)
        self._secrets: dict[str, set[str]] = {}
        self._allowed: dict[str, frozenset[str]] = {}
        self._texts: dict[str, list[str]] = defaultdict(list)

    def plant(self, name: str, *values: str | bytes, allowed: Iterable[str] = ()) -> None:
        """Look for a secret.

        Args:
            name: what it is, for the report.
            values: its values; more may follow in another call.
            allowed: channels that may have it.
        """
        forms = self._secrets.setdefault(name, set())
        for value in values:
            forms |= forms_of_secret(value.encode() if isinstance(value, str) else value)
        self._allowed[name] = frozenset(allowed)

    def plant_text(self, name: str, *values: str, allowed: Iterable[str] = ()) -> None:
        """Look for texts as they are; see :meth:`plant`."""
        self._secrets.setdefault(name, set()).update(values)
        self._allowed[name] = frozenset(allowed)

    def see(self, channel: str, content: str | bytes) -> None:
        """Add a text or bytes that went through a channel."""
        self._texts[channel].append(content if isinstance(content, str) else content.decode("latin-1"))
        if isinstance(content, bytes) and not content.isascii():
            self._texts[channel].append(content.decode(errors="replace"))

    def see_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """Add the headers of a response. Cookies are a separate channel: only their owner gets them."""
        for name, value in headers:
            self.see("cookie" if name.lower() == "set-cookie" else "header", f"{name}: {value}")

    def see_folder(self, channel: str, folder: Path) -> None:
        """Add the names and contents of all files below a folder."""
        for path in sorted(folder.rglob("*")):
            self.see(channel, str(path.relative_to(folder)))
            if path.is_file():
                self.see(channel, path.read_bytes())

    @property
    def sizes(self) -> Mapping[str, int]:
        """The number of characters that each channel carried."""
        return {channel: sum(map(len, texts)) for channel, texts in self._texts.items()}

    def texts(self, channel: str) -> list[str]:
        """Return all that a channel carried."""
        return self._texts[channel]

    def found(self) -> list[str]:
        """Return each planted value that a channel carried against the rules, with the text around it."""
        return sorted({finding for channel in self._texts for finding in self._found_in(channel)})

    def _found_in(self, channel: str) -> Iterator[str]:
        wanted = {
            form: name
            for name, forms in self._secrets.items()
            if channel not in self._allowed[name]
            for form in forms
        }  # fmt: skip
        # One text instead of thousands: a search costs little more than a call.
        for text in _decoded(_SEPARATOR.join(dict.fromkeys(self._texts[channel]))):
            for form, name in wanted.items():
                if form in text:
                    yield f"{channel}: {name}: …{_around(text, form)}…"
            folded = fold(text)
            for identity in self._identities:
                if identity in folded:
                    yield f"{channel}: identity: …{_around(folded, identity)}…"


def _around(text: str, form: str) -> str:
    at = text.index(form)
    return json.dumps(text[max(0, at - _CONTEXT) : at + len(form) + _CONTEXT])
