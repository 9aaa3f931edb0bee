"""The reservation rules: pure, without I/O, clocks or randomness.

Nothing here imports another part of the package. Time, ids and seeds are arguments.
"""
