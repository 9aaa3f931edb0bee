"""A simulation's result as tables on the terminal."""

from __future__ import annotations

__all__ = ["print_result"]

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quota_engine.simulation.reports.formatting import comparison, headline
from quota_engine.simulation.simulation import SimulationResult


def print_result(result: SimulationResult, console: Console) -> None:
    """Print what was simulated, every figure, and the verdict.

    Colours are the terminal's own, and only add to what the text says.
    """
    console.print(Text(result.prepared.scenario.title, style="bold"))
    console.print(Text(f"{headline(result)}."))
    console.print(
        Text(f"Policy {result.prepared.scenario.policy}, {result.backend}, seed {result.prepared.scenario.seed}.")
    )
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False)
    table.add_column("")
    table.add_column("quota_engine", justify="right", no_wrap=True)
    if result.baseline is not None:
        table.add_column("old application", justify="right", no_wrap=True)
    section = ""
    for row in comparison(result):
        if row.section != section:
            section = row.section
            table.add_row("")
            table.add_row(Text(section, style="bold"))
        cells = [Text(f"  {row.label}"), _cell(row.engine, row.engine_bad)]
        if result.baseline is not None:
            cells.append(_cell(row.baseline, row.baseline_bad))
        table.add_row(*cells)
    console.print(table)
    console.print()
    if result.ok:
        console.print(Text("The audit finds nothing: no place was sold twice, and none was lost.", style="green"))
    for finding in result.findings:
        console.print(Text(f"FINDING: {finding}", style="bold red"))


def _cell(value: str, bad: bool) -> Text:
    return Text(value, style="red" if bad else "")
