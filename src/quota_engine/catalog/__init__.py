"""The catalog: what offices offer, in a file that people can read, and its translation to the domain's terms."""

from quota_engine.catalog.calendar import WorkingCalendar, is_working_day, opens_at_ms, wall_time_ms, working_days
from quota_engine.catalog.loading import builtin_names, catalog_from, load_catalog
from quota_engine.catalog.parsing import read_raw
from quota_engine.catalog.planning import choice_of, day_terms, next_release, office_of, packed_places, rules_of
from quota_engine.catalog.resolved import Catalog, OfficeView
from quota_engine.catalog.schema import DaysAhead, Monthly, Named, Weekly
from quota_engine.catalog.schema_conversion import Collector, convert

__all__ = [
    "Catalog",
    "Collector",
    "DaysAhead",
    "Monthly",
    "Named",
    "OfficeView",
    "Weekly",
    "WorkingCalendar",
    "builtin_names",
    "catalog_from",
    "choice_of",
    "convert",
    "day_terms",
    "is_working_day",
    "load_catalog",
    "next_release",
    "office_of",
    "opens_at_ms",
    "packed_places",
    "read_raw",
    "rules_of",
    "wall_time_ms",
    "working_days",
]
