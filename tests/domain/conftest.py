"""Conservation is asserted after every event in these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quota_engine.domain.ledger import set_invariant_checks


@pytest.fixture(autouse=True)
def invariant_checks() -> Iterator[None]:
    set_invariant_checks(True)
    yield
    set_invariant_checks(False)
