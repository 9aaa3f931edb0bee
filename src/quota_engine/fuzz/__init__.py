"""A deterministic simulation of engines, stores and a network with faults, for ``quota-engine fuzz``.

One seed decides everything. There is no thread, no sleep and no socket, so an hour takes milliseconds, and a seed that
fails replays exactly, also under another ``PYTHONHASHSEED``.

``virtual_loop`` runs the callers, which are coroutines, and ``schedule`` draws what they do. ``network`` carries the
requests of the Redis store to ``script_server``, which runs the real Lua. ``sql_database`` runs the transactions of the
SQL store, and ``memory_server`` puts the memory store behind a network. ``reference`` applies every command to the pure
machine as well. :mod:`quota_engine.history` holds the callers' answers against a model of the rules. ``runner`` runs a
seed, and ``shrinking`` looks for the smallest schedule that still fails.
"""
