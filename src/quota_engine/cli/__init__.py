"""The commands of ``quota-engine``, one module each; :mod:`quota_engine.cli.main` assembles them.

A command is a function with typed parameters that returns an exit code: 0 done, 1 the result is bad, 2 bad usage or
input, 3 backend unreachable. Its docstring is its help. It imports its implementation when it runs, so that ``--help``
stays fast. This folder may import every other one.
"""
