"""Build the documentation site: stage the pages, generate the reference, run Sphinx."""

from __future__ import annotations

__all__ = ["build", "main"]

import argparse
import gc
import shutil
import sys
from pathlib import Path
from typing import Final

from scripts.site.outside_addresses import find_outside_addresses
from scripts.site.reference import reference_pages
from scripts.site.staging import ROOT, stage

HERE: Final = Path(__file__).resolve().parent


def prepare(source: Path) -> None:
    """Write the whole source of the site into an empty or missing folder."""
    shutil.rmtree(source, ignore_errors=True)
    stage(source)
    for place, text in reference_pages().items():
        target = source / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def build(folder: Path, *, is_strict: bool = True) -> int:
    """Build the site.

    Args:
        folder: gets ``source`` and ``html``.
        is_strict: fail on each warning, after all of them have been printed.

    Returns:
        0, or 1 for warnings or for a part that a browser would load from another host.
    """
    from sphinx.cmd.build import build_main

    gc.set_threshold(200_000, 50, 1_000)  # Trees of documents are large and live long: collections find nothing.
    prepare(folder / "source")
    shutil.rmtree(folder / "html", ignore_errors=True)
    options = ["-b", "html", "-q", "-E", "-d", str(folder / "doctrees"), "-c", str(HERE)]
    if is_strict:
        options += ["-W", "--keep-going", "-n"]
    code = int(build_main([*options, str(folder / "source"), str(folder / "html")]))
    outside = find_outside_addresses(folder / "html")
    for line in outside:
        sys.stderr.write(f"loads from another host: {line}\n")
    return code or int(bool(outside))


def main() -> int:
    """Build the site from the command line, and print its address."""
    parser = argparse.ArgumentParser(description="Build the documentation site.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "site")
    parser.add_argument("--lenient", action="store_true", help="warnings do not fail")
    arguments = parser.parse_args()
    code = build(arguments.folder, is_strict=not arguments.lenient)
    if code == 0:
        sys.stdout.write(f"{arguments.folder / 'html' / 'index.html'}\n")
    return code
