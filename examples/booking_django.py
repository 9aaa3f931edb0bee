"""Book with Django, and copy the events into the ORM, each exactly once, in one transaction with PostgreSQL.

    gunicorn --chdir examples --workers 4 --threads 8 booking_django:application
    python examples/booking_django.py copy-events        # from a timer or a loop

The engine's store and Django's database are the same PostgreSQL: QUOTA_ENGINE_BACKEND=postgresql://….
"""

from __future__ import annotations

import json
import os
import sys
from urllib.parse import urlsplit

import django
from booking_settings import OFFICE, SERVICE, answer, worker_engine
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection, models, transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from quota_engine import BackendUnavailable, OutcomeUnknown, ReservationChanged
from quota_engine.stores.sql.postgresql.transactional_events import take_events

_DATABASE = urlsplit(os.environ["QUOTA_ENGINE_BACKEND"])
settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": _DATABASE.path.removeprefix("/"),
            "USER": _DATABASE.username,
            "PASSWORD": _DATABASE.password or "",
            "HOST": _DATABASE.hostname,
            "PORT": _DATABASE.port or 5432,
        }
    },
)
django.setup()


class Visit(models.Model):
    """A confirmed visit, in a table of the application."""

    reference = models.CharField(max_length=200, primary_key=True)
    day = models.IntegerField()

    class Meta:
        app_label = "booking"
        db_table = "booking_visit"


@csrf_exempt
def book(request: HttpRequest) -> JsonResponse:
    """Take a place and keep it. The same key has one effect, however often the form is sent."""
    form = json.loads(request.body)
    try:
        engine = worker_engine()
        held = engine.reserve(OFFICE, form["day"], form["identity"], service=SERVICE, idempotency_key=form["key"])
        if held.ok:
            held = engine.confirm(held.reference, owner=form["identity"])
    except (BackendUnavailable, OutcomeUnknown) as error:
        return JsonResponse({"status": type(error).__name__}, status=503, headers={"Retry-After": "1"})
    status, body = answer(held)
    return JsonResponse(body, status=status)


def copy_events() -> int:
    """Copy new confirmations into the table. Events and rows are in one transaction: a crash leaves both unchanged."""
    with transaction.atomic():
        connection.ensure_connection()
        events = take_events(connection.connection, OFFICE, "visits", limit=500)
        changes = [one.event for one in events if isinstance(one.event, ReservationChanged)]
        records = [change.reservation for change in changes if change.verb == "confirm"]
        Visit.objects.bulk_create([Visit(reference=record.id, day=record.day) for record in records])
    return len(events)


urlpatterns = [path("book", book)]
application = get_wsgi_application()

if __name__ == "__main__" and sys.argv[1:] == ["copy-events"]:
    if "booking_visit" not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(Visit)
    while copy_events():
        pass
    sys.stdout.write(f"{Visit.objects.count()} visits\n")
