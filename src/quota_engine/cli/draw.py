"""``quota-engine draw``: prepare, run and verify a draw on files."""

from __future__ import annotations

__all__ = ["app"]

import contextlib
import datetime
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from cyclopts import App

from quota_engine.cli.output import BAD_FINDING, DONE, AsJson, print_json, print_note
from quota_engine.cli.output_files import check_file, write_lines
from quota_engine.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from quota_engine.cli.draw_files import ReadProgress
    from quota_engine.draws.files import ResultHead
    from quota_engine.draws.lottery import Application, Capacities, Lot, Totals

app = App(name="draw", help="Prepare, run and verify a draw on files.")

_APPLICATIONS: Final = "applications.jsonl"
_CAPACITIES: Final = "capacities.json"


@app.command
def commit(draw: str, /, *, seed_file: pathlib.Path, as_json: AsJson = False) -> int:
    """Generate a secret seed, and print its commitment.

    Publish the commitment before applications are accepted. Keep the file secret until the list of applications has
    been published; the draw needs it then.

    Example:  quota-engine draw commit december --seed-file seed.txt

    Args:
        draw: id of the draw.
        seed_file: file for the seed. It must not exist, because a published commitment may depend on its seed.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.draws.lottery import commitment_of

    seed = os.urandom(32).hex()
    commitment = commitment_of(draw, seed)
    try:
        with os.fdopen(os.open(seed_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(f"{seed}\n")
    except FileExistsError:
        raise InvalidRequest("--seed-file", f"{seed_file} exists already", "a new file") from None
    except OSError as error:
        raise InvalidRequest("--seed-file", f"{seed_file}: {error.strerror}", "a writable file") from None
    _print({"draw": draw, "commitment": commitment}, as_json)
    sys.stderr.write(f"wrote {seed_file}: keep it secret until the applications are published\n")
    return DONE


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
    """Write the capacities file of a draw: the places of a catalog in one channel on some days.

    Example:  quota-engine draw capacities surabaya --draw december --first-day 2026-12-01 --out c.json

    Args:
        catalog: a catalog file, or a built-in catalog (surabaya, indonesia).
        draw: id of the draw.
        first_day: first day as an ISO date, such as 2026-12-01.
        last_day: last day as an ISO date; default: the first day.
        out: JSON file to write.
        office: id of an office; repeat it for more. Default: all offices.
        channel: channel whose places are drawn.
        group: applicant group that takes part besides the general public; repeat it for more.
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
    print_note(f"wrote {out}")
    return DONE


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
    """Check applications and capacities, and write the files to publish before the seed is revealed.

    Example:  quota-engine draw freeze a.csv --capacities c.json --out published

    Args:
        applications: JSON Lines or CSV file with number, applicants and choices.
        capacities: capacities file.
        out: directory for applications.jsonl and capacities.json. The same content gives the same bytes.
        key_file: file with 32 to 128 secret hex digits. Applicants are replaced by hashes with this key, which are
            useless outside this draw. Default: applicants are published unchanged.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.draws.files import canonical_lines, digest_of, json_of_capacities
    from quota_engine.draws.lottery import key_of

    for name in (_APPLICATIONS, _CAPACITIES):
        check_file(out / name, "--out", pathlib.Path(name).suffix)
    with _progress() as bars:
        offered, applied = _read(capacities, applications, bars)
        if key_file is not None:
            applied = _blind(applied, offered.draw, key_file)
        # A trial draw with another seed finds everything that the draw would reject.
        _draw(offered, key_of(offered.draw, "0" * 64), applied)
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
    print_note(f"wrote {out / _APPLICATIONS}\nwrote {out / _CAPACITIES}")
    return DONE


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
    """Run a draw, and write its result.

    The same files, seed and entropy give the same bytes.

    Example:  quota-engine draw run a.jsonl --capacities c.json --seed-file seed.txt --out result.jsonl

    Args:
        applications: JSON Lines or CSV file with number, applicants and choices.
        capacities: capacities file.
        seed_file: file with the seed of the published commitment.
        out: JSON Lines file to write.
        entropy: public text that did not exist when the applications were published, such as a closing price.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.cli.draw_files import read_secret
    from quota_engine.draws.files import canonical_lines, digest_of, json_of_capacities, lines_of_result, result_head
    from quota_engine.draws.lottery import check_entropy, commitment_of, key_of, totals_of

    started_s = time.perf_counter()
    check_file(out, "--out", ".jsonl")
    check_entropy(entropy)
    seed = read_secret(seed_file)
    with _progress() as bars:
        offered, applied = _read(capacities, applications, bars)
        commitment = commitment_of(offered.draw, seed)
        bars("draw")
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
    print_note(f"wrote {out}\ntook {time.perf_counter() - started_s:.1f} s")
    return DONE


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
    token: str = "",
    earlier: pathlib.Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Verify that a published draw follows from its seed, applications and capacities.

    Pass the values that you noted before the draw. Without them, a draw that was fabricated afterwards looks like a
    real one. The two digests are published together, and belong together: without that of the capacities, places that
    were held back afterwards are not found. Exit code 0: the draw is valid; 1: it is not; 2: bad usage or input.

    Example:  quota-engine draw verify result.jsonl --applications a.jsonl --capacities c.json

    Args:
        result: published result.
        applications: published list of applications.
        capacities: published capacities.
        commitment: commitment that was published before applications were accepted.
        applications_digest: digest of the applications that was published before the seed, as ``sha256sum`` prints
            it for the file.
        capacities_digest: digest of the capacities that was published before the seed, as ``sha256sum`` prints it for
            the file.
        entropy: public text that was announced as entropy.
        number: show the result of this application.
        token: token of your receipt; the application with your number must have it.
        earlier: result of the same draw that was published earlier, such as before a failover. Its seed, entropy and
            digests must not have changed.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.cli.draw_files import digest_of_file, read_result
    from quota_engine.draws.verify import Expected, check_draw, contradictions

    if token and number is None:
        raise InvalidRequest("--token", "given without a number", "--number with the number of the same receipt")
    for option, digest in (
        ("--commitment", commitment),
        ("--applications-digest", applications_digest),
        ("--capacities-digest", capacities_digest),
    ):
        if digest and (len(digest) != 64 or not set(digest) <= set("0123456789abcdef")):
            raise InvalidRequest(option, "not a SHA-256", "64 digits 0-9 a-f")
    for missing, option, other in (
        (not applications_digest, "--applications-digest", capacities_digest),
        (not capacities_digest, "--capacities-digest", applications_digest),
    ):
        if missing and other:
            raise InvalidRequest(
                option, "missing beside the other digest", "both digests, which are published together"
            )
    with _progress() as bars:
        head, lots = read_result(result, bars("result"))
        offered, applied = _read(capacities, applications, bars)
        bars("check")
        expected = Expected(commitment, applications_digest, capacities_digest, entropy)
        digests = digest_of_file(capacities), digest_of_file(applications)
        findings = check_draw(head, lots, offered, applied, *digests, expected)
        if earlier is not None:
            findings += contradictions(head, read_result(earlier, bars("earlier result"))[0])
        if token and number is not None:
            findings += _receipt_findings(number, token, applied)
    is_listed = number is not None and (not token or any(one.number == number for one in applied))
    application = None
    if number is not None and is_listed:
        application = _application_report(number, head, lots, offered, applied)
    noted = {
        "commitment": commitment,
        "applications digest": applications_digest,
        "capacities digest": capacities_digest,
    }
    not_compared = [name for name, value in noted.items() if not value]
    figures: dict[str, Any] = {
        "draw": head.draw,
        "ok": not findings,
        "commitment": head.commitment,
        "entropy": head.entropy,
        "epoch": head.epoch,
        "applications_digest": digests[1],
        "capacities_digest": digests[0],
        **_figures(head.totals),
    }
    if as_json:
        figures |= {"findings": findings, "not_compared": list(not_compared)}
        _print(figures | ({} if application is None else {"application": application}), as_json)
    else:
        _print(figures, as_json)
        if application is not None:
            sys.stdout.write("\n")
            _print(application, as_json)
        sys.stdout.write("\n")
        for finding in findings:
            sys.stdout.write(f"WRONG: {finding}\n")
        sys.stdout.write("The draw is not valid.\n" if findings else _conclusion(not_compared))
    return BAD_FINDING if findings else DONE


