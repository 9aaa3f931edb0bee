"""Requests as bytes of the Redis protocol.

redis-py packs a request word by word. The script and the keys of a ledger, sixteen words of a reserve, are the same in
each of its calls. So the keys remember the packed beginnings of their requests. The texts of scripts, which have up to
300 kB, are remembered as well.
"""

from __future__ import annotations

__all__ = ["Beginning", "Requests", "ScriptKeys", "ScriptRequest", "pack_requests", "words_of"]

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

_SIZES: Final = [f"${size}\r\n" for size in range(512)]
"""The beginnings of short words: a number costs as much as the rest of a line."""
_TEXTS_MAX: Final = 64
"""Remembered texts of scripts: the package has fewer."""


class Beginning:
    """The words of a request that each call of a ledger repeats.

    Attributes:
        words: The command, the script or function, the number of keys, and the keys.
        packed: The same in the form in which they travel.
        size: The number of these words.
    """

    __slots__ = ("packed", "size", "words")

    def __init__(self, words: Sequence[str], packed: str) -> None:
        self.words, self.packed, self.size = words, packed, len(words)


class ScriptKeys(tuple[str, ...]):
    """The keys that a script declares. They remember the packed beginnings of their requests, of about 1 kB each."""

    _beginnings: dict[str, Beginning]

    def beginning(self, name: str, code: str) -> Beginning:
        """Return the beginning of a request.

        Args:
            name: The command, such as ``EVALSHA``.
            code: The script or function. There are few of a ledger.
        """
        try:
            return self._beginnings[code]
        except AttributeError:
            self._beginnings = {}
        except KeyError:
            pass
        words = name, code, str(len(self)), *self
        pack = _pack_text if name == "EVAL" else _pack_word
        known = Beginning(words, "".join((_pack_word(name), pack(code), *map(_pack_word, words[2:]))))
        if name != "EVAL":  # its text is remembered once for all keys
            self._beginnings[code] = known
        return known


class ScriptRequest(NamedTuple):
    """A request to run a script.

    Attributes:
        name: The command.
        beginning: The command, the script and its keys.
        header: The first argument.
        lines: The other ones.
    """

    name: str
    beginning: Beginning
    header: str
    lines: Sequence[str]


Requests = Sequence[Sequence[str | int] | ScriptRequest]
"""Requests to one server, each as words or to run a script. The first element is the command."""


def words_of(request: Sequence[str | int] | ScriptRequest) -> list[str]:
    """Return all words of a request as text."""
    if isinstance(request, ScriptRequest):
        return [*request.beginning.words, request.header, *request.lines]
    return [str(word) for word in request]


def pack_requests(requests: Requests) -> bytes:
    """Return requests in the form in which they travel."""
    parts: list[str] = []
    for request in requests:
        if type(request) is ScriptRequest:
            _, beginning, header, lines = request
            parts += (f"*{beginning.size + 1 + len(lines)}\r\n", beginning.packed, _pack_lines((header, *lines)))
            continue
        parts.append(f"*{len(request)}\r\n")
        if request[0] == "FUNCTION":  # the last word is the text of the library
            parts += [_pack_word(str(word)) for word in request[:-1]]
            parts.append(_pack_text(str(request[-1])))
        else:
            parts += [_pack_word(str(word)) for word in request]
    return "".join(parts).encode()


def _pack_lines(lines: Sequence[str]) -> str:
    try:
        packed = "".join([f"{_SIZES[len(line)]}{line}\r\n" for line in lines])
    except IndexError:  # a long line
        packed = ""
    # One look at all lines: nearly all of them are of ASCII.
    return packed if packed and packed.isascii() else "".join([_pack_word(line) for line in lines])


def _pack_word(word: str | int) -> str:
    text = str(word)
    return f"${len(text.encode())}\r\n{text}\r\n"


@lru_cache(_TEXTS_MAX)
def _pack_text(text: str) -> str:
    return _pack_word(text)
