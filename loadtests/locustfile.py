"""The opening over HTTP: ``locust -f loadtests/locustfile.py --headless --host http://127.0.0.1:8000``."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from locust import events

from loadtests.lanes import HttpLane, Opening
from loadtests.people import Role
from loadtests.session import add_arguments, begin_http

events.init_command_line_parser.add_listener(add_arguments)


def begin(environment: Any, **_: Any) -> None:
    """Look at the host before anything is sent to it."""
    begin_http(environment)


events.init.add_listener(begin)


class Citizen(HttpLane):
    """Waits for the opening, presses, fills in the form; some crash and come back, some walk away."""

    role = Role.CITIZEN


class Refresher(HttpLane):
    """Presses every few seconds, from before the opening until there is an answer to be content with."""

    role = Role.REFRESHER


class Bot(HttpLane):
    """A program: presses four times a second until it is open, and watches for places that come back."""

    role = Role.BOT


class Broker(HttpLane):
    """Presses to the millisecond with many identities, and hands some places over by cancelling and booking again."""

    role = Role.BROKER


class Kiosk(HttpLane):
    """A computer in the office, used by one person after the other, with places of its own."""

    role = Role.KIOSK


class Operator(HttpLane):
    """Changes capacities while people press."""

    role = Role.OPERATOR


class Surge(Opening):
    """Early arrivals, the burst of the opening second, and the tail."""
