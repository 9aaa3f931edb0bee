"""``quota-engine store key``: the identity key is compared with that of a store, and never shown."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from quota_engine import QuotaEngine
from quota_engine.cli.main import main

KEY = b"a key for tests, and only them"
OTHER = b"another key of another house"


def compare(url: str, key: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("QUOTA_ENGINE_IDENTITY_KEY", base64.b64encode(key).decode())
    return main(["store", "key", url])


def test_key_is_compared_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite://{tmp_path}/quota.db"
    assert compare(url, KEY, monkeypatch) == 0
    assert compare(url, OTHER, monkeypatch) == 0  # the comparison has stored no key
    assert "none: the first opening sets it" in capsys.readouterr().out
    QuotaEngine.open(url, identity_key=KEY).close()
    assert compare(url, KEY, monkeypatch) == 0
    assert "(the same)" in capsys.readouterr().out
    assert compare(url, OTHER, monkeypatch) == 1
    shown = capsys.readouterr().out
    assert "(another key: do not start a service with this one)" in shown
    assert not any(word in shown for key in (KEY, OTHER) for word in (key.decode(), base64.b64encode(key).decode()))


def test_key_is_read_from_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("QUOTA_ENGINE_IDENTITY_KEY", raising=False)
    url = f"sqlite://{tmp_path}/quota.db"
    assert main(["store", "key", url]) == 2
    assert "QUOTA_ENGINE_IDENTITY_KEY (or --config FILE): missing" in capsys.readouterr().err
    QuotaEngine.open(url, identity_key=KEY).close()
    config = tmp_path / "quota.toml"
    key = base64.b64encode(KEY).decode()
    config.write_text(f'backend = "{url}"\ncatalog = "surabaya"\nidentity_key = "{key}"\n')
    assert main(["store", "key", "--config", str(config)]) == 0
    assert f"{config}: identity_key: " in capsys.readouterr().out
