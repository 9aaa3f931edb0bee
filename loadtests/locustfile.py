"""The opening over HTTP: ``locust -f loadtests/locustfile.py --headless --host http://127.0.0.1:8000``.

Edit this file to add users of your own.
"""

from quota_engine.loadtest.locustfiles.locustfile_http import (
    Bot,
    Broker,
    Citizen,
    Kiosk,
    OpeningShape,
    Operator,
    Refresher,
)

__all__ = ["Bot", "Broker", "Citizen", "Kiosk", "OpeningShape", "Operator", "Refresher"]
