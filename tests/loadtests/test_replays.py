"""A short load test against a real service, from the start of the staging to the verdict and the purge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.__main__ import main, replay
from loadtests.host import Host, check_host
from loadtests.people import MARK, identity_of
from loadtests.plan import Refused
from loadtests.purging import purge
from loadtests.staging import staging

SHORT = ("--speed", "60", "--applicants", "300", "--window-s", "8", "--grace-s", "6", "--lead-s", "1")


def test_an_opening_is_replayed_judged_and_purged(tmp_path: Path) -> None:
    """Nothing is sold twice and everybody has an answer; afterwards nothing of it is in force, and the rest is."""
    with staging("surabaya", opens_in_s=8, speed=60, workers=1) as here, Host(here.url, here.token) as host:
        options = ("--catalog", here.catalog, "--out", str(tmp_path / "verdict"), *SHORT)
        assert replay(here.url, here.token, options) == 0
        found = json.loads((tmp_path / "verdict.json").read_text())
        assert found["findings"] == []
        assert (tmp_path / "verdict.html").stat().st_size > 2_000
        assert (tmp_path / "verdict.csv").stat().st_size > 100
        booked = [event for event in host.events("surabaya") if event.get("verb") == "confirm"]
        assert booked
        assert all(MARK in event["reservation"]["reference"] for event in booked)
        done = purge(host)
        assert done.refused == ()
        assert done.released + done.cancelled > 0
        again = purge(host)
        assert (again.released, again.cancelled, again.refused) == (0, 0, ())
        assert host.audit() == []


def test_a_host_that_is_no_staging_is_left_alone() -> None:
    """And so is one on another machine."""
    with staging("surabaya", opens_in_s=60, workers=1, is_staging=False) as here, Host(here.url, here.token) as host:
        with pytest.raises(Refused, match="does not say that it is a staging"):
            check_host(host, force=False, remote=False)
        check_host(host, force=True, remote=False)
        assert main(["--host", here.url, "--token", here.token, "--purge"]) == 2
        assert replay(here.url, here.token, SHORT) == 2
        assert all("reservation" not in event or event["reservation"] is None for event in host.events("surabaya"))
    with Host("http://192.0.2.1", "") as far, pytest.raises(Refused, match="is another machine"):
        check_host(far, force=True, remote=False)


def test_identities_are_nobodys_and_each_once() -> None:
    """Sixteen digits of a province that there is not; another run has others."""
    found = {identity_of("a", index, companion) for index in range(2_000) for companion in range(3)}
    assert len(found) == 6_000
    assert all(len(each) == 16 and each.isdigit() and each.startswith("00") for each in found)
    assert found.isdisjoint(identity_of("b", index) for index in range(2_000))
