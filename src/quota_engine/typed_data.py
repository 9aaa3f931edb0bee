"""Conversion to typed data by msgspec, safe in any number of threads from the first call on.

msgspec analyzes a struct class at the first conversion to it, and runs Python code meanwhile. Another thread that
converts to the same class at that moment reads half an analysis. With msgspec 0.22 the process ends with a segmentation
fault. So one thread analyzes a type here, before any thread uses it. Other modules do not call msgspec's own functions
for this; the linter refuses them.
"""

from __future__ import annotations

__all__ = ["JsonDecoder", "convert", "decode_json", "json_decoder", "msgpack_decoder"]

import os
import threading
from typing import Any, Final, TypeVar, overload

import msgspec

T = TypeVar("T")

JsonDecoder = msgspec.json.Decoder
"""The type of a decoder, for annotations."""

_lock: Final = threading.Lock()
_analyzed: Final[set[Any]] = set()


def _analyze(target: Any) -> None:
    with _lock:
        if target not in _analyzed:
            msgspec.json.Decoder(target)
            _analyzed.add(target)


@overload
def convert(value: Any, target: type[T], *, strict: bool = True) -> T: ...


@overload
def convert(value: Any, target: Any, *, strict: bool = True) -> Any: ...


def convert(value: Any, target: Any, *, strict: bool = True) -> Any:
    """Return a value of built-in types as a value of a type, like ``msgspec.convert``.

    Args:
        value: Mappings, sequences and scalars.
        target: The type.
        strict: False to read numbers and booleans from text.

    Raises:
        msgspec.ValidationError: The value does not match the type.
    """
    if target not in _analyzed:
        _analyze(target)
    return msgspec.convert(value, target, strict=strict)


@overload
def decode_json(text: bytes | str, target: type[T]) -> T: ...


@overload
def decode_json(text: bytes | str, target: Any = Any) -> Any: ...


def decode_json(text: bytes | str, target: Any = Any) -> Any:
    """Return the value of a JSON text as a value of a type, like ``msgspec.json.decode``.

    Raises:
        msgspec.DecodeError: The text is not JSON.
        msgspec.ValidationError: The value does not match the type.
    """
    if target not in _analyzed:
        _analyze(target)
    return msgspec.json.decode(text, type=target)


@overload
def json_decoder(target: type[T]) -> msgspec.json.Decoder[T]: ...


@overload
def json_decoder(target: Any = Any) -> msgspec.json.Decoder[Any]: ...


def json_decoder(target: Any = Any) -> msgspec.json.Decoder[Any]:
    """Return a decoder of JSON texts that several threads may use."""
    _analyze(target)
    return msgspec.json.Decoder(target)


@overload
def msgpack_decoder(target: type[T]) -> msgspec.msgpack.Decoder[T]: ...


@overload
def msgpack_decoder(target: Any = Any) -> msgspec.msgpack.Decoder[Any]: ...


def msgpack_decoder(target: Any = Any) -> msgspec.msgpack.Decoder[Any]:
    """Return a decoder of MessagePack texts that several threads may use."""
    _analyze(target)
    return msgspec.msgpack.Decoder(target)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    # A child would keep the half analysis of another thread forever.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
