"""Flows: what the engine does, written once. A :class:`~quota_engine.workflows.request_builder.Desk` turns a call into
a request to the
store;
what takes several requests is a generator that yields them, run by a sync and an async driver."""
