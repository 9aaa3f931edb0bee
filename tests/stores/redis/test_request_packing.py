"""Requests have the bytes that redis-py would send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from redis.connection import Connection

from quota_engine.stores.redis.request_packing import pack_requests
from quota_engine.stores.redis.scripts import FUNCTION_LIBRARY, OFFICE_COMMANDS, TOUCH

_WORDS = st.builds(
    lambda words: ["SET", *words],
    st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.integers(0, 2**53), max_size=6),
)
_SCRIPTS = st.builds(
    lambda keys, lines: ["EVALSHA", "5f" * 20, str(len(keys)), *keys, *lines],
    st.lists(st.text("abc:{}~é", max_size=8), max_size=5),
    st.lists(st.text(max_size=9) | st.integers(-5, 9), max_size=5),
)


@given(st.lists(_WORDS | _SCRIPTS, max_size=4))
def test_requests_are_packed_as_by_the_client_library(requests: list[list[str | int]]) -> None:
    """Any words, in scripts and other commands, of any alphabet."""
    assert pack_requests(requests) == b"".join(Connection().pack_commands(requests))


def test_repeated_script_calls_differ_only_in_their_lines() -> None:
    """The remembered beginning of one ledger is not sent to another one, nor with another number of lines."""
    for keys in (("{a}:head", "{a}:days"), ("{b}:head", "{b}:days"), ("{a}:head",)):
        for lines in (("x",), ("x", "y"), ()):
            words = ("EVALSHA", "ab" * 20, str(len(keys)), *keys, *lines)
            assert pack_requests([words]) == b"".join(Connection().pack_commands([words]))


def test_texts_of_scripts_are_packed_as_by_the_client_library() -> None:
    requests = [
        *(("EVAL", script.text, "1", "{a}:head", "é") for script in (OFFICE_COMMANDS, TOUCH, OFFICE_COMMANDS)),
        ("FUNCTION", "LOAD", FUNCTION_LIBRARY.text),
        ("EVAL", "return 'é'", "0"),
    ]
    assert pack_requests(requests) == b"".join(Connection().pack_commands(requests))
