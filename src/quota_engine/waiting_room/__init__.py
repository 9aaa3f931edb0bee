"""The waiting room in front of a release: state machine, order, pacing, ticket status, transcript and summary.

Pure: no module does I/O or reads a clock. May import ``admission``, ``catalog`` and ``domain``.
"""
