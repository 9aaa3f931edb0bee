"""The commands of ``quota-engine``, a module each; :mod:`quota_engine.cli.main` puts them together.

A command is a function with typed, documented parameters that returns an exit code: 0 done, 1 the finding is bad,
2 bad usage or input, 3 backend unreachable. A module imports what a command needs only when the command runs, so that
``--help`` stays quick.
"""
