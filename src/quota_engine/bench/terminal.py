"""Result of a benchmark as tables of at most 80 columns."""

from __future__ import annotations

__all__ = ["print_comparison", "print_goals", "print_result"]

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quota_engine.bench.compare import BenchComparison, ChangeVerdict
from quota_engine.bench.formatting import RULE, goal_cells, headline, machine_line, microseconds, percent, rate, times
from quota_engine.bench.goals import Goal
from quota_engine.bench.plan import Implementation
from quota_engine.bench.results import BenchResult, CaseResult

_COLUMNS: Final = ("at\nonce", "\nops/s", "\n\u00b1", "\np50", "\np99")
_STYLE: Final = {ChangeVerdict.SLOWER: "bold red", ChangeVerdict.SAME: "", ChangeVerdict.FASTER: "green"}


def print_result(result: BenchResult, console: Console) -> None:
    """Print every case, backend by backend. Colors carry no information that the text lacks."""
    console.print(Text(f"{headline(result)}."))
    console.print(Text(f"{machine_line(result.machine)}."))
    for backend in result.backends:
        cases = result.cases_of(backend)
        console.print()
        console.print(Text(backend, style="bold"))
        console.print(_engine_table([case for case in cases if not case.is_yardstick]))
        if any(case.is_yardstick for case in cases):
            console.print()
            console.print(_yardstick_table([case for case in cases if case.is_yardstick]))
    console.print()
    console.print(Text(_reading(result)))


def print_goals(goals: list[Goal], console: Console) -> None:
    """Print the goals of the project with the measured values."""
    table = _table("goals", "\nmeasured", "\ngoal", "")
    primaries: dict[str, int] = {}
    for goal in goals:
        primaries[goal.backend] = max(primaries.get(goal.backend, 1), goal.primaries)
    names_backends = len(primaries) > 1 or max(primaries.values(), default=1) > 1
    backend = ""
    for goal in goals:
        if names_backends and goal.backend != backend:
            backend = goal.backend
            table.add_row(Text(f"{backend}{', per primary' if primaries[backend] > 1 else ''}", style="bold"))
        measured, wanted, verdict = goal_cells(goal)
        style = "green" if goal.is_met else "bold red"
        table.add_row(Text(goal.name), Text(measured), Text(wanted), Text(verdict, style=style))
    console.print()
    console.print(table)
    for count in sorted(set(primaries.values()) - {1}):
        console.print()
        console.print(Text(_per_primary(count)))


def print_comparison(comparison: BenchComparison, console: Console) -> None:
    """Print the changes, and the limits of the comparison."""
    console.print()
    console.print(Text("Compared with the earlier run", style="bold"))
    for difference in comparison.differences:
        console.print(Text(f"Different: {difference}", style="yellow"))
    backend = ""
    table = _table("", "at\nonce", "\nbefore", "\nnow", "\nchange", "")
    for change in comparison.changes:
        if change.backend != backend:
            backend = change.backend
            table.add_row(Text(backend, style="bold"))
        cells = [str(change.concurrency), rate(change.old_ops_per_s), rate(change.new_ops_per_s)]
        cells.append(f"{change.ratio - 1:+.0%}")
        verdict = "" if change.verdict is ChangeVerdict.SAME else str(change.verdict)
        table.add_row(
            Text(change.name),
            *(Text(cell) for cell in cells),
            Text(verdict, style=_STYLE[change.verdict]),
            style="dim" if change.is_yardstick else "",
        )
    console.print(table)
    for title, cases in (("before", comparison.only_old), ("now", comparison.only_new)):
        if cases:
            console.print(Text(f"Only {title}: {'; '.join(cases)}."))
    console.print()
    console.print(Text(RULE))
    count = len(comparison.regressions)
    if not count:
        console.print(Text("No regression.", style="green"))
        return
    console.print(Text(f"{count} regression{'' if count == 1 else 's'}.", style="bold red"))
    if comparison.slower_yardsticks:
        console.print(
            Text(
                "Yardsticks are slower too, so the cause is the machine or the server. Run both versions "
                "again, one after the other."
            )
        )


def _per_primary(primaries: int) -> str:
    return (
        f"per primary: an office lives on one primary, so the callers of one office load one of the {primaries}, as "
        f"they do by hand. Several offices are spread evenly over all {primaries}, in both."
    )


def _engine_table(cases: list[CaseResult]) -> Table:
    has_limit = any(case.ratio_to_limit is not None for case in cases)
    has_by_hand = any(case.ratio_to_handwritten is not None for case in cases)
    columns = [*_COLUMNS]
    columns += ["of\nlimit" if has_by_hand else "of\ndict"] if has_limit else []
    columns += ["by\nhand"] if has_by_hand else []
    table = _table("the engine", *columns)
    for case in cases:
        cells = _cells(case)
        cells += [percent(case.ratio_to_limit)] if has_limit else []
        cells += [times(case.ratio_to_handwritten)] if has_by_hand else []
        table.add_row(*map(Text, cells))
    return table


def _yardstick_table(cases: list[CaseResult]) -> Table:
    table = _table("its yardsticks", *_COLUMNS)
    for case in cases:
        table.add_row(*map(Text, _cells(case)))
    return table


def _cells(case: CaseResult) -> list[str]:
    return [
        case.name,
        str(case.concurrency),
        rate(case.ops_per_s),
        percent(case.spread),
        microseconds(case.p50_us),
        microseconds(case.p99_us),
    ]


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False)
    table.add_column(f"\n{first}", overflow="fold")  # The URL of a cluster may be long.
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _reading(result: BenchResult) -> str:
    notes = ["\u00b1: half the range of the rounds."]
    if any(case.kind == Implementation.LIMIT for case in result.cases):
        notes.append("of limit: share of a plain script's rate in prepared batches of 128.")
    if any(case.kind == Implementation.BY_HAND for case in result.cases):
        notes.append("by hand: ratio to one call of the plain script each (single caller: of p50).")
    if any(case.kind == Implementation.LIMITS for case in result.cases):
        notes.append("limits: a hit of that rate limiter, which keeps no reservation.")
    if any(case.kind == Implementation.DICT for case in result.cases):
        notes.append("of dict, and of limit for sold-out: share of a dict behind a lock.")
    return " ".join(notes)
