"""What every backend is held to: scenarios, a seeded comparison with the reference, threads. Runs as a pytest plugin.

``pytest --pyargs quota_engine.conformance --quota-engine-backend URL`` runs all of it against one store.
"""
