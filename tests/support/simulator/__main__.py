"""Run seeds by hand: ``python -m tests.support.simulator --seeds 1000``; ``--seed 17`` prints the history of one."""

from __future__ import annotations

import argparse
import collections
import json
import sys
import time

from tests.support.lua_store import LuaServer
from tests.support.simulator.visit import run_seed


def main() -> int:
    """Run seeds; returns 1 if one of them shows a violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="number of seeds")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--seed", type=int, help="run only this seed, and print its history")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else (options.seed,)
    began_s = time.perf_counter()
    faults: collections.Counter[str] = collections.Counter()
    operations = 0
    lua = LuaServer()
    violations: dict[int, tuple[str, ...]] = {}
    for seed in seeds:
        report = run_seed(seed, lua)
        operations += report.operations
        faults.update(report.faults)
        if report.violations:
            violations[seed] = report.violations
        if options.seed is not None and not options.json:
            sys.stdout.writelines(f"{line}\n" for line in report.history)
    took_s = time.perf_counter() - began_s
    result = {
        "seeds": len(seeds),
        "operations": operations,
        "faults": dict(sorted(faults.items())),
        "violations": violations,
        "ops_per_s": round(operations / took_s),
    }
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        sys.stdout.writelines(f"{name}: {value}\n" for name, value in result.items())
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
