"""The opening on the library and its store: ``locust -f loadtests/locustfile_direct.py --headless``.

Edit this file to add users of your own.
"""

from quota_engine.loadtest.locustfiles.locustfile_direct import (
    Bot,
    Broker,
    Citizen,
    Kiosk,
    OpeningShape,
    Operator,
    Refresher,
)

__all__ = ["Bot", "Broker", "Citizen", "Kiosk", "OpeningShape", "Operator", "Refresher"]
