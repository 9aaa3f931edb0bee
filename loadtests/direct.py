"""The opening on the library and its store, without a service between: ``locust -f loadtests/direct.py`` with
``--backend`` and ``--identity-key``; ``--host`` is the staging all the same, for what is on sale and the verdict.
"""

from __future__ import annotations

__all__ = ["Bot", "Broker", "Citizen", "Kiosk", "Opening", "Operator", "Refresher"]

import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from locust import events

from loadtests.lanes import DirectLane, Opening, user_classes
from loadtests.session import add_arguments, begin_direct

events.init_command_line_parser.add_listener(add_arguments)


def begin(environment: Any, **_: Any) -> None:
    """Look at the host, and open the engine."""
    begin_direct(environment)


events.init.add_listener(begin)

Citizen, Refresher, Bot, Broker, Kiosk, Operator = user_classes(DirectLane)
