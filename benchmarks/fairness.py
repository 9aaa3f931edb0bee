"""Compare the policies over many seeds: ``python -m benchmarks.fairness --seeds 200``. No test runs it.

Every setting runs with the same seeds, on one core. The output is the six findings with means and 95 % intervals
(1.96 standard errors). The exit code is 1 if a finding does not hold. ``--write`` also writes
``docs/data/fairness.json``, from which ``docs/generate.py`` generates the tables of ``docs/fairness.md``.
"""

from __future__ import annotations

__all__ = ["SETTINGS", "Figure", "findings", "main", "measure"]

import argparse
import dataclasses
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from quota_engine import ManualClock, QuotaEngine
from quota_engine.simulation.policy_comparison import simulate_with_agents
from quota_engine.simulation.population_config import (
    BrokerConfig,
    BrokerEntry,
    IdentityCheck,
    PopulationConfig,
    ReReleasePolicy,
)
from quota_engine.simulation.scenario import PolicyName, Scenario
from quota_engine.simulation.supply import build_supply

PLACES: Final = 100
HIGH, LOW = 1_000, 50
FALSE_IDENTITIES: Final = 250
DATA: Final = Path(__file__).parent.parent / "docs" / "data" / "fairness.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One setting of the campaign. With ``identities``, brokers always come with this number."""

    name: str
    policy: PolicyName
    people: int = HIGH
    re_release: ReReleasePolicy | None = None
    identity: IdentityCheck = IdentityCheck.WEAK
    identities: int = 0
    bot_share: float = PopulationConfig().bot_share
    is_aside: bool = False
    """None of the findings needs it: a quarter of the seeds will do."""

    def scenario(self, seed: int) -> Scenario:
        """Return the scenario of one seed."""
        plain = Scenario()
        brokers = (
            BrokerConfig(entry=BrokerEntry.ALWAYS, identities=self.identities) if self.identities else BrokerConfig()
        )
        return Scenario(
            seed=seed,
            policy=self.policy,
            re_release=self.re_release,
            identity=self.identity,
            applicants=self.people,
            sale=msgspec.structs.replace(plain.sale, capacity=PLACES),
            population=msgspec.structs.replace(plain.population, brokers=brokers, bot_share=self.bot_share),
        )


SETTINGS: Final = (
    Setting("immediate", PolicyName.IMMEDIATE),
    Setting("immediate, low demand", PolicyName.IMMEDIATE, people=LOW),
    Setting("bucket", PolicyName.BUCKET),
    Setting("fifo", PolicyName.FIFO),
    Setting("shuffle", PolicyName.SHUFFLE),
    Setting("draw", PolicyName.DRAW),
    Setting("draw, low demand", PolicyName.DRAW, people=LOW),
    Setting("draw, given back at once", PolicyName.DRAW, re_release=ReReleasePolicy.IMMEDIATE),
    Setting("draw, 250 false identities", PolicyName.DRAW, identities=FALSE_IDENTITIES),
    Setting("shuffle, 250 false identities", PolicyName.SHUFFLE, identities=FALSE_IDENTITIES),
    Setting("immediate, cooling", PolicyName.IMMEDIATE, re_release=ReReleasePolicy.COOLING, is_aside=True),
    Setting(
        "immediate, cooling, 20 % programs",
        PolicyName.IMMEDIATE,
        re_release=ReReleasePolicy.COOLING,
        bot_share=0.2,
        is_aside=True,
    ),
    Setting(
        "immediate, to the next opening", PolicyName.IMMEDIATE, re_release=ReReleasePolicy.NEXT_DRAW, is_aside=True
    ),
    Setting("shuffle, to the next room", PolicyName.SHUFFLE, re_release=ReReleasePolicy.NEXT_DRAW, is_aside=True),
    Setting("immediate, verified", PolicyName.IMMEDIATE, identity=IdentityCheck.VERIFIED, is_aside=True),
    Setting("shuffle, verified", PolicyName.SHUFFLE, identity=IdentityCheck.VERIFIED, is_aside=True),
    Setting("immediate, low demand, 80 identities", PolicyName.IMMEDIATE, people=LOW, identities=80, is_aside=True),
)

FIGURES: Final[Mapping[str, Callable[[dict[str, Any]], float]]] = {
    "entered": lambda run: float(run["broker_identities"] > 0),
    "identities": lambda run: run["broker_identities"],
    "held": lambda run: run["broker_places_held"],
    "ordered": lambda run: run["broker_orders"],
    "delivered": lambda run: run["broker_places_delivered"],
    "profit": lambda run: run["broker_profit"],
    "idle": lambda run: run["idle_places"],
    "idle_of_brokers": lambda run: run["idle_places_of_brokers"],
    "correlation": lambda run: run["latency_success_correlation"],
    "calls_per_s_max": lambda run: run["store_calls_per_s_max"],
    "calls": lambda run: run["store_calls"],
    "oversold": lambda run: run["oversold"],
}


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """A mean over the seeds and half of its 95 % interval."""

    mean: float
    half: float

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.mean + self.half

    def __str__(self) -> str:
        digits = 3 if abs(self.mean) < 1 and self.half < 0.1 else 2 if abs(self.mean) < 100 else 0
        return f"{self.mean:,.{digits}f} ± {self.half:,.{digits}f}"


Measured = Mapping[str, Mapping[str, Figure]]


