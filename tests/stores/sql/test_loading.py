"""The garbage collector after a large ledger was read."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from quota_engine.stores.sql import loading


@pytest.fixture
def many_objects() -> Iterator[list[list[int]]]:
    """More new objects than the collector may walk through at once; it is disabled during the test.

    The test run has frozen its modules, and does so again afterwards.
    """
    gc.unfreeze()
    gc.disable()
    try:
        yield [[number] for number in range(2 * loading._YOUNG_OBJECTS_MAX)]
    finally:
        gc.freeze()
        gc.enable()


@pytest.mark.slow
def test_objects_of_a_large_ledger_are_not_young(many_objects: list[list[int]]) -> None:
    assert gc.get_count()[0] > loading._YOUNG_OBJECTS_MAX
    loading._age_objects()
    assert gc.get_count()[0] < loading._YOUNG_OBJECTS_MAX
    assert gc.get_freeze_count() == 0
    gc.collect()  # the oldest generation is still collected
    assert many_objects[-1] == [2 * loading._YOUNG_OBJECTS_MAX - 1]


def test_frozen_objects_of_the_application_stay_frozen(many_objects: list[list[int]]) -> None:
    gc.freeze()
    more = [[number] for number in range(2 * loading._YOUNG_OBJECTS_MAX)]
    loading._age_objects()
    assert gc.get_freeze_count() > len(many_objects)
    assert gc.get_count()[0] > loading._YOUNG_OBJECTS_MAX
    assert len(more) == len(many_objects)