def _receipt_findings(number: int, token: str, applied: list[Application]) -> list[str]:
    """Return a finding if the application of a receipt is not in the list, or its number belongs to another one."""
    listed = next((one for one in applied if one.number == number), None)
    if listed is None:
        return [f"application {number} of the receipt is not in the list: the draw has lost it, or it was withdrawn"]
    if token not in listed.applicants:
        return [f"application {number} has not the token of the receipt: the draw has lost that application"]
    return []


def _conclusion(not_compared: list[str]) -> str:
    valid = "The draw is valid: the result follows from its seed, applications and capacities.\n"
    if not not_compared:
        return valid
    return f"{valid}NOT COMPARED with what was published before the draw: {', '.join(not_compared)}.\n"


def _read(capacities: pathlib.Path, applications: pathlib.Path, bars: _Bars) -> tuple[Capacities, list[Application]]:
    from quota_engine.cli.draw_files import read_applications, read_capacities

    return read_capacities(capacities), read_applications(applications, bars("applications"))


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


def _application_report(
    number: int,
    head: ResultHead,
    lots: list[tuple[Lot, str]],
    offered: Capacities,
    applied: list[Application],
) -> dict[str, Any]:
    """Return the result of one application, with the values to recompute it."""
    from quota_engine.draws.lottery import key_of, lot_of

    application = next((one for one in applied if one.number == number), None)
    if application is None:
        raise InvalidRequest("--number", f"there is no application {number}", "a number on the list")
    found = next(((lot, choice) for lot, choice in lots if lot.number == number), None)
    key = key_of(head.draw, head.seed, head.entropy)
    report: dict[str, Any] = {
        "number": number,
        "applicants": list(application.applicants),
        "choices": [_describe_choice(choice, offered) for choice in application.choices],
        "order_key": key,
        "lot": lot_of(key)(number).hex(),
    }
    if found is None:
        return report | {"got": "missing in the result"}
    lot, choice = found
    got = f"choice {lot.preference}: {_describe_choice(choice, offered)}" if lot.preference else "nothing"
    return report | {"rank": f"{lot.rank} of {len(lots)}", "got": got}


