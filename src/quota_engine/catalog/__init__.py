"""The catalog: files that describe offices, their validation, and their conversion to the domain's terms.

Imports the domain only.
"""

from quota_engine.catalog.calendar import WorkingCalendar, is_working_day, opens_at_ms, wall_time_ms, working_days
from quota_engine.catalog.loading import builtin_names, catalog_from, load_catalog
from quota_engine.catalog.parsing import read_raw
from quota_engine.catalog.planning import choice_of, day_terms, get_office, next_release, packed_places, rules_of
from quota_engine.catalog.resolved import Catalog, ResolvedOffice
from quota_engine.catalog.schema import DaysAhead, Monthly, Named, Weekly
from quota_engine.catalog.schema_conversion import IssueCollector, convert
from quota_engine.catalog.selection import Selection

__all__ = [
    "Catalog",
    "DaysAhead",
    "IssueCollector",
    "Monthly",
    "Named",
    "ResolvedOffice",
    "Selection",
    "Weekly",
    "WorkingCalendar",
    "builtin_names",
    "catalog_from",
    "choice_of",
    "convert",
    "day_terms",
    "get_office",
    "is_working_day",
    "load_catalog",
    "next_release",
    "opens_at_ms",
    "packed_places",
    "read_raw",
    "rules_of",
    "wall_time_ms",
    "working_days",
]
