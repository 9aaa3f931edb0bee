"""The PHP example books a place through a real service."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.service.test_running import served

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "booking.php"
NIK = "3578012345678901"


@pytest.mark.skipif(shutil.which("php") is None and not os.environ.get("CI"), reason="there is no PHP here")
def test_php_books_a_place(tmp_path: Path) -> None:
    """Reserve and confirm, and a queue number; the second time the same applicant is refused in the engine's words."""
    with served(tmp_path, "--backend", "memory://") as service:
        now = datetime.datetime.now(datetime.UTC)
        today = now.date()
        days = httpx.get(
            f"{service.url}/v1/offices/surabaya/availability",
            params={"first_day": str(today), "last_day": str(today + datetime.timedelta(days=14))},
        ).json()["days"]
        # Today's may be over already, whatever the hour.
        day = next(one["day"] for one in days if one["ends_at_ms"] - 60_000 > now.timestamp() * 1000)
        token = service.token("service")["authorization"].removeprefix("Bearer ")

        def book() -> subprocess.CompletedProcess[str]:
            words = ["php", str(EXAMPLE), service.url, token, "surabaya", day, NIK]
            return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

        first = book()
        assert first.returncode == 0, first.stderr
        assert "queue number 1" in first.stdout
        again = book()
        assert (again.returncode, again.stderr.partition(":")[0]) == (1, "IDENTITY_LIMIT")
        assert NIK not in first.stdout + first.stderr + again.stdout + again.stderr
