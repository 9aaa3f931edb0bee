"""The opening on the library and its store, without the service in between, for ``locust -f``.

``--backend`` and ``--identity-key`` open the store. ``--host`` still names the staging service, which reports
the days on sale before the opening and the events afterwards.
"""

from __future__ import annotations

__all__ = ["Bot", "Broker", "Citizen", "Kiosk", "OpeningShape", "Operator", "Refresher"]

from typing import Any

from locust import events

from quota_engine.loadtest.locust_session import add_arguments, begin_direct
from quota_engine.loadtest.locust_users import DirectLoadUser, OpeningShape, user_classes


def _begin(environment: Any, **_: Any) -> None:
    begin_direct(environment)


events.init_command_line_parser.add_listener(add_arguments)
events.init.add_listener(_begin)

Citizen, Refresher, Bot, Broker, Kiosk, Operator = user_classes(DirectLoadUser)
