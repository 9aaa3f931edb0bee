"""``python -m tests.chaos``: strike with each fault under load, and print or write the table."""

from __future__ import annotations

__all__ = ["PAGE", "main", "write_table"]

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.chaos import soak
from tests.chaos.faults import NotPossible
from tests.chaos.run import Result, run
from tests.chaos.service_faults import FAULTS
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "faults.md"
_TABLE = re.compile(r"(<!-- faults -->\n).*?(<!-- end of faults -->)", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the faults, or with ``soak`` a long run; returns 1 if a promise was broken."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["soak"]:
        return soak.main(words[1:])
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--fault", action="append", choices=[one.name for one in FAULTS], help="only this fault")
    parser.add_argument("--strikes", type=int, default=5, help="strikes of each fault (default 5)")
    parser.add_argument("--threads", type=int, default=8, help="threads that reserve (default 8)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the moments (default 1)")
    parser.add_argument("--short-loads", action="store_true", help="let the threads rest while servers recover")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(words)
    chosen = [one for one in FAULTS if not options.fault or one.name in options.fault]
    results: list[Result] = []
    began_s = time.monotonic()
    for fault in chosen:
        random = Random(f"{options.seed} {fault.name}")
        try:
            results.append(run(fault, options.strikes, options.threads, random, rests=options.short_loads))
        except NotPossible as error:
            sys.stderr.write(f"{fault.name}: not possible here: {error}\n")
            continue
        if not options.json:
            _print(_line(results[-1]))
    if options.json:
        _print(json.dumps([one.as_dict() for one in results], indent=2))
    else:
        strikes, took_s = sum(one.strikes for one in results), time.monotonic() - began_s
        _print(f"{len(results)} faults, {strikes} strikes, {took_s:.0f} s")
    if options.write:
        write_table(PAGE, results, f"--strikes {options.strikes} --seed {options.seed}")
    return int(any(one.problem for one in results))


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _line(one: Result) -> str:
    seen = one.problem or f"kept {one.acknowledged - one.lost:,} of {one.acknowledged:,}"
    return f"{one.fault.name:28} {one.strikes} strikes  {seen}  recovery {_times(one)}"


def _times(one: Result) -> str:
    middle, last = statistics.median(one.recovery_ms), max(one.recovery_ms)
    return f"{middle / 1000:.2f} s, at most {last / 1000:.2f} s"


def write_table(page: Path, results: Sequence[Result], options: str) -> None:
    """Write the rows of these faults into the table of a page; rows of faults that did not run stay.

    Args:
        page: The page.
        results: The results.
        options: The options of the command, for the line below the table.
    """
    text = page.read_text(encoding="utf-8")
    found = _TABLE.search(text)
    assert found is not None
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in found[0].splitlines() if line.startswith("| ")}
    for one in results:
        seen = one.problem or f"{one.lost:,} of {one.acknowledged:,} acknowledged lost, audit without findings"
        rows[one.fault.title] = f"| {one.fault.title} | {one.fault.promised} | {seen} | {one.strikes} | {_times(one)} |"
    head = ["| fault | promised | seen | strikes | recovery: median, longest |", "| --- | --- | --- | --- | --- |"]
    body = [rows[one.title] for one in FAULTS if one.title in rows]
    command = f"python -m tests.chaos {options} --write"
    table = "\n".join([*head, *body, "", f"Made by `{command}`.", ""])
    page.write_text(text[: found.start()] + found[1] + table + found[2] + text[found.end() :], encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
