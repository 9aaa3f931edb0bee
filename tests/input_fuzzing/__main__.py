"""Fuzz the targets with atheris: ``python -m tests.input_fuzzing --seconds 600 [TARGET…]``.

Each target runs in a separate process, which starts with the kept corpus and ends with the first finding. The input
of a finding is printed as a line of a corpus. With ``--keep``, small inputs that reach new code join the corpus.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.input_fuzzing.corpora import read_corpus, write_corpus
from tests.input_fuzzing.targets import TARGETS

_INPUT_BYTES_MAX: Final = 4_096
_KEPT_BYTES_MAX: Final = 300
_KEPT_INPUTS_MAX: Final = 150
_PROGRAM: Final = """
import sys, atheris
with atheris.instrument_imports(include=["quota_engine"]):
    from tests.input_fuzzing.targets import TARGETS
atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
atheris.Fuzz()
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz the targets and print their figures. Return 1 if one of them has a finding, and 2 without atheris."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="all without any")
    parser.add_argument("--seconds", type=int, default=60, help="time of each target")
    parser.add_argument("--keep", action="store_true", help="add small inputs that reach new code to the corpora")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("atheris is missing: pip install 'atheris>=3'\n")
        return 2
    found = [fuzz(target, options.seconds, keep=options.keep) for target in options.targets or TARGETS]
    return 0 if all(found) else 1


def fuzz(target: str, seconds: int, *, keep: bool) -> bool:
    """Fuzz one target and print its figures. Return False if there is a finding."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "corpus"
        folder.mkdir()
        for number, data in enumerate(read_corpus(target)):
            (folder / str(number)).write_bytes(data)
        limits = [f"-max_total_time={seconds}", f"-max_len={_INPUT_BYTES_MAX}", "-timeout=20", "-rss_limit_mb=2048"]
        command = [sys.executable, "-c", _PROGRAM, target, *limits, f"-artifact_prefix={name}/finding-", str(folder)]
        run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        executions = re.findall(r"^#(\d+)", run.stderr, re.MULTILINE)
        coverage = re.findall(r"cov: (\d+)", run.stderr)
        findings = sorted(Path(name).glob("finding-*"))
        figures = f"{executions[-1] if executions else 0} executions, coverage {coverage[-1] if coverage else 0}"
        sys.stdout.write(f"{target}: {figures}, {len(findings)} findings\n")
        for finding in findings:
            sys.stdout.write(f"{run.stderr[-3_000:]}\n{json.dumps(finding.read_bytes().decode('latin-1'))}\n")
        if run.returncode and not findings:
            sys.stdout.write(run.stderr[-3_000:])
        sys.stdout.flush()
        if keep:
            inputs = (path.read_bytes() for path in folder.iterdir())
            small = sorted((one for one in inputs if len(one) <= _KEPT_BYTES_MAX), key=len)
            write_corpus(target, {*read_corpus(target), *small[:_KEPT_INPUTS_MAX]})
    return not run.returncode


if __name__ == "__main__":
    sys.exit(main())
