"""Requests have the bytes that redis-py would send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from redis.connection import Connection

from quota_engine.stores.redis.request_packing import ScriptKeys, ScriptRequest, pack_requests, words_of
from quota_engine.stores.redis.scripts import FUNCTION_LIBRARY, OFFICE_COMMANDS, TOUCH

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
_WORDS = st.builds(lambda words: ["SET", *words], st.lists(_TEXTS | st.integers(0, 2**53), max_size=6))
_SCRIPTS = st.builds(
    lambda name, keys, header, lines: ScriptRequest(name, ScriptKeys(keys).beginning(name, "5f" * 20), header, lines),
    st.sampled_from(["EVAL", "EVALSHA", "FCALL"]),
    st.lists(st.text("abc:{}~é", max_size=8), max_size=5),
    _TEXTS,
    st.lists(_TEXTS, max_size=5),
)


@given(st.lists(_WORDS | _SCRIPTS, max_size=4))
def test_requests_are_packed_as_by_the_client_library(requests: list[list[str | int] | ScriptRequest]) -> None:
    """Any words, in scripts and other commands, of any alphabet."""
    assert pack_requests(requests) == b"".join(Connection().pack_commands(map(words_of, requests)))


def test_repeated_script_calls_differ_only_in_their_lines() -> None:
    """The remembered beginning of one script is not sent for another one, nor that of other keys."""
    ledgers = [ScriptKeys(keys) for keys in (("{a}:head", "{a}:days"), ("{b}:head", "{b}:days"), ("{a}:head",))]
    for keys in (*ledgers, *ledgers):
        for name, code in (("EVALSHA", "ab" * 20), ("EVALSHA", "cd" * 20), ("FCALL", "apply"), ("EVAL", "return 1")):
            for lines in (("x",), ("x", "y"), ()):
                request = ScriptRequest(name, keys.beginning(name, code), "1<2", lines)
                assert words_of(request) == [name, code, str(len(keys)), *keys, "1<2", *lines]
                assert pack_requests([request]) == b"".join(Connection().pack_commands([words_of(request)]))


def test_texts_of_scripts_are_packed_as_by_the_client_library() -> None:
    keys = ScriptKeys(["{a}:head"])
    requests: list[list[str | int] | ScriptRequest] = [
        *(
            ScriptRequest("EVAL", keys.beginning("EVAL", script.text), "é", ())
            for script in (OFFICE_COMMANDS, TOUCH, OFFICE_COMMANDS)
        ),
        ["FUNCTION", "LOAD", FUNCTION_LIBRARY.text],
        ["EVAL", "return 'é'", "0"],
    ]
    assert pack_requests(requests) == b"".join(Connection().pack_commands(map(words_of, requests)))
