"""The waiting room in front of a release: its state machine, its order, ticket statuses and its transcript.

Pure. May import admission, catalog and domain.
"""
