"""Help, version, completion and encodings: every command explains itself, and nothing ends in a traceback."""

from __future__ import annotations

import importlib.metadata
import inspect
import io
import json
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import cyclopts
import pytest

from quota_engine.cli.help_pages import CommandHelp, read_help
from quota_engine.cli.main import COMMANDS, _shown_default, command_app, main

HEAVY = ("cyclopts", "rich", "msgspec", "importlib.metadata", "re", "dataclasses", "pathlib", "inspect", "typing")
"""Modules that ``--help`` and ``--version`` do not import. Each takes as long as all that they do."""
FOREIGN = ("asyncio", "redis", "psycopg", "sqlite3", "starlette", "uvicorn", "httpx", "locust", "jinja2")
"""Modules that the help of a command does not import either, although the command needs them."""
HELP_CPU_S_MAX = 0.12


def commands() -> Iterator[tuple[tuple[str, ...], cyclopts.App]]:
    """Yield each command with its words."""
    app = command_app(tuple(COMMANDS))
    for name in COMMANDS:
        found = app[name]
        children = [child for child in found if not child.startswith("-")]
        if not children:
            yield (name,), found
        for child in children:
            yield (name, child), found[child]


ALL = dict(commands())
IDS = [" ".join(words) for words in ALL]


@pytest.mark.parametrize("word", ["--help", "--version", "help"])
def test_the_overview_and_the_version_import_nothing(word: str) -> None:
    """Their processor time is that of Python itself, and a little more."""
    code = (
        "import sys; before = set(sys.modules); from quota_engine.cli.main import main; code = main(sys.argv[1:]);"
        "print(code, sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True, check=True)
    code_, _, loaded = ran.stderr.partition(" ")
    assert (code_, set(eval(loaded)) & set(HEAVY)) == ("0", set())  # noqa: S307
    assert "quota-engine" in ran.stdout


def test_help_of_commands_imports_nothing() -> None:
    """Importing the libraries of the commands would take more than three times the processor time of help."""
    code = (
        "import io, sys; before = set(sys.modules); from quota_engine.cli.main import COMMANDS, main\n"
        "for name in COMMANDS: assert main([name, '--help']) == 0\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ran.stderr.split()) & {*HEAVY, *FOREIGN} == set()
    assert ran.stdout.count("Usage: quota-engine ") == len(COMMANDS)


@pytest.mark.slow
def test_help_takes_little_processor_time() -> None:
    """Processor time does not depend on other processes; the best of some runs leaves cold caches out."""
    command = [sys.executable, "-c", "import sys; from quota_engine.cli.main import main; main(sys.argv[1:])"]
    taken = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, "simulate", "--help"], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if taken[-1] <= HELP_CPU_S_MAX:
            return
    raise AssertionError(taken)


WITHOUT_REPORT = {("serve",), ("init",), ("completion",), ("manual",), ("store", "init")}
"""Commands that print no report. ``serve --print-config`` is in JSON."""


def test_every_command_that_reports_prints_json() -> None:
    for words in ALL.keys() - WITHOUT_REPORT:
        found = read_help(COMMANDS[words[0]][0], words[1:])
        assert isinstance(found, CommandHelp)
        assert "--json" in {one.name for one in found.options}, words


@pytest.mark.parametrize("words", ALL, ids=IDS)
def test_help_has_what_the_command_accepts(words: tuple[str, ...]) -> None:
    """The help is read from the source, and the command line is assembled from the imported functions."""
    target, _ = COMMANDS[words[0]]
    found = read_help(target, words[1:])
    assert isinstance(found, CommandHelp)
    shown = {one.name: one for one in (*found.arguments, *found.options)}
    accepted = [one for one in ALL[words].assemble_argument_collection(parse_docstring=True) if one.show]
    assert list(shown) == [one.name for one in accepted]
    for argument in accepted:
        one = shown[argument.name]
        assert one.text == " ".join((argument.parameter.help or "").split())
        assert one.choices == tuple(filter(None, argument.get_choices() or ()))
        assert one.is_required == argument.required
        default = argument.field_info.default
        assert one.default == ("" if default is inspect.Parameter.empty else _shown_default(default) or "")
        assert bool(one.metavar) == (argument.hint is not bool and argument.hint != (bool | None))


@pytest.mark.parametrize("words", [["room"], ["reservation", "-h"], ["draw", "--help"]])
def test_help_of_a_group_lists_its_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    for one in (name for group, *name in ALL if group == words[0]):
        assert f"\n  {one[0]}" in shown
    assert "[OPTIONS]" not in shown


def test_help_of_an_unknown_command_names_the_right_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["room", "verificate", "--help"]) == 2
    assert "verify" in capsys.readouterr().err


