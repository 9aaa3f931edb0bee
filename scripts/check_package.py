"""Build the sdist and the wheel, check them, and use the wheel in a clean environment.

- The sdist has at most 1.5 MB, and the wheel can be built from it.
- The metadata is valid, each classifier exists, and the description has no relative link and no picture.
- The wheel has the types marker, Lua scripts, catalogs and pages, and neither tests nor compiled files.
- Without extras, the library reserves in memory. With the extra ``service``, ``quota-engine serve`` answers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import venv
import zipfile
from pathlib import Path
from typing import Final

from packaging.metadata import Metadata
from trove_classifiers import classifiers

from scripts.extras import program_of

ROOT: Final = Path(__file__).resolve().parent.parent
SDIST_BYTES_MAX: Final = 1_500_000
_NEEDED: Final = (
    "quota_engine/py.typed",
    "quota_engine/catalog/data/surabaya.toml",
    "quota_engine/stores/redis/lua/office/state_machine.lua",
    "quota_engine/service/pages/templates/base.html",
)
_START_S_MAX: Final = 60.0


def check_metadata(content: bytes) -> list[str]:
    """Return the problems of a distribution's metadata.

    Args:
        content: the file ``METADATA`` or ``PKG-INFO``.
    """
    metadata = Metadata.from_email(content, validate=True)
    problems = [
        f"the classifier {one!r} does not exist" for one in metadata.classifiers or () if one not in classifiers
    ]
    description = metadata.description or ""
    problems += [f"the description links to {one}" for one in re.findall(r"\]\(((?!https?:)[^)]*)\)", description)]
    if "<img" in description or "![" in description:
        problems.append("the description has a picture")
    if len(description) < 1_000:
        problems.append("the description is missing")
    return problems


def check_files(sdist: Path, wheel: Path) -> list[str]:
    """Return the problems of the two files of a release."""
    problems = []
    if sdist.stat().st_size > SDIST_BYTES_MAX:
        problems.append(f"{sdist.name} has {sdist.stat().st_size:,} bytes, more than {SDIST_BYTES_MAX:,}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        problems += check_metadata(archive.read(metadata))
    problems += [f"{wheel.name} lacks {name}" for name in _NEEDED if name not in names]
    problems += [f"{wheel.name} has {name}" for name in names if name.endswith(".pyc") or name.startswith("tests/")]
    return problems


def build_release(folder: Path) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from the sdist, as an index or a distribution does. Return both files."""
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (sdist,) = folder.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as unpacked:
        with tarfile.open(sdist) as archive:
            archive.extractall(unpacked, filter="data")
        (source,) = Path(unpacked).iterdir()
        subprocess.run([*build, "-t", "wheel"], cwd=source, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def _use(wheel: Path, folder: Path) -> None:
    """Install the wheel in a clean environment, and use it."""
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    # The versions of the lock, without its hashes: the wheel has none.
    locked = re.findall(
        r"^([\w.-]+==\S+(?: ; [^\\\n]+)?) \\$", (ROOT / "requirements-dev.txt").read_text("utf-8"), re.M
    )
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(locked), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # The new environment, not a folder with the sources, must be the one that is tried.
    for extras, command in (("", [str(python), "-c", program_of("")]), ("[service]", [])):
        subprocess.run([*pip, "-c", str(constraints), f"{wheel}{extras}"], check=True)
        if command:
            subprocess.run(command, cwd=folder, env=variables, check=True)
    serve_installed(python.with_name("quota-engine"), folder, variables)


def serve_installed(program: Path, folder: Path, variables: dict[str, str]) -> None:
    """Start the installed service without a configuration, and ask for the offices."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(program), "serve", "--port", str(port), "--backend", f"sqlite://{folder / 'service.db'}"]
    key = {"QUOTA_ENGINE_IDENTITY_KEY": "c2l4dGVlbiByYW5kb20gYnl0ZXM="}
    with subprocess.Popen(
        command, cwd=folder, env=variables | key, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as service:
        try:
            deadline = time.monotonic() + _START_S_MAX
            while time.monotonic() < deadline and service.poll() is None:
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/offices") as response:
                        assert b'"surabaya"' in response.read()
                    return
                time.sleep(0.1)
            raise AssertionError("the installed service did not answer")
        finally:
            service.terminate()


def main() -> int:
    """Check the package, and return the exit code."""
    parser = argparse.ArgumentParser(description="Build, check, install and use the package.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "dist", help="gets the sdist and the wheel")
    folder = parser.parse_args().folder
    shutil.rmtree(folder, ignore_errors=True)
    sdist, wheel = build_release(folder)
    problems = check_files(sdist, wheel)
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    if problems:
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        _use(wheel, Path(temporary))
    sys.stdout.write(f"{sdist}\n{wheel}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
