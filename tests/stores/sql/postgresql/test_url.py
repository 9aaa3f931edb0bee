from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from quota_engine.domain.errors import InvalidRequest
from quota_engine.stores.sql.postgresql.url import CommitDurability, Settings, parse_url

BASE = "postgresql://booking:s3cret@db.example:5433/quota"


def test_url_has_defaults() -> None:
    settings = parse_url(BASE)
    assert (settings.schema, settings.timeout_ms, settings.durability) == ("quota_engine", 5000, CommitDurability.FSYNC)
    fields = conninfo_to_dict(settings.conninfo)
    assert (fields["host"], fields["port"], fields["dbname"]) == ("db.example", "5433", "quota")
    assert (fields["user"], fields["password"], fields["connect_timeout"]) == ("booking", "s3cret", "5")


def test_url_keeps_own_options_from_libpq() -> None:
    settings = parse_url(
        f"{BASE}?schema=tax&timeout_ms=2000&connections_max=3&durability=replicated&replicas=2&prepare=off"
        "&sslmode=require&cache_mb=100",
    )
    fields = conninfo_to_dict(settings.conninfo)
    assert fields["sslmode"] == "require"
    assert not {"schema", "timeout_ms", "cache_mb"} & set(fields)
    assert settings == Settings(
        conninfo=settings.conninfo,
        schema="tax",
        timeout_ms=2000,
        statement_timeout_ms=1600,
        lock_timeout_ms=1200,
        durability=CommitDurability.REPLICATED,
        replicas=2,
        connections_max=3,
        prepare=False,
        cache_mb=100,
        call_timeout_ms=10_000,
    )


def test_url_takes_several_hosts_and_encoded_passwords() -> None:
    settings = parse_url("postgres://u:p%2F%40@a:1,b:2/quota?target_session_attrs=read-write")
    fields = conninfo_to_dict(settings.conninfo)
    assert (fields["host"], fields["port"], fields["password"]) == ("a,b", "1,2", "p/@")
    assert settings.has_several_hosts


def test_url_takes_sockets() -> None:
    assert conninfo_to_dict(parse_url("postgresql://u@/quota?host=/run/pg").conninfo)["host"] == "/run/pg"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://u:s3cret@h", "names no database"),
        ("postgresql://u:s3cret@h/", "names no database"),
        (f"{BASE}?schemata=x", "unknown option 'schemata'"),
        (f"{BASE}?schema=pg_x", "begins with pg_"),
        (f"{BASE}?schema=a.b", "not a valid id"),
        (f"{BASE}?schema={'a' * 64}", "too long"),
        (f"{BASE}?schema=a&schema=b", "more than once"),
        (f"{BASE}?timeout_ms=soon", "'soon'"),
        (f"{BASE}?timeout_ms=1", "'1'"),
        (f"{BASE}?durability=disk", "'disk'"),
        (f"{BASE}?prepare=yes", "'yes'"),
        (f"{BASE}#x", "behind '#'"),
        ("postgresql://u:s3cret@[h/quota", "not a URL"),
        ("postgresql://u:s3%cret@h/quota", "libpq cannot read it"),
        ("mysql://u:s3cret@h/quota", "no scheme mysql://"),
    ],
)
def test_url_names_the_problem_and_no_password(url: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_url(url)
    assert problem in str(caught.value)
    assert "s3" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
