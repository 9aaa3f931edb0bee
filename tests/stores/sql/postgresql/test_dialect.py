from __future__ import annotations

from quota_engine.stores.sql.postgresql.dialect import PostgresqlDialect
from quota_engine.stores.sql.sqlite.dialect import SqliteDialect


def test_both_dialects_have_the_same_statements() -> None:
    assert set(PostgresqlDialect("quota").texts) - {"notify"} == set(SqliteDialect("file").texts)


def test_texts_name_the_schema_in_quotes() -> None:
    texts = PostgresqlDialect("A-b").texts
    assert '"A-b".ledgers' in texts["lock_ledger"]
    assert "{" not in "".join(texts.values())
