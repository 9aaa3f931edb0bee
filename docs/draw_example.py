"""Writes the example of docs/draw.md: ``python docs/draw_example.py``.

It runs the page's Python, writes the files of that draw to docs/draw, runs the shell commands of the page there, and
writes what they print under them. A test fails when files or page are not what this makes.
"""

from __future__ import annotations

__all__ = ["PAGE", "made_files", "main", "with_printed"]

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).parent / "draw.md"
FOLDER = Path(__file__).parent / "draw"
_COMMAND = f"""#!/bin/sh
exec {sys.executable} -c 'import sys; from quota_engine.cli.main import main; sys.exit(main(sys.argv[1:]))' "$@"
"""


def made_files(text: str) -> tuple[dict[str, bytes], str]:
    """The files that the page's Python publishes, by name, and what it prints."""
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(compile(block, "docs/draw.md", "exec"), names)  # noqa: S102
    published = names["published"]
    assert isinstance(published, dict)
    return published, printed.getvalue()


def with_printed(text: str, files: dict[str, bytes]) -> str:
    """The page with what its shell commands print, when they are run where the files are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        (bin_folder / "quota-engine").write_text(_COMMAND)
        (bin_folder / "quota-engine").chmod(0o755)
        environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}", "LC_ALL": "C"}

        def ran(match: re.Match[str]) -> str:
            lines: list[str] = []
            before = ""  # what the commands above it in the block have set
            for line in match[1].splitlines():
                if line.startswith("$ "):
                    script = f"{before}{line[2:]}"
                    done = subprocess.run(  # noqa: S602 - the commands are those of the page
                        script, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=True
                    )
                    lines += [line, *done.stdout.splitlines()]
                    if re.match(r"[A-Z]+=", line[2:]):
                        before += f"{line[2:]}\n"
            return "```console\n" + "\n".join(lines) + "\n```"

        return re.sub(r"```console\n(.*?)```", ran, text, flags=re.DOTALL)


def main() -> None:
    """Make the files and the page."""
    text = PAGE.read_text(encoding="utf-8")
    files, _ = made_files(text)
    FOLDER.mkdir(exist_ok=True)
    for name, content in files.items():
        (FOLDER / name).write_bytes(content)
    PAGE.write_text(with_printed(text, files), encoding="utf-8")


if __name__ == "__main__":
    main()
