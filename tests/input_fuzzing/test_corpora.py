"""The kept inputs of the fuzzer, and seeded mutants of them, hold the properties of each target."""

from __future__ import annotations

import pytest

from tests.input_fuzzing.corpora import FOLDER, mutants, read_corpus
from tests.input_fuzzing.targets import TARGETS
from tests.support.effort import examples

MUTANTS = examples(150, 2_000)


@pytest.mark.parametrize("target", TARGETS)
def test_target_holds_its_properties(target: str) -> None:
    run, corpus = TARGETS[target], read_corpus(target)
    assert corpus
    for data in (b"", *corpus, *mutants(corpus, MUTANTS, seed=17)):
        run(data)


def test_each_corpus_is_small_and_belongs_to_a_target() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(TARGETS)
    for path in FOLDER.iterdir():
        assert path.stat().st_size < 100_000, path.name


def test_mutants_of_a_seed_are_the_same() -> None:
    assert list(mutants([b"abc"], 20, seed=1)) == list(mutants([b"abc"], 20, seed=1))
    assert list(mutants([b"abc"], 20, seed=1)) != list(mutants([b"abc"], 20, seed=2))