def _describe_choice(choice: str, offered: Capacities) -> str:
    preference = offered.preferences.get(choice)
    if preference is None:
        return choice
    day, selected = datetime.date.fromordinal(preference.day).isoformat(), preference.choice
    words = (preference.office, day, selected.service, selected.service_unit)
    return " ".join(word for word in (*words, selected.session, selected.channel, selected.group) if word)


def _print(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        if name == "by_preference":
            for preference, count in enumerate(value):
                label = f"got choice {preference}" if preference else "got nothing"
                sys.stdout.write(f"{label:20} {count:,}\n")
        elif name == "choices" and isinstance(value, list):
            for preference, choice in enumerate(value, 1):
                sys.stdout.write(f"{f'choice {preference}':20} {choice}\n")
        else:
            shown = f"{value:,}" if type(value) is int and name != "number" else value
            shown = " ".join(shown) if isinstance(shown, list) else shown
            sys.stdout.write(f"{name.replace('_', ' '):20} {shown}\n")


class _Bars:
    """Progress bars for files that are read and for work of unknown length. Without a terminal there are none."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def __call__(self, name: str) -> ReadProgress:
        if self._bar is None:
            return lambda done, total: None
        task = self._bar.add_task(name, total=None)

        def update(done: int, total: int) -> None:
            self._bar.update(task, completed=done, total=total)

        return update


@contextlib.contextmanager
def _progress() -> Iterator[_Bars]:
    """Show progress bars on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield _Bars(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bars(progress)
