"""``quota-engine loadtest``: replay openings against a staging service."""

from __future__ import annotations

__all__ = ["app"]

import importlib
import os
import pathlib
from types import ModuleType
from typing import Annotated, Final, Literal

from cyclopts import App, Parameter

from quota_engine.cli.output import AsJson
from quota_engine.domain.errors import BackendUnavailable

app = App(name="loadtest", help="Replay openings against a staging service, and clean up afterwards.")

TOKEN_VARIABLE: Final = "LOADTEST_TOKEN"  # noqa: S105 - the name of an environment variable
LocustArguments = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]


@app.command
def run(
    *locust_arguments: LocustArguments,
    host: str = "",
    only: Literal["", "surabaya", "indonesia", "draw"] = "",
    applicants: int = 0,
    processes: int = 1,
    workers: int = 2,
    waiting_room: bool = False,
    transport: Literal["http", "direct"] = "http",
    out: pathlib.Path = pathlib.Path("build"),
    keep: bool = False,
    force: bool = False,
    remote: bool = False,
    as_json: AsJson = False,
) -> int:
    """Replay openings, check the responses, and write reports.

    Without --host the command starts a staging service on this machine, and ends it afterwards. LOADTEST_TOKEN in the
    environment holds the operator's token for --host. Arguments after ``--`` go to Locust.

    Exit code 0: all checks passed; 1: a check failed; 2: bad use, or the host is no staging service.

    Example:  quota-engine loadtest run --only surabaya --applicants 2000

    Args:
        host: the address of a staging service, such as http://127.0.0.1:8000.
        only: replay only this opening.
        applicants: number of applicants, in place of the opening's own.
        processes: load processes, 1 or more.
        workers: worker processes of the staging service that is started here.
        waiting_room: give the staging service that is started here waiting rooms.
        transport: "direct" calls the library on the service's store, without the service.
        out: folder for the reports.
        keep: keep the bookings on --host after the test.
        force: also on a host that does not say that it is a staging service.
        remote: allow a host on another machine.
        as_json: print the reports as JSON, and everything else on standard error.
    """
    openings = _imported("openings")
    options = openings.RunOptions(
        host=host,
        token=os.environ.get(TOKEN_VARIABLE, ""),
        only=only,
        applicants=applicants,
        processes=processes,
        workers=workers,
        waiting_room=waiting_room,
        transport=transport,
        out=out,
        keep=keep,
        force=force,
        remote=remote,
        as_json=as_json,
        locust_arguments=locust_arguments,
    )
    return int(openings.run_openings(options))


@app.command
def cleanup(*, host: str, run: str = "", force: bool = False, remote: bool = False, as_json: AsJson = False) -> int:
    """Release and cancel what load tests booked on a staging service.

    Exit code 0: done; 1: some bookings are left; 2: bad use, or the host is no staging service.

    Example:  quota-engine loadtest cleanup --host http://127.0.0.1:8000

    Args:
        host: the address of the staging service; LOADTEST_TOKEN holds the operator's token.
        run: only the bookings of this run.
        force: also on a host that does not say that it is a staging service.
        remote: allow a host on another machine.
        as_json: print the result as JSON, and nothing else.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    return int(_imported("openings").clean_up_target(host, token, run, force=force, remote=remote, as_json=as_json))


@app.command
def measure(
    *,
    step_s: float = 3.0,
    first_per_s: float = 1_000.0,
    out: pathlib.Path = pathlib.Path("build/loadtest-capacity.json"),
    docs: pathlib.Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Find the highest rate that a service on this machine answers in time, and load it beyond that.

    Example:  quota-engine loadtest measure --step-s 2

    Args:
        step_s: seconds to try each rate.
        first_per_s: the first rate to try, in requests a second.
        out: JSON file for the figures.
        docs: the repository's docs folder, to update its data, pictures and tables.
        as_json: print the figures as JSON, and everything else on standard error.
    """
    _imported("capacity").measure_to_files(step_s, first_per_s, out, docs, as_json=as_json)
    return 0


def _imported(name: str) -> ModuleType:
    """Import a module of the load test.

    Raises:
        BackendUnavailable: the extra ``loadtest`` is not installed.
    """
    try:
        return importlib.import_module(f"quota_engine.loadtest.{name}")
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"the load test needs {error.name}, of the extra 'loadtest': pip install 'quota-engine[loadtest]'"
        ) from error
