"""A proxy between a client and a PostgreSQL server that loses answers to commits, and delivers commits late."""

from __future__ import annotations

from quota_engine.stores.sql.postgresql.protocol import Prepared
from tests.support.lossy_proxy import LossyProxy
from tests.support.postgresql_servers import PostgresqlServer


class PostgresqlProxy(LossyProxy):
    """Loses the answers to the next ``losses`` commits, and holds the next ``holds`` commits.

    A commit of an explicit transaction is one write, with the statements before it.
    """

    has_other_requests = True

    def __init__(self, server: PostgresqlServer, *, prepares: bool = True) -> None:
        """Lead to a server; ``prepares``: the client prepares its statements, so that a commit is sent by its name."""
        marker = Prepared("COMMIT").name if prepares else b"\0COMMIT\0"
        super().__init__(server.directory / f".s.PGSQL.{server.port}", marker)
