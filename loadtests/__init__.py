"""Replays an opening against a staging: the same scenario files as ``quota-engine simulate``, over the network.

Only ``lanes``, ``session`` and ``locustfile`` need Locust.
"""
