"""The opening on the library and its store, without a service between: ``locust -f loadtests/direct.py`` with
``--backend`` and ``--identity-key``; ``--host`` is the staging all the same, for what is on sale and the verdict.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from locust import events

from loadtests.lanes import DirectLane, Opening
from loadtests.people import Role
from loadtests.session import add_arguments, begin_direct

events.init_command_line_parser.add_listener(add_arguments)


def begin(environment: Any, **_: Any) -> None:
    """Look at the host, and open the engine."""
    begin_direct(environment)


events.init.add_listener(begin)


class Citizen(DirectLane):
    """See ``locustfile.py``: the same people."""

    role = Role.CITIZEN


class Refresher(DirectLane):
    """See ``locustfile.py``."""

    role = Role.REFRESHER


class Bot(DirectLane):
    """See ``locustfile.py``."""

    role = Role.BOT


class Broker(DirectLane):
    """See ``locustfile.py``."""

    role = Role.BROKER


class Kiosk(DirectLane):
    """See ``locustfile.py``."""

    role = Role.KIOSK


class Operator(DirectLane):
    """See ``locustfile.py``."""

    role = Role.OPERATOR


class Surge(Opening):
    """Early arrivals, the burst of the opening second, and the tail."""
