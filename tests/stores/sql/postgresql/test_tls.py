"""TLS between the store and a real server: an authority that is made here signs the server's certificate."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quota_engine.domain.errors import BackendUnavailable
from quota_engine.engine.store_discovery import store_factory
from quota_engine.stores.sql.postgresql.connections import Connections
from quota_engine.stores.sql.postgresql.url import parse_url
from tests.support.certificates import Certificates, make_certificates
from tests.support.postgresql_servers import (
    PostgresqlServer,
    debian_programs_or_skip,
)
from tests.support.postgresql_steps import append_entry, opened
from tests.support.servers import HOST

pytestmark = pytest.mark.store
IN_USE = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = %s"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The server's certificate, and the authority that signed it."""
    return make_certificates(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[PostgresqlServer]:
    """Debian's server with TLS; the wheel's server is built without it."""
    server = PostgresqlServer(debian_programs_or_skip(), settings={})
    for name, file in (("server.crt", certificates.certificate), ("server.key", certificates.key)):
        path = server.directory / name
        shutil.copyfile(file, path)
        path.chmod(0o600)
        if server._user is not None:
            os.chown(path, server._user.pw_uid, server._user.pw_gid)
        server.settings["ssl_cert_file" if name.endswith("crt") else "ssl_key_file"] = str(path)
    server.settings["ssl"] = "on"
    with server:
        yield server


@pytest.fixture(params=["sync", "async"])
def opening(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Opens the store of a URL, and closes it."""

    async def open_async(url: str) -> None:
        await (await store_factory(url).open_async_store(url, None)).close()

    if request.param == "async":
        return lambda url: asyncio.run(open_async(url))
    return lambda url: store_factory(url).open_store(url, None).close()


def tls(authority: Path, **options: Any) -> dict[str, Any]:
    """Return options of a URL for the server over TCP, with all checks of its certificate."""
    return {"host": HOST, "sslmode": "verify-full", "sslrootcert": authority, **options}


def test_store_works_with_a_verified_certificate(server: PostgresqlServer, certificates: Certificates) -> None:
    schema = server.new_schema()
    with opened(server, schema, **tls(certificates.authority, application_name=schema)) as connections:
        assert connections.run(append_entry(b"one")) == 1
        assert server.query(IN_USE, schema) == [(1,)]


def test_another_authority_is_refused(server: PostgresqlServer, tmp_path: Path, opening: Callable[[str], None]) -> None:
    other = make_certificates(tmp_path).authority
    with pytest.raises(BackendUnavailable, match="of an authority in sslrootcert"):
        opening(server.url(**tls(other)))


def test_certificate_of_another_host_is_refused(
    server: PostgresqlServer, certificates: Certificates, opening: Callable[[str], None]
) -> None:
    """The certificate is for 127.0.0.1 and localhost; the host's name decides, and not its address."""
    url = server.url(**tls(certificates.authority, host="db.example", hostaddr=HOST))
    with pytest.raises(BackendUnavailable, match="another host"):
        opening(url)


def test_server_without_tls_is_refused(postgresql: PostgresqlServer, certificates: Certificates) -> None:
    connections = Connections(parse_url(postgresql.url(**tls(certificates.authority))))
    with pytest.raises(BackendUnavailable, match="sslmode"):
        connections.open()


def test_refused_certificate_is_final_in_a_call(
    server: PostgresqlServer, certificates: Certificates, tmp_path: Path
) -> None:
    """A later connection is refused at once: more attempts would meet the same certificate."""
    schema, authority = server.new_schema(), tmp_path / "authority.pem"
    shutil.copyfile(certificates.authority, authority)
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other").authority
    with opened(server, schema, **tls(authority)) as connections:
        shutil.copyfile(other, authority)
        connections._drop_idle()
        with pytest.raises(BackendUnavailable, match="certificate"):
            connections.run(append_entry(b"one"))
