"""The opening on the library and its store, without a service between.

``locust -f loadtests/locustfile_direct.py`` with
"""

from __future__ import annotations

__all__ = ["Bot", "Broker", "Citizen", "Kiosk", "OpeningShape", "Operator", "Refresher"]

import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from locust import events

from quota_engine.loadtest.locust_session import add_arguments, begin_direct
from quota_engine.loadtest.locust_users import DirectLoadUser, OpeningShape, user_classes

events.init_command_line_parser.add_listener(add_arguments)


def begin(environment: Any, **_: Any) -> None:
    """Look at the host, and open the engine."""
    begin_direct(environment)


events.init.add_listener(begin)

Citizen, Refresher, Bot, Broker, Kiosk, Operator = user_classes(DirectLoadUser)
