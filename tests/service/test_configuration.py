"""The configuration: what it comes to, and that every mistake in it is named with its key."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path
from typing import Any

import pytest

from quota_engine.domain.errors import CatalogError
from quota_engine.faces.service.access import Role
from quota_engine.faces.service.configuration import Configuration, configure, made_up_grants

KEY = base64.b64encode(b"0123456789abcdef").decode()
TOKENS = made_up_grants({Role.SERVICE: "token"})


def configured(
    tmp_path: Path, text: str = "", environment: dict[str, str] | None = None, **options: Any
) -> Configuration:
    file = tmp_path / "service.toml"
    file.write_text(text)
    return configure(file, environment or {}, options, grants=TOKENS)


def mistakes(tmp_path: Path, text: str = "", environment: dict[str, str] | None = None, **options: Any) -> list[str]:
    with pytest.raises(CatalogError) as error:
        configured(tmp_path, text, environment, **options)
    return [f"{Path(mistake.file).name}: {mistake.key}" for mistake in error.value.mistakes]


def test_file_then_environment_then_command_line(tmp_path: Path) -> None:
    """The later one counts."""
    text = f'port = 1\nhost = "::1"\nworkers = 2\nbackend = "redis://x"\nidentity_key = "{KEY}"'
    found = configured(tmp_path, text, {"QUOTA_ENGINE_PORT": "2", "QUOTA_ENGINE_WORKERS": "3"}, workers=4)
    assert (found.port, found.host, found.workers, found.backend) == (2, "::1", 4, "redis://x")
    assert found.identity_key == b"0123456789abcdef"


def test_nothing_configured_starts_on_an_embedded_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data in this folder, the key beside it, the same the next time, for its owner only."""
    monkeypatch.chdir(tmp_path)
    first, second = (configure(None, {}, {}, grants=TOKENS) for _ in range(2))
    assert first.backend == f"valkey+embedded://{tmp_path / 'quota-engine-data'}"
    assert first.identity_key == second.identity_key
    assert (tmp_path / "quota-engine-data" / "identity.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "quota-engine-data").iterdir()] == ["identity.key"]
    assert (first.catalog.title, first.made_up) == ("Kantor Imigrasi Kelas I Khusus TPI Surabaya", ("tokens",))


def test_secrets_are_not_shown_and_workers_get_all(tmp_path: Path) -> None:
    """A configuration can be written to a log, and handed to a worker."""
    found = configured(tmp_path, f'backend = "memory://"\nidentity_key = "{KEY}"')
    assert "0123456789abcdef" not in repr(found)
    assert pickle.loads(pickle.dumps(found)).identity_key == found.identity_key  # noqa: S301


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prot = 1", ["service.toml: prot"]),
        ("port = 70000", ["service.toml: port"]),
        ('port = "80"', ["service.toml: port"]),
        ("workers = 0\ndrain_ms = -1", ["service.toml: workers", "service.toml: drain_ms"]),
        (
            '[[tokens]]\nname = "a"\nrole = "boss"\nsha256 = "x"',
            ["service.toml: tokens[0].role", "service.toml: tokens[0].sha256"],
        ),
        ("[limits]\nbody_bytes_max = 1", ["service.toml: limits.body_bytes_max"]),
        ('identity_key = "short"', ["service.toml: identity_key"]),
        ('backend = "redis://localhost"', ["service.toml: identity_key"]),
        ("port =", ["service.toml: line 1 (end of the file)"]),
    ],
)
def test_mistakes_name_the_key(tmp_path: Path, text: str, expected: list[str]) -> None:
    """All of them at once, by file and key."""
    backend: dict[str, Any] = {} if "backend" in text else {"backend": "memory://"}
    assert mistakes(tmp_path, text, **backend) == expected


def test_mistakes_name_the_variable_or_the_option(tmp_path: Path) -> None:
    """What did not come from the file is not blamed on it."""
    found = mistakes(tmp_path, environment={"QUOTA_ENGINE_PORT": "many"}, backend="memory://", workers=1000)
    assert found == ["QUOTA_ENGINE_PORT: port", "--workers: workers"]


def test_tokens_twice_or_for_offices_that_are_not_there(tmp_path: Path) -> None:
    """A name is one token's, and an office one of the catalog."""
    token = f'[[tokens]]\nname = "a"\nrole = "office"\nsha256 = "{"0" * 64}"\noffices = ["malang"]\n'
    assert mistakes(tmp_path, token, backend="memory://") == ["service.toml: tokens[0].offices"]
    assert mistakes(tmp_path, token * 2, backend="memory://") == ["service.toml: tokens[1].name"]


def test_a_catalog_beside_the_file(tmp_path: Path) -> None:
    """A catalog is looked for where the configuration is; one that does not exist is a mistake of its own."""
    (tmp_path / "offices.toml").write_text("title = 1")
    assert "offices.toml: title" in mistakes(tmp_path, 'catalog = "offices.toml"', backend="memory://")
    assert mistakes(tmp_path, 'catalog = "nix"', backend="memory://") == ["nix: file"]
