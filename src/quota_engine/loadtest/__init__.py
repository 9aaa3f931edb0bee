"""The load test that ``quota-engine loadtest`` runs: people of a scenario act on a staging service.

May import the client, the simulation, bench and reporting. Needs the extra ``loadtest``.
"""
