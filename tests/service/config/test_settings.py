"""Settings combine correctly, and every error names its key."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path
from typing import Any

import pytest

from quota_engine.domain.errors import CatalogError
from quota_engine.service.config.settings import ServiceConfig, generated_grants, load_config
from quota_engine.service.http.auth import Role

KEY = base64.b64encode(b"0123456789abcdef").decode()
TOKENS = generated_grants({Role.SERVICE: "token"})


def configured(
    tmp_path: Path, text: str = "", environment: dict[str, str] | None = None, **options: Any
) -> ServiceConfig:
    file = tmp_path / "service.toml"
    file.write_text(text)
    return load_config(file, environment or {}, options, grants=TOKENS)


def mistakes(tmp_path: Path, text: str = "", environment: dict[str, str] | None = None, **options: Any) -> list[str]:
    with pytest.raises(CatalogError) as error:
        configured(tmp_path, text, environment, **options)
    return [f"{Path(mistake.file).name}: {mistake.key}" for mistake in error.value.issues]


def test_later_sources_override_earlier_ones(tmp_path: Path) -> None:
    text = f'port = 1\nhost = "::1"\nworkers = 2\nbackend = "redis://x"\nidentity_key = "{KEY}"'
    found = configured(tmp_path, text, {"QUOTA_ENGINE_PORT": "2", "QUOTA_ENGINE_WORKERS": "3"}, workers=4)
    assert (found.port, found.host, found.workers, found.backend) == (2, "::1", 4, "redis://x")
    assert found.identity_key == b"0123456789abcdef"


def test_variables_reach_every_setting(tmp_path: Path) -> None:
    """Two underscores lead into a table, and a list has commas. The file's other values stay."""
    text = 'backend = "memory://"\n[limits]\nrequests_max = 5\nstreams_max = 6'
    variables = {
        "QUOTA_ENGINE_PUBLISH_DAYS": "9",
        "QUOTA_ENGINE_STAGING": "true",
        "QUOTA_ENGINE_PUBLIC_ORIGINS": "https://a.example, https://b.example",
        "QUOTA_ENGINE_LIMITS__REQUESTS_MAX": "77",
        "QUOTA_ENGINE_WAITING_ROOMS__OFFICES": "surabaya",
        "QUOTA_ENGINE_WAITING_ROOMS__SETTINGS__TURN_MS": "60000",
        "QUOTA_ENGINE_TOKEN": "of the command line",
        "QUOTA_ENGINE_DRAIN_MS": "",
    }
    found = configured(tmp_path, text, variables)
    assert (found.publish_days, found.staging, found.drain_ms) == (9, True, 0)
    assert found.public_origins == ("https://a.example", "https://b.example")
    assert (found.limits.requests_max, found.limits.streams_max) == (77, 6)
    assert found.waiting_rooms is not None
    assert found.waiting_rooms.settings.turn_ms == 60_000
    assert configured(tmp_path, text, variables, staging=False).staging is False


@pytest.mark.parametrize(
    ("variable", "value", "key"),
    [
        ("QUOTA_ENGINE_LIMITS__REQUESTS_MAX", "many", "limits.requests_max"),
        ("QUOTA_ENGINE_LIMITS__REQUESTS_MAX", "0", "limits.requests_max"),
        ("QUOTA_ENGINE_LIMITS__REQUEST_MAX", "7", "limits.request_max"),
        ("QUOTA_ENGINE_NOTHING__AT_ALL", "7", "nothing.at_all"),
        ("QUOTA_ENGINE_STAGING", "yes", "staging"),
        ("QUOTA_ENGINE_PUBLISH_DAYS", "1.5", "publish_days"),
    ],
)
def test_wrong_variables_are_named(tmp_path: Path, variable: str, value: str, key: str) -> None:
    assert mistakes(tmp_path, 'backend = "memory://"', {variable: value}) == [f"{variable}: {key}"]


def default_backend(monkeypatch: pytest.MonkeyPatch, *, has_wheel: bool) -> str:
    """Return the store of a service without settings."""
    with monkeypatch.context() as patch:
        if not has_wheel:
            patch.setattr("importlib.util.find_spec", lambda name: None)
        return load_config(None, {}, {}, grants=TOKENS).backend


