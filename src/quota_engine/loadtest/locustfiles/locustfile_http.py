"""The opening over HTTP, for ``locust -f``."""

from __future__ import annotations

__all__ = ["Bot", "Broker", "Citizen", "Kiosk", "OpeningShape", "Operator", "Refresher"]

from typing import Any

from locust import events

from quota_engine.loadtest.locust_session import add_arguments, begin_http
from quota_engine.loadtest.locust_users import HttpLoadUser, OpeningShape, user_classes


def _begin(environment: Any, **_: Any) -> None:
    begin_http(environment)


events.init_command_line_parser.add_listener(add_arguments)
events.init.add_listener(_begin)

Citizen, Refresher, Bot, Broker, Kiosk, Operator = user_classes(HttpLoadUser)
