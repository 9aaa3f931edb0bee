"""The conformance suite for stores, as a pytest plugin: scenarios, seeded comparisons with the reference, threads.

Run ``pytest --pyargs quota_engine.conformance --quota-engine-backend URL``. The simulation uses its commands.
``test_backend`` has the tests of all modules.
"""
