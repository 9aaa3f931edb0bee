"""Result of a simulation as a table on the terminal."""

from __future__ import annotations

__all__ = ["SectionTable", "print_findings", "print_result"]

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quota_engine.simulation.reports.formatting import NO_FINDINGS, headline, metric_rows
from quota_engine.simulation.simulation import SimulationResult


def print_result(result: SimulationResult, console: Console) -> None:
    """Print the title, every metric and the findings.

    Colors are the terminal's own, and carry no information that the text lacks.
    """
    console.print(Text(result.prepared.scenario.title, style="bold"))
    console.print(Text(f"{headline(result)}."))
    console.print(
        Text(f"Policy {result.prepared.scenario.policy}, {result.backend}, seed {result.prepared.scenario.seed}.")
    )
    columns = ["quota_engine"] if result.baseline is None else ["quota_engine", "baseline"]
    table = SectionTable(columns, indent=2)
    for row in metric_rows(result):
        cells = [(row.engine, row.engine_bad), (row.baseline, row.baseline_bad)]
        table.add(row.section, row.label, cells[: len(columns)])
    console.print(table.table)
    console.print()
    print_findings(console, result.findings)


class SectionTable:
    """A table with a title above each group of rows.

    Args:
        columns: Heads of the columns of values.
        indent: Spaces between columns, and before the labels.
    """

    def __init__(self, columns: Sequence[str], indent: int) -> None:
        self.table = Table(box=None, padding=(0, indent, 0, 0), show_edge=False, pad_edge=False)
        self.table.add_column("")
        for column in columns:
            self.table.add_column(column, justify="right", no_wrap=True)
        self._indent = indent
        self._section = ""

    def add(self, section: str, label: str, cells: Iterable[tuple[str, bool]]) -> None:
        """Add a row of values, each with a flag that marks a defect."""
        if section != self._section:
            self._section = section
            self.table.add_row("")
            self.table.add_row(Text(section, style="bold"))
        values = (Text(value, style="red" if bad else "") for value, bad in cells)
        self.table.add_row(Text(f"{' ' * self._indent}{label}"), *values)


def print_findings(console: Console, findings: Sequence[str]) -> None:
    """Print the findings, or a line that there are none."""
    if not findings:
        console.print(Text(NO_FINDINGS, style="green"))
    for finding in findings:
        console.print(Text(f"FINDING: {finding}", style="bold red"))
