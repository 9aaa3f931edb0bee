"""Validation across the keys of a catalog: references, duplicates, order of times, chains of reallocations.

The validation runs on a converted file that may have placeholders in place of invalid values. A check reports nothing
if a value that it reads has an issue already, so that each error is reported once.
"""

from __future__ import annotations

__all__ = ["validate"]

import itertools
import zoneinfo
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from quota_engine.catalog.resolved import identity_format_of, merge_rules, retention_days
from quota_engine.catalog.schema import (
    Allotment,
    BookUntil,
    CatalogFile,
    Named,
    Office,
    Plan,
    ReReleaseSettings,
    RuleSettings,
    WaitListOrder,
)
from quota_engine.catalog.schema_conversion import IssueCollector, format_value, key_of
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import ReReleaseRule
from quota_engine.domain.validation import QUOTAS_MAX

_LISTED_MAX = 12
_LISTS = ("services", "channels", "groups", "schedules", "plans", "offices")


def validate(file: CatalogFile, collector: IssueCollector) -> None:
    """Report every issue between the parts of ``file`` to ``collector``."""
    checks = _FileValidator(file, collector)
    checks.top()
    for index, plan in enumerate(file.plans):
        _PlanValidator(checks, plan, f"plans[{index}]").all()
    plans = {plan.id: plan for plan in file.plans}
    for index, office in enumerate(file.offices):
        checks.office(office, f"offices[{index}]", plans)


