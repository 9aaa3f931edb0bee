"""The rules of ``scripts/check_prose.py``, each with texts that break it and texts that keep it."""

from __future__ import annotations

import pytest

from scripts.check_prose import Rule, WordList, begins_with_noun_clause, check_text, main

WORDS = WordList({"is|are told !off": "is notified", "!there is none": "is not one"})


def findings(path: str, text: str) -> list[tuple[int, str]]:
    """Return line and rule of each finding."""
    return [(found.line, found.rule.value) for found in check_text(path, text, WORDS)]


@pytest.mark.parametrize(
    "sentence",
    [
        "What a caller gets.",
        "Whoever asks waits.",
        "Whether the day is full.",
        "That a store is away is an error.",
        "How many places are left.",
        "Which calls travel together.",
        "“Who may enter.”",
    ],
)
def test_noun_clauses_are_found(sentence: str) -> None:
    assert begins_with_noun_clause(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "What does a caller get?",
        "That is why the key is sorted.",
        "That row holds the epoch.",
        "Whether the call succeeds or fails, the key is kept.",
        "How it works.",
        "Return True if the day is full.",
        "The caller knows what it sent.",
    ],
)
def test_other_beginnings_are_fine(sentence: str) -> None:
    assert not begins_with_noun_clause(sentence)


def test_a_docstring_must_not_begin_with_how() -> None:
    assert findings("a.py", '"""How a call is sent."""\n') == [(1, Rule.NOUN_CLAUSE)]


def test_functions_need_an_imperative_and_properties_do_not() -> None:
    text = '''
class Queue:
    """The calls that wait."""

    @property
    def length(self) -> int:
        """The number of calls."""

    def clear(self) -> None:
        """The queue becomes empty."""

    def close(self) -> None:
        """Refuses further calls."""

    def drain(self) -> None:
        """Send all calls."""
'''
    assert findings("src/a.py", text) == [(10, Rule.SUMMARY), (13, Rule.SUMMARY)]
    assert findings("tests/a.py", text) == []


def test_comments_of_several_lines_are_one_text() -> None:
    text = "x = 1  # It can\ny = 2\n# It can\n# not wait.\n"
    assert findings("a.py", text) == [(3, Rule.CANNOT)]


def test_strings_are_not_comments() -> None:
    assert findings("a.py", 'x = [\'# can not\', """can not"""]\n') == []
    assert findings("a.lua", 'local x = "-- can not" -- can not\n') == [(1, Rule.CANNOT)]


def test_code_spans_count_as_one_word() -> None:
    span = "`" + "a " * 35 + "`"
    assert findings("a.md", f"It returns {span} and `can not`.\n") == []
    assert findings("a.md", "a " * 31 + "\n") == [(1, Rule.LONG_SENTENCE)]


def test_each_list_item_is_a_text() -> None:
    words = "a " * 16
    assert findings("a.md", f"- {words}\n- {words}\n") == []
    assert findings("a.md", f"- {words}\n  {words}\n") == [(1, Rule.LONG_SENTENCE)]


def test_each_argument_is_a_text() -> None:
    words = "a " * 16
    text = f'def f():\n    """Send.\n\n    Args:\n        a: {words}\n        b: {words}\n    """\n'
    assert findings("a.py", text) == []


def test_abbreviations_do_not_end_a_sentence() -> None:
    half = "a " * 16
    assert findings("a.py", f'"""{half}e.g. Redis {half}"""\n') == [(1, Rule.LONG_SENTENCE)]
    assert findings("a.py", f'"""{half}a store. Redis {half}"""\n') == []


def test_fences_tables_and_addresses_are_skipped() -> None:
    address = "https://example.org/" + "a" * 120
    text = f"```sh\ncan not\n```\n\n| can not |\n\n[page]({address}) and <{address}>\n"
    assert findings("a.md", text) == []


def test_a_passage_can_be_switched_off() -> None:
    text = "<!-- prose: off -->\ncan not\n<!-- prose: on -->\ncan not\n"
    assert findings("a.md", text) == [(4, Rule.CANNOT)]


def test_words_know_their_neighbors() -> None:
    text = "It is told.\n\nIt is told off.\n\nThere is none.\n\nIt is none.\n"
    assert findings("a.md", text) == [(1, Rule.WORD), (7, Rule.WORD)]


def test_contractions_are_for_the_tutorial() -> None:
    assert findings("docs/a.md", "It doesn't wait.\n") == [(1, Rule.CONTRACTION)]
    assert findings("docs/tutorial.md", "It doesn't wait.\n") == []


def test_the_checks_keep_their_own_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scripts", "tests/scripts"]) == 0, capsys.readouterr().out
