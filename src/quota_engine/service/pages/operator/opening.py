"""The page of an opening: its figures, its plot, and its data as a file."""

from __future__ import annotations

__all__ = ["OpeningPages"]

import datetime
import re
from typing import Final

from starlette.responses import Response

from quota_engine.service.pages.i18n import Translator
from quota_engine.service.pages.opening_report import OpeningReport, plot_window
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.csv_export import csv_response
from quota_engine.service.pages.operator.opening_plot import COLUMNS, format_span, opening_plot, opening_rows
from quota_engine.service.pages.operator.request import OperatorRequest, PageError

_is_time = re.compile(r"[0-9]{1,15}").fullmatch
_PLOT_SIZES: Final = (("wide", (1000, 380)), ("narrow", (360, 320)))
"""Sizes for screens and for phones, because the text of a shrunken plot is too small to read."""


class OpeningPages:
    """Handlers of openings: the last one, or any past one whose days the store still knows."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages

    async def opening(self, request: OperatorRequest) -> Response:
        """Render the figures and the plot of an opening, and the list of openings."""
        pages, office, translator = self._pages, request.office, request.translator
        report = await self._report(request)
        if report is None:
            return pages.render(request, "opening.html", "opening", report=None)
        openings = [
            (at_ms, translator.moment(pages.local_time(at_ms, office))) for at_ms in await pages.cache.openings(office)
        ]
        return pages.render(
            request,
            "opening.html",
            "opening",
            report=report,
            openings=openings,
            when=translator.moment(pages.local_time(report.opens_at_ms, office)),
            days=translator.dates([datetime.date.fromordinal(day) for day in report.days]),
            figures=_figures(translator, report),
            plots=[
                (name, opening_plot(translator, office, report, size, f"opening-{name}")) for name, size in _PLOT_SIZES
            ],
            sold_later=plot_window(report).sold_later if report.sold else 0,
        )

    async def csv(self, request: OperatorRequest) -> Response:
        """Return every step of an opening as a file."""
        report = await self._report(request)
        rows = opening_rows(report, request.office.zone) if report is not None else ()
        return csv_response(f"{request.office.id}-opening.csv", COLUMNS, rows)

    async def _report(self, request: OperatorRequest) -> OpeningReport | None:
        """Return the opening of the request, or the last one; ``None`` if nothing has opened yet."""
        at_ms = request.field("at")
        if at_ms and not _is_time(at_ms):
            raise PageError(404, "unknown_day")
        report = await self._pages.cache.opening(request.office, int(at_ms or 0))
        if report is None and at_ms:
            raise PageError(404, "unknown_day")
        return report


def _figures(translator: Translator, report: OpeningReport) -> list[tuple[str, str, str]]:
    """Return the tiles of an opening: label, value and CSS class."""
    number = translator.number
    figures = [("places_online", number(report.places)), ("plot_taken", number(report.taken))]
    if not report.from_records:
        figures += [
            ("plot_confirmed", number(report.confirmed)),
            ("plot_returned", number(report.returned)),
            ("wait_list_max", number(report.waiting_max)),
            ("form_time_median", format_span(translator, report.form_time_median_ms)),
        ]
    figures += [
        ("half_taken_after", format_span(translator, report.half_ms)),
        ("all_taken_after", format_span(translator, report.full_ms)),
        ("busiest_second", number(report.busiest_second)),
    ]
    return [(translator(label), value, "") for label, value in figures]
