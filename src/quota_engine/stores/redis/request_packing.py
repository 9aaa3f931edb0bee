"""Requests as bytes of the Redis protocol.

redis-py packs a request word by word. The script and the keys of a ledger, sixteen words of a reserve, are the same in
each of its calls, so their bytes are remembered. So are those of the scripts' texts, which have up to 300 kB.
"""

from __future__ import annotations

__all__ = ["pack_requests"]

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from quota_engine.stores.redis.retrying_calls import Requests

_PREFIXES_MAX: Final = 4096
"""Remembered beginnings, about 1 kB each: a script and the keys of a ledger."""
_TEXTS_MAX: Final = 64
"""Remembered texts of scripts: the package has fewer."""
_TEXT_AFTER: Final[dict[str | int, tuple[str, ...]]] = {"EVAL": ("EVAL",), "FUNCTION": ("FUNCTION", "LOAD")}
"""The words in front of the text of a script, by the command that has one."""


def pack_requests(requests: Requests) -> bytes:
    """Return requests, each given as words, in the form in which they travel."""
    parts: list[bytes] = []
    for words in requests:
        # The command, the script or function, the number of keys, and the keys.
        constant = 3 + int(words[2]) if words[0] in ("EVALSHA", "FCALL") else 0
        parts.append(b"*%d\r\n" % len(words))
        if constant:
            parts.append(_pack_prefix(tuple(words[:constant])))
        elif words[0] in _TEXT_AFTER:
            before = _TEXT_AFTER[words[0]]
            constant = len(before) + 1
            parts += _pack_prefix(before), _pack_text(str(words[len(before)]))
        # Nearly all words are lines. In ASCII, a text has as many bytes as characters, so all are encoded at once.
        lines = "".join([f"${len(word)}\r\n{word}\r\n" for word in map(str, words[constant:])])
        parts.append(lines.encode() if lines.isascii() else _pack(words[constant:]))
    return b"".join(parts)


@lru_cache(_PREFIXES_MAX)
def _pack_prefix(words: tuple[str | int, ...]) -> bytes:
    return _pack(words)


@lru_cache(_TEXTS_MAX)
def _pack_text(text: str) -> bytes:
    return _pack((text,))


def _pack(words: Sequence[str | int]) -> bytes:
    return b"".join(b"$%d\r\n%b\r\n" % (len(data), data) for data in (str(word).encode() for word in words))
