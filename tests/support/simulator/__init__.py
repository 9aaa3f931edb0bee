"""A deterministic simulation: the real engine and the real scripts, on a virtual clock and a network with faults.

One seed decides everything. There is no thread, no sleep and no socket, so a run of a minute takes milliseconds, and a
seed that fails replays exactly::

    python -m tests.support.simulator --seeds 1000
    python -m tests.support.simulator --seed 17

``virtual_loop`` runs the actors, which are coroutines. ``network`` carries their requests to ``script_server``, with
the faults that ``faults`` draws. ``visit`` has the actors, and ``history`` checks the calls that they have made.
"""