class _FileValidator:
    """Validates the file and its offices. Its other methods are shared with the plans."""

    def __init__(self, file: CatalogFile, collector: IssueCollector) -> None:
        self.file = file
        self.collector = collector
        self.classes = {office.office_class for office in file.offices}
        self.classes_are_known = not collector.has(
            "offices", *(f"offices[{index}].class" for index in range(len(file.offices)))
        )
        self._rules_are_wrong = collector.has_containing("rules")
        self._zones: dict[str, bool] = {}
        self._zone_names: list[str] = []
        self._ids = {name: {entry.id: None for entry in getattr(file, name)} for name in _LISTS}

    def top(self) -> None:
        """Validate the lists at the top of the file."""
        file = self.file
        for name in _LISTS:
            self.unique(name, [entry.id for entry in getattr(file, name)])
        for name in ("services", "channels", "groups"):
            self.named(name, getattr(file, name))
        for index, schedule in enumerate(file.schedules):
            if schedule.zone:
                self.zone(f"schedules[{index}].zone", schedule.zone)
        self.retention("rules", file.rules, file.rules)
        self.identity()

    def identity(self) -> None:
        settings = self.file.identity
        if settings.expected_en and not settings.expected and not self.collector.has("identity.expected"):
            expected = "the words in the offices' own language in addition to expected_en"
            self.collector.add("identity.expected", "missing", expected)
        try:
            identity_format_of(settings)
        except InvalidRequest as error:
            if not self.collector.has(f"identity.{error.where}"):
                self.collector.add(f"identity.{error.where}", error.problem, error.expected)

    def office(self, office: Office, key: str, plans: dict[str, Plan]) -> None:
        self.zone(f"{key}.time_zone", office.time_zone)
        self.refer_or_only(f"{key}.plan", office.plan, "plans")
        if office.schedule:
            self.refer(f"{key}.schedule", office.schedule, "schedules")
        self.unique(f"{key}.service_units", [unit.id for unit in office.service_units])
        self.named(f"{key}.service_units", office.service_units)
        for index, closure in enumerate(office.closures):
            self.ordered(f"{key}.closures[{index}]", "first", closure.first, "last", closure.last)
        self.repeated(f"{key}.working_weekdays", office.working_weekdays or ())
        plan = plans.get(office.plan or (self.file.plans[0].id if self.file.plans else ""))
        if plan is None:
            return
        self.capacity_names(f"{key}.capacities", office.capacities, plan)
        if office.rules != RuleSettings():
            self.retention(f"{key}.rules", office.rules, merge_rules(self.file.rules, plan.rules, office.rules))
        units = {unit.id for unit in office.service_units}
        missing = sorted({quota.service_unit for quota in plan.quotas if quota.service_unit} - units)
        if missing and not self.collector.has(f"{key}.service_units"):
            expected = f"the units that quotas of the plan {format_value(plan.id)} count"
            self.collector.add(f"{key}.service_units", f"no unit {', '.join(missing[:_LISTED_MAX])}", expected)

    def zone(self, key: str, name: str) -> None:
        if name not in self._zones:
            self._zones[name] = _zone_exists(name)
        if self._zones[name] or self.collector.has(key):
            return
        if not self._zone_names:
            self._zone_names = sorted(zoneinfo.available_timezones())
        hint = self.collector.hint(name, self._zone_names)
        self.collector.add(key, format_value(name), f'an IANA time zone such as "Asia/Jakarta"{hint}')

    def retention(self, key: str, own: RuleSettings, merged: RuleSettings) -> None:
        """Require a retention as long as the longest identity limit, or forgotten days would not count for it."""
        spans = [limit.span_days for limit in merged.identity_limits or ()]
        at_fault = own.retention_days is not None or own.identity_limits is not None
        if at_fault and max(spans, default=0) > retention_days(merged) and not self._rules_are_wrong:
            days = f"{retention_days(merged)} days"
            self.collector.add(f"{key}.retention_days", days, f"at least the span_days of all limits, {max(spans)}")

    def capacity_names(self, key: str, capacities: Iterable[str], plan: Plan) -> None:
        known = [*(quota.id for quota in plan.quotas), *(allotment.id for allotment in plan.allotments)]
        for name in capacities:
            self.refer_to(key_of(key, name), name, known, f"a quota or allotment of the plan {format_value(plan.id)}")

    def unique(self, key: str, ids: Sequence[str]) -> None:
        first_at: dict[str, int] = {}
        for index, name in enumerate(ids):
            place = f"{key}[{index}].id"
            if name in first_at and not self.collector.has(place):
                self.collector.add(place, format_value(name), f"a unique id; {key}[{first_at[name]}] has the same")
            first_at.setdefault(name, index)

    def named(self, key: str, entries: Sequence[Named]) -> None:
        """Require ``name`` beside ``name_en``, because pages in other languages show ``name``."""
        for index, entry in enumerate(entries):
            place = f"{key}[{index}].name"
            if entry.name_en and not entry.name and not self.collector.has(place):
                self.collector.add(place, "missing", "a name in the office's own language in addition to name_en")

    def repeated(self, key: str, names: Sequence[str]) -> None:
        for index, name in enumerate(names):
            if name in names[:index] and not self.collector.has(f"{key}[{index}]", f"{key}[{names.index(name)}]"):
                self.collector.add(f"{key}[{index}]", format_value(name), "each entry once")

    def ordered(self, key: str, first: str, earlier: Any, last: str, later: Any, *, strict: bool = False) -> None:
        if self.collector.has(f"{key}.{first}", f"{key}.{last}"):
            return
        if later < earlier or (strict and later == earlier):
            relation = "later than" if strict else "not before"
            self.collector.add(f"{key}.{last}", format_value(later), f"{relation} {first}, {format_value(earlier)}")

    def refer(self, key: str, name: str, where: str) -> None:
        """Require ``name`` to be an id of the top-level list ``where``, unless that list has issues."""
        if not self.collector.has(where):
            self.refer_to(key, name, self._ids[where], f"one of the {where}")

    def refer_or_only(self, key: str, name: str, where: str) -> None:
        """Like :meth:`refer`, and ``""`` is valid if the list has one entry."""
        if name or len(getattr(self.file, where)) > 1:
            self.refer(key, name, where)

    def refer_to(self, key: str, name: str, known: Collection[str], noun: str) -> None:
        if name in known or self.collector.has(key):
            return
        listed = ", ".join(itertools.islice(known, _LISTED_MAX)) or "none exist"
        more = f" and {len(known) - _LISTED_MAX} more" if len(known) > _LISTED_MAX else ""
        hint = self.collector.hint(name, known)
        self.collector.add(key, format_value(name) if name else "missing", f"{noun}: {listed}{more}{hint}")


