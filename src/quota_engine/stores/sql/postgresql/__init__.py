"""The store in a PostgreSQL database: URLs, SQL texts, connections, tables, and the embedded server."""
