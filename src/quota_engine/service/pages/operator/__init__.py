"""Pages for operators at ``/operator``: figures, queue list, capacities, waiting rooms and audit.

May import the parent package, the service's context and its ``http`` package; never the citizens' pages.
"""