class _PlanValidator:
    """Validates one plan."""

    def __init__(self, checks: _FileValidator, plan: Plan, key: str) -> None:
        self.checks, self.collector, self.plan, self.key = checks, checks.collector, plan, key
        file = checks.file
        self.services = list(plan.services) or [service.id for service in file.services]
        self.sessions = [session.id for session in plan.sessions]
        self.allotments = [allotment.id for allotment in plan.allotments]

    def all(self) -> None:
        checks, plan, key = self.checks, self.plan, self.key
        self.references(f"{key}.services", plan.services, "services")
        checks.refer_or_only(f"{key}.schedule", plan.schedule, "schedules")
        checks.repeated(f"{key}.working_weekdays", plan.working_weekdays)
        checks.ordered(f"{key}.hours", "start", plan.hours.start, "end", plan.hours.end, strict=True)
        self.re_release(f"{key}.re_release", plan.re_release)
        self.check_sessions()
        self.check_quotas()
        for index, allotment in enumerate(plan.allotments):
            self.check_allotment(allotment, f"{key}.allotments[{index}]")
        self.check_chains()
        for office_class, capacities in plan.capacities_by_class.items():
            class_key = key_of(f"{key}.capacities_by_class", office_class)
            if checks.classes_are_known:
                checks.refer_to(class_key, office_class, sorted(checks.classes - {""}), "a class of an office")
            checks.capacity_names(class_key, capacities, plan)
        if plan.rules != RuleSettings():
            checks.retention(f"{key}.rules", plan.rules, merge_rules(checks.file.rules, plan.rules))

    def references(self, key: str, names: Sequence[str], where: str) -> None:
        self.checks.repeated(key, names)
        for index, name in enumerate(names):
            self.checks.refer(f"{key}[{index}]", name, where)

    def re_release(self, key: str, settings: ReReleaseSettings | None) -> None:
        if settings is None or self.collector.has(
            f"{key}.rule", f"{key}.cooling_s", f"{key}.jitter_s", f"{key}.order", f"{key}.blocks_s"
        ):
            return
        time_s = settings.cooling_s + settings.jitter_s
        if settings.rule is ReReleaseRule.COOLING and time_s == 0:
            self.collector.add(f"{key}.cooling_s", "missing", "a cooling time of 1 second or more")
        elif settings.rule is not ReReleaseRule.COOLING and time_s > 0:
            self.collector.add(
                f"{key}.rule", format_value(str(settings.rule)), "cooling, because a cooling time is set"
            )
        self.wait_list_order(key, settings)

    def wait_list_order(self, key: str, settings: ReReleaseSettings) -> None:
        rule, order = format_value(str(settings.rule)), format_value(str(settings.order))
        is_strict = settings.order is WaitListOrder.STRICT
        if is_strict and settings.rule is not ReReleaseRule.WAIT_LIST:
            self.collector.add(f"{key}.rule", rule, "wait_list, because the order is strict")
        elif is_strict and not settings.blocks_s:
            self.collector.add(f"{key}.blocks_s", "missing", "1 second or more, because the order is strict")
        elif settings.blocks_s and not is_strict:
            self.collector.add(f"{key}.order", order, "strict, because blocks_s is set")

    def check_sessions(self) -> None:
        key, hours = f"{self.key}.sessions", self.plan.hours
        self.checks.unique(key, self.sessions)
        self.checks.named(key, self.plan.sessions)
        hours_are_known = not self.collector.has(f"{self.key}.hours.start", f"{self.key}.hours.end")
        for index, session in enumerate(self.plan.sessions):
            place = f"{key}[{index}]"
            self.checks.ordered(place, "start", session.start, "end", session.end, strict=True)
            until = session.book_until
            is_ambiguous = until is not None and (until.before_start_min is None) == (until.before_end_min is None)
            if is_ambiguous and not self.collector.has_containing(f"{place}.book_until"):
                value = "neither key" if until == BookUntil() else "both keys"
                self.collector.add(f"{place}.book_until", value, "either before_start_min or before_end_min")
            within = hours.start <= session.start and session.end <= hours.end
            if not within and hours_are_known and not self.collector.has(f"{place}.start", f"{place}.end"):
                window = f"{format_value(session.start)} to {format_value(session.end)}"
                expected = f"a time within the hours, {format_value(hours.start)} to {format_value(hours.end)}"
                self.collector.add(place, window, expected)

    def check_quotas(self) -> None:
        key, plan, checks = self.key, self.plan, self.checks
        if not plan.quotas and not plan.allotments and not self.collector.has(f"{key}.quotas", f"{key}.allotments"):
            self.collector.add(key, "neither quotas nor allotments", "at least one quota or allotment")
        if len(plan.quotas) + len(plan.allotments) > QUOTAS_MAX:
            self.collector.add(
                f"{key}.allotments",
                f"{len(plan.allotments)} entries",
                f"at most {QUOTAS_MAX} quotas and allotments together",
            )
        checks.unique(f"{key}.quotas", [quota.id for quota in plan.quotas])
        checks.unique(f"{key}.allotments", self.allotments)
        checks.named(f"{key}.quotas", plan.quotas)
        checks.named(f"{key}.allotments", plan.allotments)
        quota_at = {quota.id: index for index, quota in enumerate(plan.quotas)}
        for index, name in enumerate(self.allotments):
            place = f"{key}.allotments[{index}].id"
            if name in quota_at and not self.collector.has(place):
                self.collector.add(
                    place, format_value(name), f"a unique id; {key}.quotas[{quota_at[name]}] has the same"
                )
        self.check_former_ids()
        for index, quota in enumerate(plan.quotas):
            place = f"{key}.quotas[{index}]"
            if quota.session:
                self.one_of(f"{place}.session", quota.session, self.sessions, "sessions")
            if quota.service:
                self.one_of(f"{place}.service", quota.service, self.services, "services")
            self.re_release(f"{place}.re_release", quota.re_release)

    def check_former_ids(self) -> None:
        """Require that each ``renamed_from`` is no present id and is used once."""
        present = {quota.id for quota in self.plan.quotas} | set(self.allotments)
        seen: set[str] = set()
        for noun in ("quotas", "allotments"):
            for index, quota in enumerate(getattr(self.plan, noun)):
                name, place = quota.renamed_from, f"{self.key}.{noun}[{index}].renamed_from"
                if name and (name in present or name in seen) and not self.collector.has(place):
                    expected = "an id that the plan no longer has, and that no other quota was renamed from"
                    self.collector.add(place, format_value(name), expected)
                seen.add(name)

    def one_of(self, key: str, name: str, known: Sequence[str], noun: str) -> None:
        """Require ``name`` to be one of the plan's, unless the list of them has issues."""
        if not self.collector.has(f"{self.key}.{noun}", noun):
            self.checks.refer_to(key, name, known, f"one of the {noun} of the plan {format_value(self.plan.id)}")

    def check_allotment(self, allotment: Allotment, key: str) -> None:
        self.references(f"{key}.channels", allotment.channels, "channels")
        self.references(f"{key}.groups", allotment.groups, "groups")
        for noun, known in (("services", self.services), ("sessions", self.sessions)):
            names = getattr(allotment, noun)
            self.checks.repeated(f"{key}.{noun}", names)
            for index, name in enumerate(names):
                self.one_of(f"{key}.{noun}[{index}]", name, known, noun)
        self.checks.repeated(f"{key}.fallback", allotment.fallback)
        for index, name in enumerate(allotment.fallback):
            self.check_fallback(allotment, name, f"{key}.fallback[{index}]")
        self.re_release(f"{key}.re_release", allotment.re_release)
        if allotment.reallocation is not None:
            self.check_reallocation(allotment, f"{key}.reallocation")
        elif not allotment.bookable and not self.collector.has(f"{key}.reallocation", f"{key}.bookable"):
            self.collector.add(
                f"{key}.reallocation", "missing", "a reallocation, because the allotment is not bookable"
            )

    def check_fallback(self, allotment: Allotment, name: str, key: str) -> None:
        self.one_of(key, name, self.allotments, "allotments")
        if name not in self.allotments or self.collector.has(key):
            return
        other = self.plan.allotments[self.allotments.index(name)]
        if name == allotment.id:
            self.collector.add(key, format_value(name), "another allotment, not itself")
        elif not other.bookable:
            self.collector.add(key, format_value(name), "an allotment that is bookable")
        elif any(
            _disjoint(getattr(allotment, noun), getattr(other, noun))
            for noun in ("channels", "groups", "services", "sessions")
        ):
            self.collector.add(key, format_value(name), "an allotment that admits some of the same bookings")

    def check_reallocation(self, allotment: Allotment, key: str) -> None:
        settings, hours = allotment.reallocation, self.plan.hours
        assert settings is not None  # checked by the caller
        if self.collector.has(key):
            return
        if settings.to == allotment.id and settings.to:
            self.collector.add(f"{key}.to", format_value(settings.to), "another allotment, not itself")
        else:
            self.one_of(f"{key}.to", settings.to, self.allotments, "allotments")
        if self.collector.has(f"{key}.at", f"{key}.schedule", f"{key}.days_before"):
            return
        if (settings.at is None) == (not settings.schedule):
            value = "missing" if settings.at is None else "given with a schedule"
            self.collector.add(f"{key}.at", value, "either a time of the day or a schedule")
        elif settings.schedule:
            self.checks.refer(f"{key}.schedule", settings.schedule, "schedules")
            if settings.days_before:
                self.collector.add(
                    f"{key}.days_before", format_value(settings.days_before), "a time (at) instead of a schedule"
                )
        elif (
            settings.at is not None
            and settings.days_before == 0
            and settings.at >= hours.end
            and not self.collector.has(f"{self.key}.hours.end")
        ):
            self.collector.add(
                f"{key}.at", format_value(settings.at), f"a time before the day is over, {format_value(hours.end)}"
            )

    def check_chains(self) -> None:
        """Require that the target of a reallocation reallocates nothing itself, so that there are no cycles."""
        reallocating = {allotment.id for allotment in self.plan.allotments if allotment.reallocation is not None}
        for index, allotment in enumerate(self.plan.allotments):
            settings = allotment.reallocation
            if settings is not None and settings.to in reallocating and settings.to != allotment.id:
                key = f"{self.key}.allotments[{index}].reallocation.to"
                self.collector.add(key, format_value(settings.to), "an allotment without a reallocation")


def _disjoint(some: Sequence[str], others: Sequence[str]) -> bool:
    """Return True if no booking is admitted by both lists. An empty list admits all."""
    return bool(some) and bool(others) and set(some).isdisjoint(others)


def _zone_exists(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; a path, not a name; a directory of the zone database
        return False
    return True
