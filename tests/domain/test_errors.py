"""The error of a long call says how far it came, and how to continue."""

from __future__ import annotations

import pytest

from quota_engine.domain.errors import JobTimeout


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            JobTimeout("publish", 5_000, 3, 7, "offices", resume_with={"offices": ["a", "b", "c", "d"]}),
            "publish stopped after 5000 ms with 3 of 7 offices done, and nothing is half done; "
            "call it again with the last 4 offices to continue",
        ),
        (
            JobTimeout("award", 200, 8, 9, "winners", resume_with={"skip": 8, "limit": 1}),
            "award stopped after 200 ms with 8 of 9 winners done, and nothing is half done; "
            "call it again with skip=8 and limit=1 to continue",
        ),
        (
            JobTimeout("recover_moves", 200, 2, 0, "moves", is_cut=True),
            "recover_moves stopped after 200 ms with 2 moves done, and the next one may be done as well, and nothing "
            "else; call it again to continue",
        ),
        (
            JobTimeout("audit", 200, 0, 2, "offices", remedy="give it more time"),
            "audit stopped after 200 ms with 0 of 2 offices done, and nothing is half done; give it more time",
        ),
        (JobTimeout("audit", 200, 0, 2, "offices", detail="the text of a service"), "the text of a service"),
    ],
)
def test_a_timeout_has_its_progress_and_the_next_step(error: JobTimeout, text: str) -> None:
    assert str(error) == text
