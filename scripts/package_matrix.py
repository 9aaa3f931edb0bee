"""Install the wheel with each extra alone in a clean environment, and run the extra's promise there.

Each extra is tried twice: with the oldest versions that ``pyproject.toml`` allows for its dependencies, and with the
newest ones of the package index. This takes several minutes, so the gate does not run it. With ``--docs docs``, the
versions that kept their promise go to ``docs/data/packages.json``, from which ``docs/upgrading.md`` is made.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.check_package import build_release, serve_installed
from scripts.extras import PROMISES, oldest_versions, program_of


def try_extra(wheel: Path, extra: str, constraints: Path | None, folder: Path) -> str:
    """Return the error of an extra in a clean environment below ``folder``; an empty text if it keeps its promise."""
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    limits = ["-c", str(constraints)] if constraints is not None else []
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    commands = (
        [*pip, *limits, f"{wheel}[{extra}]" if extra else str(wheel)],
        [str(python), "-c", program_of(extra, is_slow=True)],
    )
    for command in commands:
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            return (done.stdout + done.stderr).strip()
    if extra in ("all", "service"):
        try:
            serve_installed(python.with_name("quota-engine"), folder, variables)
        except AssertionError as error:
            return str(error)
    return ""


def installed_versions(folder: Path, extra: str) -> dict[str, str]:
    """Return the installed version of each direct dependency of an extra, by name in alphabetical order."""
    environment = folder / "environment"
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "list", "--format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {str(canonicalize_name(one["name"])): one["version"] for one in json.loads(done.stdout)}
    names = {str(canonicalize_name(Requirement(one).name)) for one in oldest_versions(extra)}
    return {name: found[name] for name in sorted(names & set(found))}


def save(path: Path, extra: str, versions: dict[str, dict[str, str]]) -> None:
    """Write the versions of an extra into the file of all results. Results of other extras stay as they are."""
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"extras": {}}
    results["python"] = f"{sys.version_info.major}.{sys.version_info.minor}"
    results["extras"][extra] = versions
    results["extras"] = dict(sorted(results["extras"].items()))
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Try the extras, print a line for each, and return the exit code."""
    parser = argparse.ArgumentParser(description="Try each extra alone, with the oldest and the newest dependencies.")
    parser.add_argument("extras", nargs="*", choices=[[], *PROMISES], help="only these; all if left out")
    parser.add_argument("--docs", type=Path, help="folder of the documents, whose data/packages.json gets the versions")
    arguments = parser.parse_args()
    chosen = arguments.extras or list(PROMISES)
    is_bad = False
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        root.chmod(0o755)  # as root, an embedded PostgreSQL runs as the user postgres, who must read its wheel
        _, wheel = build_release(root / "dist")
        oldest = root / "oldest.txt"
        for extra in chosen:
            oldest.write_text("\n".join(oldest_versions(extra)), encoding="utf-8")
            versions: dict[str, dict[str, str]] = {}
            for label, constraints in (("oldest", oldest), ("newest", None)):
                with tempfile.TemporaryDirectory(dir=root) as folder:
                    Path(folder).chmod(0o755)
                    error = try_extra(wheel, extra, constraints, Path(folder))
                    if not error:
                        versions[label] = installed_versions(Path(folder), extra)
                is_bad |= bool(error)
                sys.stdout.write(f"{extra or '(no extra)':20} {label:7} {'failed' if error else 'ok'}\n{error}")
                sys.stdout.write("\n" if error else "")
                sys.stdout.flush()
            if arguments.docs and len(versions) == 2:
                save(arguments.docs / "data" / "packages.json", extra, versions)
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