def test_sqlite_is_the_default_where_the_wheel_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with data of one store never gets another, empty one."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "quota-engine-data"
    sqlite = f"sqlite://{data}/quota.db"
    assert default_backend(monkeypatch, has_wheel=False) == sqlite
    assert (data / "identity.key").exists()
    (data / "appendonlydir").mkdir()
    assert default_backend(monkeypatch, has_wheel=False) == f"valkey+embedded://{data}"
    (data / "appendonlydir").rmdir()
    (data / "quota.db").touch()
    assert default_backend(monkeypatch, has_wheel=True) == sqlite


def test_sqlite_without_a_path_keeps_its_key_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = configured(tmp_path, 'backend = "sqlite://"', {})
    assert found.backend == f"sqlite://{tmp_path}/quota-engine-data/quota.db"
    elsewhere = configured(tmp_path, f'backend = "sqlite://{tmp_path}/other/quota.db"', {})
    assert elsewhere.identity_key != found.identity_key
    assert (tmp_path / "other" / "identity.key").exists()


def test_defaults_use_an_embedded_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its identity key is kept beside the data, for its owner only."""
    monkeypatch.chdir(tmp_path)
    first, second = (load_config(None, {}, {}, grants=TOKENS) for _ in range(2))
    assert first.backend == f"valkey+embedded://{tmp_path / 'quota-engine-data'}"
    assert first.identity_key == second.identity_key
    assert (tmp_path / "quota-engine-data" / "identity.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "quota-engine-data").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / "quota-engine-data").iterdir()] == ["identity.key"]
    assert (first.catalog.title, first.generated) == ("Kantor Imigrasi Kelas I Khusus TPI Surabaya", ("tokens",))


def test_identity_key_errors_name_the_source_and_hide_the_key(tmp_path: Path) -> None:
    """The variable overrides the file, so an error in its value is not one of the file."""
    file_key, variable = f'backend = "redis://x"\nidentity_key = "{KEY}"', "QUOTA_ENGINE_IDENTITY_KEY"
    assert configured(tmp_path, file_key).identity_key.source == f"{tmp_path / 'service.toml'}: identity_key"
    assert configured(tmp_path, file_key, {variable: KEY}).identity_key.source == variable
    for text, environment, words in (
        (file_key, {variable: "raw secret bytes, no base64"}, f"{variable}: identity_key: not a usable key; expected"),
        ('backend = "redis://x"\nidentity_key = "raw secret"', {}, "service.toml: identity_key: not a usable key;"),
        ('backend = "redis://x"\nidentity_key = 4711', {}, "service.toml: identity_key: not text; expected a string"),
        ('backend = "redis://x"', {}, "service.toml: identity_key: missing; expected base64 of 16 to 64 random"),
    ):
        with pytest.raises(CatalogError) as caught:
            configured(tmp_path, text, environment)
        assert words in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "4711" not in str(caught.value)


def test_a_stored_identity_key_is_base64_like_every_other(tmp_path: Path) -> None:
    """The text of the file is a valid setting. An error in the file names the file."""
    path = tmp_path / "store" / "identity.key"
    options: dict[str, Any] = {"backend": f"valkey+embedded://{path.parent}"}
    stored = configured(tmp_path, **options).identity_key
    assert stored.source == str(path)
    assert configured(tmp_path, environment={"QUOTA_ENGINE_IDENTITY_KEY": path.read_text()}, **options) is not None
    assert configured(tmp_path, f'identity_key = """{path.read_text()}"""', **options).identity_key == stored
    for content in (b"\x80" * 32, b"secret", b""):
        path.write_bytes(content)
        with pytest.raises(CatalogError) as caught:
            configured(tmp_path, **options)
        (issue,) = caught.value.issues
        assert (issue.file, issue.value) == (str(path), "not a usable key")


def test_config_hides_secrets_and_can_be_pickled(tmp_path: Path) -> None:
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
        ('backend = "memory://"\nworkers = 2', ["service.toml: workers"]),
        ('backend = "redis://localhost"', ["service.toml: identity_key"]),
        ("port =", ["service.toml: line 1 (end of the file)"]),
        ('public_origins = ["https://a.example/", "https://b"]', ["service.toml: public_origins[0]"]),
        ('public_origins = ["booking.example"]', ["service.toml: public_origins[0]"]),
        ('public_origins = ["https://Booking.example"]', ["service.toml: public_origins[0]"]),
        (
            'public_origins = ["https://a:443", "http://a:80", "http://a:"]',
            [f"service.toml: public_origins[{index}]" for index in range(3)],
        ),
        ('public_origins = ["http://a", "https://a"]', ["service.toml: public_origins[1]"]),
        ('public_origins = "https://a"', ["service.toml: public_origins"]),
        ('trusted_proxies = ["localhost", "10.0.0.0/8"]', ["service.toml: trusted_proxies[0]"]),
        (
            'trusted_proxies = ["10.0.0.5/8", "*"]',
            ["service.toml: trusted_proxies[0]", "service.toml: trusted_proxies[1]"],
        ),
    ],
)
def test_errors_name_their_keys(tmp_path: Path, text: str, expected: list[str]) -> None:
    backend: dict[str, Any] = {} if "backend" in text else {"backend": "memory://"}
    assert mistakes(tmp_path, text, **backend) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[admission]]\nname = "a"\nby = "all"', ["admission[0].per_minute"]),
        ('[[admission]]\nname = "a"\nby = "all"\nper_day = 1\nper_hour = 1', ["admission[0].per_minute"]),
        ('[[admission]]\nname = "room"\nby = "all"\nper_day = 1', ["admission[0].name"]),
        ('[[admission]]\nname = "a"\nby = "all"\nper_day = 1\n' * 2, ["admission[1].name"]),
        (
            '[[admission]]\nname = "a b"\nby = "face"\nper_day = 0\nscope = "here"\nshadow = 1',
            [
                "admission[0].name",
                "admission[0].by",
                "admission[0].per_day",
                "admission[0].scope",
                "admission[0].shadow",
            ],
        ),
        ('[[admission]]\nname = "a"\nby = "all"\nper_day = 1\nburst = 1000000000', ["admission[0].burst"]),
        (
            '[[admission]]\nname = "a"\nby = "all"\nper_day = 3\nburst = 3\nsliding_window = true',
            ["admission[0].burst"],
        ),
        ('[[admission]]\nname = "a"\nby = "all"\nper_day = 101\nsliding_window = true', ["admission[0].per_day"]),
        ('[[admission]]\nname = "a"\nby = "all"\nper_day = 1\nchannels = ["fax"]', ["admission[0].channels"]),
        ('[[admission]]\nname = "a"\nby = "all"\nper_week = 1', ["admission[0].per_week"]),
        ('[waiting_rooms]\noffices = ["malang"]', ["waiting_rooms.offices"]),
        ('[waiting_rooms]\noffices = ["*"]\nduration_ms = 0', ["waiting_rooms.duration_ms"]),
        ('[waiting_rooms]\noffices = ["*"]\n[waiting_rooms.settings]\nstep_ms = 1', ["waiting_rooms.settings.step_ms"]),
        (
            '[waiting_rooms]\noffices = ["*"]\n[waiting_rooms.settings]\nlease_ms = 5',
            ["waiting_rooms.settings.lease_ms"],
        ),
        ('[waiting_rooms]\noffices = ["*"]\n[waiting_rooms.settings]\nspeed = 1', ["waiting_rooms.settings.speed"]),
        ('[ticket_keys]\nactive = "a"\n[ticket_keys.secrets]\na = "short"', ["ticket_keys.secrets.a"]),
        (f'[ticket_keys]\nactive = "a"\n[ticket_keys.secrets]\nb = "{KEY}"', ["ticket_keys.active"]),
        (f'[ticket_keys]\nactive = "a"\n[ticket_keys.secrets]\na = "{KEY}"\n"b c" = "{KEY}"', ["ticket_keys.secrets"]),
        ('[ticket_keys]\nactive = "a"\n[ticket_keys.secrets]', ["ticket_keys.secrets"]),
    ],
)
def test_admission_errors_name_their_keys(tmp_path: Path, text: str, expected: list[str]) -> None:
    """They are reported at the start, not at the next opening."""
    found = mistakes(tmp_path, text, backend="memory://")
    assert found == [f"service.toml: {key}" for key in expected]


def test_offices_without_an_online_channel_have_no_rooms(tmp_path: Path) -> None:
    """Naming one is an error; ``*`` skips it."""
    catalog = Path("src/quota_engine/catalog/data/surabaya.toml").read_text(encoding="utf-8")
    (tmp_path / "offices.toml").write_text(catalog.replace('channels = ["online"]', 'channels = ["kiosk"]'))
    text = 'catalog = "offices.toml"\n[waiting_rooms]\noffices = [{}]'
    found = configured(tmp_path, text.format('"*"'), backend="memory://")
    assert found.waiting_rooms is not None
    assert found.waiting_rooms.schedule.offices == ()
    assert mistakes(tmp_path, text.format('"surabaya"'), backend="memory://") == ["service.toml: waiting_rooms.offices"]
    (tmp_path / "offices.toml").write_text(catalog.replace('"surabaya"', f'"{"s" * 51}"'))
    assert mistakes(tmp_path, text.format('"*"'), backend="memory://") == ["service.toml: waiting_rooms.offices"]


def test_trusted_proxies_come_from_the_file_or_from_uvicorns_variable(tmp_path: Path) -> None:
    default = configured(tmp_path, backend="memory://")
    assert (default.trusted_proxies, default.public_origins) == (("127.0.0.1", "::1"), ())
    text = 'trusted_proxies = ["10.0.0.0/8"]\npublic_origins = ["https://a.example", "http://[::1]:8000"]'
    found = configured(tmp_path, text, backend="memory://")
    assert found.trusted_proxies == ("10.0.0.0/8",)
    assert found.public_origins == ("https://a.example", "http://[::1]:8000")
    environment = {"FORWARDED_ALLOW_IPS": "10.0.0.5, fd00::/8"}
    assert configured(tmp_path, text, environment, backend="memory://").trusted_proxies == ("10.0.0.5", "fd00::/8")


def test_admission_config_can_be_pickled(tmp_path: Path) -> None:
    """Its ``repr`` shows no secret."""
    text = f"""
        [[admission]]
        name = "a"
        by = "identity"
        per_hour = 5
        shadow = true
        channels = ["online"]
        [waiting_rooms]
        offices = ["*"]
        [ticket_keys]
        active = "a"
        [ticket_keys.secrets]
        a = "{KEY}"
    """
    found = configured(tmp_path, text, backend="memory://")
    copy = pickle.loads(pickle.dumps(found))  # noqa: S301
    assert (copy.admission, copy.waiting_rooms) == (found.admission, found.waiting_rooms)
    assert copy.ticket_keys.keys().active == "a"
    assert "0123456789abcdef" not in repr(found)


def test_errors_name_the_variable_or_option(tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as error:
        configured(tmp_path, "", {"QUOTA_ENGINE_PORT": "many"}, backend="memory://", workers=1000)
    assert str(error.value).splitlines() == [
        "QUOTA_ENGINE_PORT: 'many'; expected an integer from 0 to 65535",
        "--workers: 1000; expected an integer from 1 to 64",
    ]


def test_repeated_tokens_and_unknown_offices_are_errors(tmp_path: Path) -> None:
    token = f'[[tokens]]\nname = "a"\nrole = "office"\nsha256 = "{"0" * 64}"\noffices = ["malang"]\n'
    assert mistakes(tmp_path, token, backend="memory://") == ["service.toml: tokens[0].offices"]
    assert mistakes(tmp_path, token * 2, backend="memory://") == ["service.toml: tokens[1].name"]


def test_catalog_path_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "offices.toml").write_text("title = 1")
    assert "offices.toml: title" in mistakes(tmp_path, 'catalog = "offices.toml"', backend="memory://")
    assert mistakes(tmp_path, 'catalog = "nix"', backend="memory://") == ["nix: file"]
