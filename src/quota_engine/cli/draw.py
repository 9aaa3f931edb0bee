"""``quota-engine draw``: prepare a draw, carry it out on files, and check one that was published."""

from __future__ import annotations

__all__ = ["app"]

import contextlib
import datetime
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from quota_engine.cli.output_files import check_file, write_lines
from quota_engine.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from quota_engine.cli.draw_files import Ticks
    from quota_engine.draws.files import ResultHead
    from quota_engine.draws.lottery import Application, Capacities, Lot, Totals

app = App(name="draw", help="Prepare a draw, carry it out on files, and check one that was published.")

_DONE, _BAD_FINDING = 0, 1
_APPLICATIONS: Final = "applications.jsonl"
_CAPACITIES: Final = "capacities.json"
AsJson = Annotated[bool, Parameter(name="--json")]


@app.command
def commit(draw: str, /, *, seed_file: pathlib.Path, as_json: AsJson = False) -> int:
    """Make a secret seed, and print the commitment to publish before applications are taken.

    Keep the file to yourself until the list of applications has been published; then the draw needs it.

    Args:
        draw: the id of the draw.
        seed_file: where to write the seed. A file that is there is not overwritten: its seed may be committed to.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.draws.lottery import commitment_of

    seed = os.urandom(32).hex()
    commitment = commitment_of(draw, seed)
    try:
        with os.fdopen(os.open(seed_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(f"{seed}\n")
    except FileExistsError:
        raise InvalidRequest("--seed-file", f"{seed_file} is there already", "a new file") from None
    except OSError as error:
        raise InvalidRequest("--seed-file", f"{seed_file}: {error.strerror}", "a file that can be written") from None
    _print({"draw": draw, "commitment": commitment}, as_json)
    sys.stderr.write(f"wrote {seed_file}: keep it secret until the applications are published\n")
    return _DONE


@app.command
def capacities(
    catalog: str,
    /,
    *,
    draw: str,
    first_day: datetime.date,
    last_day: datetime.date | None = None,
    out: pathlib.Path,
    office: tuple[str, ...] = (),
    channel: str = "online",
    group: tuple[str, ...] = (),
    as_json: AsJson = False,
) -> int:
    """Write the capacities file of a draw: what a catalog offers by one channel on some days.

    Args:
        catalog: a catalog file, or the name of one that comes with the package.
        draw: the id of the draw.
        first_day: the first day, as 2026-12-01.
        last_day: the last day; the first one if it is left out.
        out: where to write the file.
        office: only this office; may be given several times.
        channel: the channel whose places are drawn.
        group: besides the general public this group of people; may be given several times.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.catalog import load_catalog
    from quota_engine.draws.capacities import capacities_of_catalog
    from quota_engine.draws.files import digest_of, json_of_capacities

    check_file(out, "--out", ".json")
    offered = capacities_of_catalog(
        load_catalog(catalog),
        draw,
        first_day,
        last_day or first_day,
        offices=office,
        channel=channel,
        groups=("", *group),
    )
    text = json_of_capacities(offered)
    write_lines(out, [text])
    _print(
        {
            "draw": draw,
            "capacities_digest": digest_of([text]),
            "office_days": len(offered.days),
            "choices": len(offered.preferences),
        },
        as_json,
    )
    sys.stderr.write(f"wrote {out}\n")
    return _DONE


