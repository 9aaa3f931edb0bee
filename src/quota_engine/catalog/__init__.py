"""The catalog: files that describe offices, their validation, and their conversion to the domain's terms.

Imports the domain only.
"""

from quota_engine.catalog.calendar import WorkingCalendar, is_working_day, opens_at_ms, wall_time_ms, working_days
from quota_engine.catalog.changes import DayCorrection, OfficeChanges, correct_day, diff_catalogs
from quota_engine.catalog.clock_changes import ClockChangeWarning, list_clock_change_warnings
from quota_engine.catalog.loading import builtin_names, catalog_from, load_catalog
from quota_engine.catalog.parsing import read_raw
from quota_engine.catalog.planning import (
    check_year,
    choice_of,
    day_terms,
    extensions_left,
    get_office,
    last_day_to_publish,
    next_release,
    packed_places,
    rules_of,
)
from quota_engine.catalog.resolved import Catalog, ResolvedOffice, departed_office
from quota_engine.catalog.schema import DaysAhead, Monthly, Named, Weekly, name_of
from quota_engine.catalog.schema_conversion import IssueCollector, convert
from quota_engine.catalog.selection import Selection

__all__ = [
    "Catalog",
    "ClockChangeWarning",
    "DayCorrection",
    "DaysAhead",
    "IssueCollector",
    "Monthly",
    "Named",
    "OfficeChanges",
    "ResolvedOffice",
    "Selection",
    "Weekly",
    "WorkingCalendar",
    "builtin_names",
    "catalog_from",
    "check_year",
    "choice_of",
    "convert",
    "correct_day",
    "day_terms",
    "departed_office",
    "diff_catalogs",
    "extensions_left",
    "get_office",
    "is_working_day",
    "last_day_to_publish",
    "list_clock_change_warnings",
    "load_catalog",
    "name_of",
    "next_release",
    "opens_at_ms",
    "packed_places",
    "read_raw",
    "rules_of",
    "wall_time_ms",
    "working_days",
]
