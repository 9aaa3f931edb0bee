"""Routes of the operators' pages, with the roles that may use them."""

from __future__ import annotations

__all__ = ["operator_routes"]

from starlette.routing import Route

from quota_engine.service.http.auth import Role
from quota_engine.service.pages.operator.audit import AuditPages
from quota_engine.service.pages.operator.base import Handler, OperatorPages
from quota_engine.service.pages.operator.calling import CallingPages
from quota_engine.service.pages.operator.catalog_changes import CatalogPages
from quota_engine.service.pages.operator.commands import CommandPages
from quota_engine.service.pages.operator.dashboard import DashboardPages
from quota_engine.service.pages.operator.day import DayPages
from quota_engine.service.pages.operator.opening import OpeningPages
from quota_engine.service.pages.operator.queue_list import QueueListPages
from quota_engine.service.pages.operator.relocation import RelocationPages
from quota_engine.service.pages.operator.reports import ReportPages
from quota_engine.service.pages.operator.request import CHANGE_ROLES, READ_ROLES, STAFF_ROLES
from quota_engine.service.pages.operator.reservation import RegistrationPages
from quota_engine.service.pages.operator.waiting_room import RoomPages
from quota_engine.service.pages.operator.walk_in import WalkInPages


def operator_routes(pages: OperatorPages) -> list[Route]:
    """Return the routes of all operators' pages."""
    dashboard, day, room = DashboardPages(pages), DayPages(pages), RoomPages(pages)
    relocation, catalog = RelocationPages(pages), CatalogPages(pages)
    report, calling, commands = ReportPages(pages), CallingPages(pages), CommandPages(pages)
    reservation, walk_in = RegistrationPages(pages), WalkInPages(pages)
    queue, opening, audit = QueueListPages(pages), OpeningPages(pages), AuditPages(pages)
    reads: list[tuple[str, Handler]] = [
        ("/dashboard", dashboard.days),
        ("/dashboard.csv", dashboard.csv),
        ("/offices", dashboard.offices),
        ("/offices/rows", dashboard.office_rows),
        ("/live", dashboard.stream),
        ("/day", day.day),
        ("/day/figures", day.figures),
        ("/room", room.room),
        ("/room/figures", room.figures),
        ("/opening", opening.opening),
        ("/opening.csv", opening.csv),
        ("/report", report.report),
        ("/report.csv", report.csv),
        ("/catalog", catalog.show),
        ("/audit", audit.audit),
        ("/commands", commands.show),
        ("/commands.csv", commands.csv),
    ]
    changes: list[tuple[str, Handler]] = [
        ("/day/capacity", day.set_capacities),
        ("/day/close", day.close),
        ("/catalog", catalog.change),
        ("/catalog/remove", catalog.remove),
        ("/day/open", day.open),
        ("/room/pace", room.set_pace),
        ("/room/open", room.open),
        ("/room/close", room.close),
    ]
    staff_reads: list[tuple[str, Handler]] = [
        ("/queue", queue.list),
        ("/queue/rows", queue.rows),
        ("/queue.csv", queue.csv),
        ("/queue/no-show", queue.ask_no_show),
        ("/reservation", reservation.show),
        ("/reservation/ticket", reservation.ticket),
        ("/walk-in", walk_in.form),
        ("/call", calling.show),
        ("/call/rows", calling.parts),
        ("/screen", calling.screen),
        ("/screen/rows", calling.screen_parts),
        ("/queue/print", queue.print_list),
    ]
    asked_changes: list[tuple[list[tuple[str, Handler]], str]] = [
        (
            [
                ("/queue/replace", queue.ask_replace),
                ("/queue/cancel", queue.ask_cancel),
                ("/day/relocate", relocation.plan),
                ("/reservation/move", reservation.choose_move),
            ],
            "GET",
        ),
        (
            [
                ("/queue/replace", queue.replace),
                ("/queue/cancel", queue.cancel),
                ("/day/relocate", relocation.run),
                ("/reservation/move", reservation.move),
                ("/reservation/extend", reservation.extend),
                ("/reservation/remove", reservation.remove),
            ],
            "POST",
        ),
    ]
    staff_changes: list[tuple[str, Handler]] = [
        ("/queue/check-in", queue.check_in),
        ("/queue/find", queue.find_person),
        ("/queue/no-show", queue.no_show),
        ("/queue/undo", queue.undo),
        ("/walk-in", walk_in.book),
        ("/call", calling.call),
    ]
    groups: list[tuple[list[tuple[str, Handler]], frozenset[Role], str]] = [
        ([("", dashboard.dashboard)], READ_ROLES | STAFF_ROLES, "GET"),
        (reads, READ_ROLES, "GET"),
        (changes, CHANGE_ROLES, "POST"),
        (staff_reads, STAFF_ROLES, "GET"),
        (staff_changes, STAFF_ROLES, "POST"),
        ([("/audit", audit.audit_again)], READ_ROLES, "POST"),
        *((handlers, CHANGE_ROLES, method) for handlers, method in asked_changes),
    ]
    return [
        *(
            Route(f"/operator{path}", pages.guarded(handler, roles), methods=[method])
            for handlers, roles, method in groups
            for path, handler in handlers
        ),
        *pages.login.routes(),
    ]
