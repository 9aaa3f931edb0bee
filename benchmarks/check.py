"""Compare the speed of the engine with the ratios in the repository: ``python -m benchmarks.check``.

A short run measures the engine next to yardsticks that do not change with it, in the same rounds. Each ratio is the
median of the ratios within the rounds, so a slow machine changes both sides. A ratio far below the one that
``benchmarks/kept_ratios.json`` has is measured again. If it is still low, it is reported, and the exit code is 1.

``--write`` keeps the ratios of this run. Do so after a change that makes the engine faster, on a quiet machine.
"""

from __future__ import annotations

__all__ = ["Worse", "find_worse", "main", "ratios_of"]

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from quota_engine.bench.plan import BenchSettings
from quota_engine.bench.results import BenchResult
from quota_engine.bench.runner import run_bench
from quota_engine.bench.target_url import parse_target

KEPT: Final = pathlib.Path(__file__).with_name("kept_ratios.json")
SHARE_MIN: Final = 0.6
"""A ratio below this share of the kept one is worse. On a busy machine, ratios differ by a third from run to run."""
URLS: Final = ("memory://", "valkey+embedded://")
SETTINGS: Final = BenchSettings(
    actions=("reserve", "confirm", "refusal"),
    concurrency=(64,),
    batch=(128,),
    offices=(10,),
    reservations=(),
    rounds=7,
    round_ms=60,
)


class Worse(NamedTuple):
    """A ratio that is far below the kept one."""

    name: str
    kept: float
    measured: float

    def __str__(self) -> str:
        return f"{self.name}: {self.measured:.3g} in place of {self.kept:.3g}"


def ratios_of(results: Sequence[BenchResult]) -> dict[str, float]:
    """Return the ratios of the engine's cases to their yardsticks by name; a higher one is better."""
    ratios: dict[str, float] = {}
    for result in results:
        for case in result.cases:
            name = f"{case.backend} {case.name}, {case.concurrency} callers"
            if case.ratio_to_handwritten is not None:
                ratios[f"{name}: times by hand"] = case.ratio_to_handwritten
            if case.ratio_to_limit is not None:
                ratios[f"{name}: of the limit"] = case.ratio_to_limit
    return ratios


def find_worse(kept: Mapping[str, float], measured: Mapping[str, float], share_min: float = SHARE_MIN) -> list[Worse]:
    """Return the ratios that are below a share of the kept ones, and those that were not measured.

    Args:
        kept: Ratios by name.
        measured: Ratios of this run; further names are new cases, which cannot be compared.
        share_min: The share, above 0 and at most 1.
    """
    return [
        Worse(name, ratio, measured.get(name, 0.0))
        for name, ratio in kept.items()
        if measured.get(name, 0.0) < ratio * share_min
    ]


def _measure() -> dict[str, float]:
    def show(case: str, done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total}: {case:<50}", end="", file=sys.stderr, flush=True)

    results = [
        run_bench([parse_target(url)], SETTINGS, show, lambda text: print(text, file=sys.stderr)) for url in URLS
    ]
    if sys.stderr.isatty():
        print(f"\r{'':<70}\r", end="", file=sys.stderr)
    return ratios_of(results)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the ratios of this run")
    options = parser.parse_args(arguments)
    measured = _measure()
    if options.write:
        KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=2) + b"\n")
        print(f"{len(measured)} ratios kept in {KEPT.name}")
        return 0
    kept = msgspec.json.decode(KEPT.read_bytes(), type=dict[str, float])
    worse = find_worse(kept, measured)
    if worse:
        again = _measure()  # a minute in which the machine was busy does not count
        measured = {name: max(ratio, again.get(name, 0.0)) for name, ratio in measured.items()}
        worse = find_worse(kept, measured)
    print(f"{'ratio':<65}{'now':>8}{'kept':>7}")
    for name, ratio in measured.items():
        print(f"{name:<65}{ratio:>8.3g}{kept.get(name, float('nan')):>7.3g}")
    for one in worse:
        print(f"worse: {one}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
