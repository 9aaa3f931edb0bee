"""Texts and formats of both languages."""

from __future__ import annotations

import importlib.resources
import string

import pytest

from quota_engine.service.pages.i18n import (
    CITIZEN_TEXTS,
    LANGUAGES,
    OPERATOR_TEXTS,
    Translator,
    preferred_language,
)


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [("", "", "id"), ("", "en-GB,en;q=0.9", "en"), ("", "fr, en;q=0.5", "en"), ("", "nl", "id"), ("id", "en", "id"),
     ("xx", "en", "en")],
)  # fmt: skip
def test_the_chosen_language_precedes_the_accepted_ones(chosen: str, accepted: str, language: str) -> None:
    assert preferred_language(chosen, accepted) == language


@pytest.mark.parametrize("texts", [CITIZEN_TEXTS, OPERATOR_TEXTS], ids=["citizen", "operator"])
def test_every_text_has_both_languages_with_the_same_gaps(texts: dict[str, dict[str, str]]) -> None:
    for key, by_language in texts.items():
        assert set(by_language) == set(LANGUAGES), key
        id_gaps, en_gaps = (
            sorted(gap for _, gap, *_ in string.Formatter().parse(by_language[language]) if gap)
            for language in LANGUAGES
        )
        assert id_gaps == en_gaps, key
        for language in LANGUAGES:
            assert Translator(language, texts)(key, **dict.fromkeys(id_gaps, "x"))


def test_both_files_have_the_same_keys_in_the_same_order() -> None:
    """A reader compares the languages line by line."""
    folder = importlib.resources.files("quota_engine.service.pages") / "texts"
    keys = [
        [line.partition(" =")[0] for line in (folder / f"{language}.toml").read_text("utf-8").splitlines()[2:]]
        for language in LANGUAGES
    ]
    assert keys[0] == keys[1]


def test_counts_use_the_singular_for_one() -> None:
    translator = Translator("en", CITIZEN_TEXTS)
    assert translator.count("slot_places", 1) == "1 place"
    assert translator.count("slot_places", 1_234) == "1,234 places"


@pytest.mark.parametrize(
    ("remaining_ms", "text"), [(299_001, "5:00"), (3_899_000, "1:04:59"), (90_000_000, "1 day 1:00:00"), (-1, "0:00")]
)
def test_a_countdown_rounds_up_and_ends_at_zero(remaining_ms: int, text: str) -> None:
    assert Translator("en", CITIZEN_TEXTS).countdown(remaining_ms) == text
