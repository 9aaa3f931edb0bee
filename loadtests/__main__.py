"""``python -m loadtests``: start a staging here (or take the one that ``--host`` names), replay an opening, judge it.

What this command does not know goes to Locust: ``python -m loadtests --applicants 3000 --processes 2``.
"""

from __future__ import annotations

__all__ = ["main", "replay"]

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from loadtests.host import Host, HostError, check_host
from loadtests.plan import Refused
from loadtests.purging import purge
from loadtests.staging import staging

_LOCUSTFILE: Final = Path(__file__).with_name("locustfile.py")
_LASTS_S_MAX: Final = 3600.0


def replay(host: str, token: str, options: Sequence[str], *, quiet: bool = False) -> int:
    """Run Locust against ``host`` with more ``options``; 0 if the verdict is good, 1 if not, 2 if it was refused."""
    command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--only-summary", "--host", host]
    environment = {**os.environ, "LOADTEST_TOKEN": token}  # not among the arguments, which anybody can list
    done = subprocess.run(  # noqa: S603 - our own command
        [*command, *options],
        env=environment,
        timeout=_LASTS_S_MAX,
        check=False,
        stderr=subprocess.DEVNULL if quiet else None,
    )
    return done.returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    parser.add_argument("--host", default="", help="a staging that runs; left out: one is started here")
    parser.add_argument("--token", default="", help="an operator's token of that host (or LOADTEST_TOKEN)")
    parser.add_argument("--scenario", default="surabaya", help="surabaya or indonesia, or a file with --host")
    parser.add_argument("--speed", type=float, default=1.0, help="forms, pauses and tails take so many times less")
    parser.add_argument("--workers", type=int, default=2, help="of the staging that is started")
    parser.add_argument("--opens-in-s", type=float, default=12.0, help="when the staging that is started opens")
    parser.add_argument("--purge", action="store_true", help="with --host: give back what load tests have booked there")
    parser.add_argument("--quiet", action="store_true", help="the verdict alone")
    given, rest = parser.parse_known_args(arguments)
    options = ["--scenario", given.scenario, "--speed", str(given.speed), *rest]
    token = given.token or os.environ.get("LOADTEST_TOKEN", "")
    try:
        if given.purge:
            with Host(given.host, token) as host:
                check_host(host, force=False, remote=True)
                done = purge(host)
            sys.stdout.write(done.sentence() + "\n")
            return 1 if done.refused else 0
        if given.host:
            return replay(given.host, token, options, quiet=given.quiet)
        with staging(given.scenario, opens_in_s=given.opens_in_s, speed=given.speed, workers=given.workers) as here:
            return replay(here.url, here.token, ["--catalog", here.catalog, *options], quiet=given.quiet)
    except (Refused, HostError) as error:
        sys.stderr.write(f"loadtests: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