def test_a_long_example_can_be_copied(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert main(["room", "verify", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("Example:")
    assert lines[at + 1 : at + 3] == ["  quota-engine room verify transcript.json \\", "  --ticket 4711"]


def test_the_version_is_that_of_the_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no folder of metadata is on the path, as in a zipped package."""
    expected = f"quota-engine {importlib.metadata.version('quota-engine')}\n"
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == expected
    monkeypatch.setattr("os.listdir", lambda _: [])
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == expected


def test_the_overview_names_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for name, (_, overview) in COMMANDS.items():
        assert any(line.split() == [name, *overview.split()] for line in lines), name


@pytest.mark.slow
@pytest.mark.parametrize("words", ALL, ids=IDS)
def test_each_help_has_an_example_and_explains_each_option(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example can be parsed, and the help fits 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert not any(f"[default: {value}]" in shown for value in ('""', "()", "None", "False", "0", "."))
    examples = re.findall(r"Example:  (quota-engine .*)", ALL[words].default_command.__doc__ or "")
    assert examples
    for example in examples:
        given = shlex.split(re.split(" [<>] ", example)[0])[1:]
        assert tuple(given[: len(words)]) == words
        command_app(given).parse_args(given, exit_on_error=False, print_error=False)
    for argument in ALL[words].assemble_argument_collection(parse_docstring=True):
        assert argument.parameter.help or not argument.show, argument.name


def test_help_shows_defaults(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for words, default in ((["watch"], "1000"), (["audit"], "600"), (["simulate"], "memory://")):
        assert main([*words, "--help"]) == 0
        assert f"[default: {default}]" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("reservation", "remove-member", "check-owner", "doctor", "audit-every-s"):
        assert word in script


def test_the_manual_has_each_command_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    """No text begins with a character that a manual page takes for a request."""
    assert main(["manual"]) == 0
    shown = capsys.readouterr().out
    assert shown.isascii()
    lines = shown.splitlines()
    assert {line.split()[0] for line in lines if line.startswith((".", "'"))} <= {
        ".TH",
        ".SH",
        ".SS",
        ".PP",
        ".TP",
        ".B",
    }
    for words in ALL:
        assert f'.SS "{" ".join(words)}"'.replace("-", r"\-") in lines
    for option in ("--check-owner", "--audit-every-s", "--print-config"):
        assert f".B {option}".replace("-", r"\-") in lines
    assert sum(r"Example:  quota\-engine" in line or r"Example: quota\-engine" in line for line in lines) >= len(ALL)


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "--seed", "1.5"],
        ["simulate", "--applicants", "1e3"],
        ["simulate", "--applicants", "0x10"],
        ["bench", "--concurrency", "2.0"],
        ["watch", "memory://", "--times", "١"],
        ["reservation", "extend", "sqlite:///none.db", "a~b", "--expected-version", "1.0"],
    ],
)
def test_integers_are_integers(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """``--seed 1.5`` ran with the seed 2."""
    assert main(words) == 2
    assert f"{words[-1]!r} is no integer; expected digits, such as 7" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-16", "koi8-r"])
@pytest.mark.parametrize(
    "words", [["catalog", "show", "indonesia"], ["status", "memory://"], ["--help"], ["status", "--help"], ["nonsense"]]
)
def test_no_encoding_of_the_output_ends_in_a_traceback(
    encoding: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert main(words) == (2 if words == ["nonsense"] else 0)
    for stream in streams.values():
        stream.flush()
        stream.detach()


def test_json_has_escapes_if_the_encoding_lacks_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question mark in place of a character would be a wrong value."""
    found: dict[str, Any] = {}
    for encoding in ("utf-8", "ascii"):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["catalog", "show", "indonesia", "--json"]) == 0
        stream.flush()
        found[encoding] = json.loads(raw.getvalue())
        stream.detach()
    assert found["utf-8"] == found["ascii"]
