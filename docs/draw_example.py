"""Write the example of docs/draw.md: ``python docs/draw_example.py``.

The script runs the Python of the page, and writes the files of that draw to docs/draw. Then it runs the page's shell
commands on these files, and writes their output under them. A test compares page and files with a run.
"""

from __future__ import annotations

__all__ = ["FOLDER", "PAGE", "main", "run_commands", "run_python"]

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


def run_python(text: str) -> tuple[dict[str, bytes], str]:
    """Run the page's Python. Return the files that it publishes, by name, and its output."""
    names: dict[str, object] = {}
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(compile(block, "docs/draw.md", "exec"), names)  # noqa: S102
    published = names["published"]
    assert isinstance(published, dict)
    return published, output.getvalue()


def run_commands(text: str, files: dict[str, bytes]) -> str:
    """Run the page's shell commands in a folder with the files. Return the page with their output."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        (bin_folder / "quota-engine").write_text(_COMMAND)
        (bin_folder / "quota-engine").chmod(0o755)
        environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}", "LC_ALL": "C"}

        def run_block(match: re.Match[str]) -> str:
            lines: list[str] = []
            assignments = ""  # of the variables that earlier commands of the block set
            for line in match[1].splitlines():
                if line.startswith("$ "):
                    script = f"{assignments}{line[2:]}"
                    done = subprocess.run(  # noqa: S602 - the commands are those of the page
                        script, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=True
                    )
                    lines += [line, *done.stdout.splitlines()]
                    if re.match(r"[A-Z]+=", line[2:]):
                        assignments += f"{line[2:]}\n"
            return "```console\n" + "\n".join(lines) + "\n```"

        return re.sub(r"```console\n(.*?)```", run_block, text, flags=re.DOTALL)


def main() -> None:
    """Write the files and the page."""
    text = PAGE.read_text(encoding="utf-8")
    files, _ = run_python(text)
    FOLDER.mkdir(exist_ok=True)
    for name, content in files.items():
        (FOLDER / name).write_bytes(content)
    PAGE.write_text(run_commands(text, files), encoding="utf-8")


if __name__ == "__main__":
    main()