def measure(setting: Setting, seeds: Sequence[int]) -> dict[str, Figure]:
    """Run one setting for all seeds. Raises ``AssertionError`` if the engine's audit finds anything."""
    values: dict[str, list[float]] = {name: [] for name in FIGURES}
    market = build_supply(setting.scenario(0), "campaign")
    for seed in seeds:
        scenario = setting.scenario(seed)
        numbers = itertools.count(1)

        def open_engine(clock: ManualClock, name: str, numbers: itertools.count[int] = numbers) -> QuotaEngine:
            return QuotaEngine.open(
                identity_key=b"campaign" * 4, clock=clock, id_factory=lambda: f"{name}-{next(numbers)}"
            )

        opened = simulate_with_agents(scenario, market, open_engine)
        assert not opened.findings, (setting.name, seed, opened.findings)
        figures = opened.as_dict()
        for name, take in FIGURES.items():
            values[name].append(take(figures))
    return {
        name: Figure(statistics.fmean(each), 1.96 * statistics.stdev(each) / math.sqrt(len(each)))
        for name, each in values.items()
    }


def findings(of: Measured) -> list[tuple[bool, str]]:
    """Check each of the six findings, and return its values as text. Profits are in million rupiah."""

    def millions(setting: str) -> Figure:
        profit = of[setting]["profit"]
        return Figure(profit.mean / 1e6, profit.half / 1e6)

    share = FALSE_IDENTITIES / (FALSE_IDENTITIES + HIGH)
    false, shuffled = of["draw, 250 false identities"], of["shuffle, 250 false identities"]
    open_door = of["immediate"]
    return [
        (
            millions("immediate").low > 0 and of["immediate, low demand"]["profit"].mean <= 0,
            f"Immediate booking: brokers come to {of['immediate']['entered'].mean:.0%} of openings with high demand, "
            f"profit {millions('immediate')}; with low demand to {of['immediate, low demand']['entered'].mean:.0%}, "
            f"profit {millions('immediate, low demand')}",
        ),
        (
            millions("draw").low <= 0 and millions("draw, low demand").low <= 0,
            f"Draw, given-back places to the next draw: profit {millions('draw')} at high demand, "
            f"{millions('draw, low demand')} at low",
        ),
        (
            millions("draw, given back at once").low > 0,
            f"Draw, given-back places at once: {of['draw, given back at once']['delivered']} of "
            f"{of['draw, given back at once']['ordered']} orders handed over, profit "
            f"{millions('draw, given back at once')}",
        ),
        (
            abs(false["held"].mean / PLACES - share) < 0.05 and false["idle_of_brokers"].low > 0.5 * share * PLACES,
            f"{FALSE_IDENTITIES} false identities beside {HIGH} people in a draw (share {share:.3f}): they hold "
            f"{false['held']} of {PLACES} places, and {false['idle_of_brokers']} are idle on the day",
        ),
        (
            abs(of["shuffle"]["correlation"].mean) + of["shuffle"]["correlation"].half <= 0.02
            and shuffled["profit"].low > 0
            and shuffled["held"].low / PLACES > 0.9 * share,
            f"Shuffled room: correlation of success with latency {of['shuffle']['correlation']} (open door "
            f"{open_door['correlation']}); {FALSE_IDENTITIES} false identities hold {shuffled['held']} places, "
            f"profit {millions('shuffle, 250 false identities')}",
        ),
        (
            all(
                of[name]["calls_per_s_max"].high < open_door["calls_per_s_max"].low
                and of[name]["correlation"].high < -0.05
                and of[name]["profit"].low > 0
                for name in ("fifo", "bucket")
            ),
            "; ".join(
                f"{name}: most engine calls a second {of[name]['calls_per_s_max']} (open door "
                f"{open_door['calls_per_s_max']}), correlation {of[name]['correlation']}, brokers' profit "
                f"{millions(name)}"
                for name in ("fifo", "bucket")
            ),
        ),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign and print its results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fairness", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many, from 2 on (default: 200)")
    parser.add_argument("--write", action="store_true", help="write docs/data/fairness.json")
    options = parser.parse_args(arguments)
    if not 2 <= options.seeds <= 100_000:
        parser.error("--seeds: 2 to 100000")
    os.nice(10)
    started_s = time.perf_counter()
    of: dict[str, dict[str, Figure]] = {}
    for setting in SETTINGS:
        of[setting.name] = measure(setting, range(_seeds(setting, options.seeds)))
        took_s = time.perf_counter() - started_s
        sys.stderr.write(f"{took_s:7.0f} s  {setting.name}: profit {of[setting.name]['profit']}\n")
    found = findings(of)
    for number, (holds, text) in enumerate(found, 1):
        print(f"{number}. {'holds' if holds else 'DOES NOT HOLD'}. {text}.")
    if options.write:
        DATA.parent.mkdir(exist_ok=True)
        DATA.write_text(json.dumps(_as_data(of, options.seeds), indent=1) + "\n", "utf-8")
        sys.stderr.write("wrote docs/data/fairness.json\n")
    return 0 if all(holds for holds, _ in found) else 1


def _seeds(setting: Setting, seeds: int) -> int:
    return max(2, seeds // 4) if setting.is_aside else seeds


def _as_data(of: Measured, seeds: int) -> dict[str, Any]:
    return {
        "places": PLACES,
        "people": {"high": HIGH, "low": LOW},
        "settings": {
            setting.name: {"seeds": [_seeds(setting, seeds), 0]}
            | {key: [round(figure.mean, 4), round(figure.half, 4)] for key, figure in of[setting.name].items()}
            for setting in SETTINGS
        },
    }


if __name__ == "__main__":
    sys.exit(main())