@app.command
def freeze(
    applications: pathlib.Path,
    /,
    *,
    capacities: pathlib.Path,
    out: pathlib.Path,
    key_file: pathlib.Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Check applications and capacities, and write them as they are to be published before the seed is revealed.

    Args:
        applications: JSON Lines or CSV: number, applicants, choices.
        capacities: the capacities file.
        out: a folder; applications.jsonl and capacities.json are written there, the same bytes for the same content.
        key_file: a file with 32 to 128 secret hex digits. Applicants are replaced by hashes with this key, which mean
            nothing outside this draw. Without it they are published as they are in the file.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.draws.files import canonical_lines, digest_of, json_of_capacities
    from quota_engine.draws.lottery import key_of

    for name in (_APPLICATIONS, _CAPACITIES):
        check_file(out / name, "--out", pathlib.Path(name).suffix)
    with _progress() as ticks:
        offered, applied = _read(capacities, applications, ticks)
        if key_file is not None:
            applied = _blind(applied, offered.draw, key_file)
        _draw(offered, key_of(offered.draw, "0" * 64), applied)  # whatever a draw would refuse is found now
        text = json_of_capacities(offered)
        write_lines(out / _CAPACITIES, [text])
        write_lines(out / _APPLICATIONS, canonical_lines(applied))
        figures = {
            "draw": offered.draw,
            "applications_digest": digest_of(canonical_lines(applied)),
            "capacities_digest": digest_of([text]),
            "applications": len(applied),
            "applicants": sum(one.units for one in applied),
        }
    _print(figures, as_json)
    sys.stderr.write(f"wrote {out / _APPLICATIONS}\nwrote {out / _CAPACITIES}\n")
    return _DONE


@app.command
def run(
    applications: pathlib.Path,
    /,
    *,
    capacities: pathlib.Path,
    seed_file: pathlib.Path,
    out: pathlib.Path,
    entropy: str = "",
    as_json: AsJson = False,
) -> int:
    """Carry out a draw, and write its result.

    The same files, seed and entropy give the same bytes.

    Args:
        applications: JSON Lines or CSV: number, applicants, choices.
        capacities: the capacities file.
        seed_file: the file with the seed that was committed to.
        out: where to write the result, JSON Lines.
        entropy: a public text that nobody could know when the applications were published, such as a closing price.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.cli.draw_files import read_secret
    from quota_engine.draws.files import canonical_lines, digest_of, json_of_capacities, lines_of_result, result_head
    from quota_engine.draws.lottery import check_entropy, commitment_of, key_of, totals_of

    started_s = time.perf_counter()
    check_file(out, "--out", ".jsonl")
    check_entropy(entropy)
    seed = read_secret(seed_file)
    with _progress() as ticks:
        offered, applied = _read(capacities, applications, ticks)
        commitment = commitment_of(offered.draw, seed)
        ticks("draw")
        lots = _draw(offered, key_of(offered.draw, seed, entropy), applied)
        by_number = {one.number: one for one in applied}
        head = result_head(
            offered,
            commitment,
            seed,
            entropy,
            digest_of([json_of_capacities(offered)]),
            digest_of(canonical_lines(applied)),
            totals_of(by_number, lots),
        )
        result_digest = write_lines(out, lines_of_result(head, lots, by_number))
    figures = {
        "draw": head.draw,
        "commitment": commitment,
        "entropy": entropy,
        "applications_digest": head.applications_digest,
        "capacities_digest": head.capacities_digest,
        "result_digest": result_digest,
        **_figures(head.totals),
    }
    _print(figures, as_json)
    sys.stderr.write(f"wrote {out}\ntook {time.perf_counter() - started_s:.1f} s on the wall clock\n")
    return _DONE


@app.command
def verify(
    result: pathlib.Path,
    /,
    *,
    applications: pathlib.Path,
    capacities: pathlib.Path,
    commitment: str = "",
    applications_digest: str = "",
    capacities_digest: str = "",
    entropy: str | None = None,
    number: int | None = None,
    as_json: AsJson = False,
) -> int:
    """Check a published draw: that nothing was changed, and that everybody got the best choice that was free.

    What you noted yourself before the draw counts most: without it a draw that was made up as a whole, afterwards, can
    not be told from a real one.

    Args:
        result: the published result.
        applications: the published list of applications.
        capacities: the published capacities.
        commitment: the commitment, as it was published before applications were taken.
        applications_digest: the digest of the applications, as it was published before the seed was.
        capacities_digest: the digest of the capacities, as it was published before the seed was.
        entropy: the public text that was to be used.
        number: tell about this application.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.cli.draw_files import read_result
    from quota_engine.draws.files import canonical_lines, digest_of, json_of_capacities
    from quota_engine.draws.verify import Expected, check_draw

    for option, digest in (
        ("--commitment", commitment),
        ("--applications-digest", applications_digest),
        ("--capacities-digest", capacities_digest),
    ):
        if digest and (len(digest) != 64 or not set(digest) <= set("0123456789abcdef")):
            raise InvalidRequest(option, "not a SHA-256", "64 of the digits 0-9 a-f")
    with _progress() as ticks:
        head, lots = read_result(result, ticks("result"))
        offered, applied = _read(capacities, applications, ticks)
        ticks("check")
        expected = Expected(commitment, applications_digest, capacities_digest, entropy)
        digests = digest_of([json_of_capacities(offered)]), digest_of(canonical_lines(applied))
        findings = check_draw(head, lots, offered, applied, *digests, expected)
    told = None if number is None else _told(number, head, lots, offered, applied)
    figures: dict[str, Any] = {
        "draw": head.draw,
        "ok": not findings,
        "commitment": head.commitment,
        "entropy": head.entropy,
        "applications_digest": digests[1],
        "capacities_digest": digests[0],
        **_figures(head.totals),
    }
    if as_json:
        _print(figures | {"findings": findings} | ({} if told is None else {"application": told}), as_json)
    else:
        _print(figures, as_json)
        if told is not None:
            sys.stdout.write("\n")
            _print(told, as_json)
        sys.stdout.write("\n")
        for finding in findings:
            sys.stdout.write(f"WRONG: {finding}\n")
        sys.stdout.write("This draw is not what it claims to be.\n" if findings else _verdict(expected.commitment))
    return _BAD_FINDING if findings else _DONE


def _verdict(commitment: str) -> str:
    right = "The result follows from seed, applications and capacities: everybody got the best choice that was free.\n"
    return right if commitment else f"{right}Compare commitment and digests with what was published before the draw.\n"


def _read(capacities: pathlib.Path, applications: pathlib.Path, ticks: _Bars) -> tuple[Capacities, list[Application]]:
    from quota_engine.cli.draw_files import read_applications, read_capacities

    return read_capacities(capacities), read_applications(applications, ticks("applications"))


def _draw(offered: Capacities, key: str, applied: list[Application]) -> list[Lot]:
    from quota_engine.draws.lottery import allot

    return allot(offered, key, applied)


def _blind(applied: list[Application], draw: str, key_file: pathlib.Path) -> list[Application]:
    from quota_engine.cli.draw_files import read_secret
    from quota_engine.draws.files import pseudonym_of
    from quota_engine.draws.lottery import Application

    try:
        key = bytes.fromhex(read_secret(key_file))
    except ValueError:
        raise InvalidRequest("--key-file", "not a key", "32 to 128 hex digits") from None
    return [
        Application(one.number, tuple(pseudonym_of(applicant, draw, key) for applicant in one.applicants), one.choices)
        for one in applied
    ]


def _figures(totals: Totals) -> dict[str, Any]:
    return {
        "applications": totals.applications,
        "applicants": totals.applicants,
        "winners": totals.winners,
        "places": totals.places,
        "by_preference": list(totals.by_preference),
    }


def _told(
    number: int,
    head: ResultHead,
    lots: list[tuple[Lot, str]],
    offered: Capacities,
    applied: list[Application],
) -> dict[str, Any]:
    """All that the files say of one application."""
    from quota_engine.draws.lottery import key_of, lot_of

    application = next((one for one in applied if one.number == number), None)
    if application is None:
        raise InvalidRequest("--number", f"there is no application {number}", "a number that is on the list")
    found = next(((lot, choice) for lot, choice in lots if lot.number == number), None)
    key = key_of(head.draw, head.seed, head.entropy)
    told: dict[str, Any] = {
        "number": number,
        "applicants": list(application.applicants),
        "choices": [_words(choice, offered) for choice in application.choices],
        "order_key": key,
        "lot": lot_of(key)(number).hex(),
    }
    if found is None:
        return told | {"got": "it is missing in the result"}
    lot, choice = found
    got = f"choice {lot.preference}: {_words(choice, offered)}" if lot.preference else "nothing"
    return told | {"rank": f"{lot.rank} of {len(lots)}", "got": got}


def _words(choice: str, offered: Capacities) -> str:
    wish = offered.preferences.get(choice)
    if wish is None:
        return choice
    asked = wish.choice
    words = (wish.office, datetime.date.fromordinal(wish.day).isoformat(), asked.service, asked.service_unit)
    return " ".join(word for word in (*words, asked.session, asked.channel, asked.group) if word)


def _print(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(values), indent=2).decode() + "\n")
        return
    for name, value in values.items():
        if name == "by_preference":
            for preference, count in enumerate(value):
                what = f"got choice {preference}" if preference else "got nothing"
                sys.stdout.write(f"{what:20} {count:,}\n")
        elif name == "choices" and isinstance(value, list):
            for preference, choice in enumerate(value, 1):
                sys.stdout.write(f"{f'choice {preference}':20} {choice}\n")
        else:
            shown = f"{value:,}" if type(value) is int and name != "number" else value
            shown = " ".join(shown) if isinstance(shown, list) else shown
            sys.stdout.write(f"{name.replace('_', ' '):20} {shown}\n")


class _Bars:
    """Makes a bar for each file that is read, and for work whose end is not known; without somebody who looks, none."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def __call__(self, name: str) -> Ticks:
        if self._bar is None:
            return lambda done, total: None
        task = self._bar.add_task(name, total=None)

        def tick(done: int, total: int) -> None:
            self._bar.update(task, completed=done, total=total)

        return tick


@contextlib.contextmanager
def _progress() -> Iterator[_Bars]:
    """Bars on standard error, if somebody is looking."""
    if not sys.stderr.isatty():
        yield _Bars(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bars(progress)
