"""The load test that ``quota-engine loadtest`` runs: people of a scenario against a staging service.

May import the client, the simulation and reporting. Needs the extra ``loadtest``.
"""
