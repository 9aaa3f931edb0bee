"""JSON bodies that the service and its clients share, one module for each resource.

The OpenAPI document is generated from them. Times are milliseconds since 1970 (UTC) and end in ``_at_ms``; days are ISO
dates. No response has an identity in it, not even a keyed hash.

May import the domain, the catalog, and the types of draws, waiting rooms and workflows.
"""
