"""Run the code blocks of a page as its reader would, in one folder and in order.

- A block whose first line is ``# name.ext`` is saved under that name.
- A block ``sh`` runs in bash; a block ``text`` after it is its output.
- A block that begins with ``quota-engine serve`` runs in the background from then on.
- Commands that install packages do not run. Their extras must exist.
- Any other block of Python runs in this process; the blocks of a page share their names.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.support.paths import ROOT

_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED: Final = re.compile(r"# ([\w-]+\.\w+)\n")
_INSTALL: Final = re.compile(r"^(?:python3 -m venv|\. env/|pip install)")
_PORT: Final = "8000"
_START_S_MAX: Final = 60


def check_install(block: str) -> None:
    """Fail if a command installs an extra that the project does not have."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for group in re.findall(r"quota-engine\[([\w,-]+)\]", block):
        assert set(group.split(",")) <= set(extras), group


class PageRunner:
    """Runs pages in one folder. A page continues with the files and the service of those before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = str(server.getsockname()[1])
        self._services: list[subprocess.Popen[bytes]] = []
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        self._environment = os.environ | {"PATH": path, "PYTHONPATH": paths, "QUOTA_ENGINE_PORT": self.port}

    def run(self, page: Path) -> int:
        """Run the blocks of a page, and return their number."""
        names: dict[str, Any] = {"__name__": page.stem}
        output = ""
        blocks = _BLOCK.findall(page.read_text(encoding="utf-8"))
        for language, block in blocks:
            code = block.replace(f":{_PORT}", f":{self.port}")
            if named := _NAMED.match(code):
                (self.folder / named[1]).write_text(code, encoding="utf-8")
            elif language == "sh" and _INSTALL.match(code):
                check_install(code)
            elif language == "sh" and code.startswith("quota-engine serve"):
                self._serve(code)
            elif language == "sh":
                output = self._shell(page, code)
            elif language == "text":
                assert output.strip() == block.strip(), f"{page.name}: the output is {output!r}"
            elif language == "python":
                output = self._python(page, code, names)
        return len(blocks)

    def _shell(self, page: Path, code: str) -> str:
        exports = re.findall(r"^export (\w+)=(\S+)$", code, re.MULTILINE)
        self._environment |= dict(exports)
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", code],
            cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{page.name}:\n{code}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _python(self, page: Path, code: str, names: dict[str, Any]) -> str:
        written = io.StringIO()
        with contextlib.redirect_stdout(written), contextlib.chdir(self.folder):
            exec(compile(code, str(page), "exec"), names)  # noqa: S102
        return written.getvalue()

    def _serve(self, command: str) -> None:
        service = subprocess.Popen(command.split(), cwd=self.folder, env=self._environment, stdout=subprocess.DEVNULL)
        self._services.append(service)
        deadline = time.monotonic() + _START_S_MAX
        while time.monotonic() < deadline:
            assert service.poll() is None, f"{command} ended"
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready").close()
                return
            time.sleep(0.05)
        raise AssertionError(f"{command} did not start")

    def close(self) -> None:
        """End the services that pages started."""
        for service in self._services:
            service.terminate()
            service.wait(60)


@contextlib.contextmanager
def page_runner(folder: Path) -> Iterator[PageRunner]:
    """Return a runner whose services end with the block."""
    runner = PageRunner(folder)
    try:
        yield runner
    finally:
        runner.close()
