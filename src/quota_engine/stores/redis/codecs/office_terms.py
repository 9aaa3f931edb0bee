"""The codec of an office's rules, and of the terms of its days: sessions, quotas and guards."""

from __future__ import annotations

__all__ = [
    "rules_of_text",
    "scope_of_text",
    "sessions_of_text",
    "text_of_guards_of_day",
    "text_of_new_day",
    "text_of_renames",
    "text_of_rules",
    "text_of_scope",
    "text_of_sessions",
]

from collections.abc import Mapping

from quota_engine.domain.model import DayTerms, GuardScope, IdentityLimit, Rules, SessionTerms


def text_of_rules(rules: Rules) -> str:
    """Return rules as text, in the order of ``RULES`` in ``lua/office/codec.lua``."""
    limits = ",".join(f"{limit.places_max}:{limit.span_days}" for limit in rules.identity_limits)
    numbers = (
        rules.hold_ttl_ms,
        rules.offer_ttl_ms,
        rules.extensions_max,
        rules.extension_ms,
        rules.party_max,
        rules.no_show_block_ms,
        rules.cancellations_max,
        rules.cancellations_window_ms,
        rules.cancellations_block_ms,
        rules.abandoned_holds_max,
        rules.abandoned_holds_window_ms,
        rules.abandoned_holds_block_ms,
        rules.reschedules_max,
        rules.reschedule_before_ms,
        rules.wait_list_max,
        rules.declines_max,
        rules.decline_pause_ms,
        rules.undo_window_ms,
    )
    return "\t".join((*map(str, numbers), limits, rules.jitter_seed))


def rules_of_text(text: str) -> Rules:
    """Return rules from their text."""
    *numbers, limits, seed = text.split("\t")
    (
        hold,
        offer,
        extensions,
        extension,
        party,
        no_show,
        cancellations,
        window,
        block,
        *abandoned,
        moves,
        before,
        waiting,
        declines,
        pause,
        undo,
    ) = map(int, numbers)
    pairs = (limit.split(":") for limit in limits.split(",") if limit)
    return Rules(
        hold_ttl_ms=hold,
        offer_ttl_ms=offer,
        extensions_max=extensions,
        extension_ms=extension,
        party_max=party,
        identity_limits=tuple(IdentityLimit(int(places), int(span)) for places, span in pairs),
        no_show_block_ms=no_show,
        cancellations_max=cancellations,
        cancellations_window_ms=window,
        cancellations_block_ms=block,
        abandoned_holds_max=abandoned[0],
        abandoned_holds_window_ms=abandoned[1],
        abandoned_holds_block_ms=abandoned[2],
        reschedules_max=moves,
        reschedule_before_ms=before,
        wait_list_max=waiting,
        declines_max=declines,
        decline_pause_ms=pause,
        undo_window_ms=undo,
        jitter_seed=seed,
    )


def text_of_sessions(sessions: tuple[SessionTerms, ...]) -> str:
    """Return sessions as text: ``name:ends_at_ms:book_until_ms`` each, separated by commas."""
    return ",".join(f"{one.name}:{one.ends_at_ms}:{one.book_until_ms}" for one in sessions)


def sessions_of_text(text: str) -> tuple[SessionTerms, ...]:
    """Return sessions from their text."""
    fields = (one.split(":") for one in text.split(",") if one)
    return tuple(SessionTerms(name, int(ends), int(until)) for name, ends, until in fields)


def text_of_scope(scope: GuardScope | None) -> str:
    """Return the scope of a guard as text; ``""`` for other quotas."""
    return "" if scope is None else f"{scope.service}/{scope.service_unit}/{scope.session}"


def scope_of_text(text: str) -> GuardScope | None:
    """Return the scope of a guard from its text, or ``None``."""
    return GuardScope(*text.split("/")) if text else None


def text_of_guards_of_day(scopes: Mapping[str, GuardScope | None]) -> str:
    """Return the guards among some quotas as text: ``name/scope`` each, separated by commas."""
    return ",".join(f"{name}/{text_of_scope(scope)}" for name, scope in scopes.items() if scope is not None)


def text_of_renames(terms: DayTerms) -> str:
    """Return the renamed quotas of a day as text: ``old:new`` each, separated by commas."""
    return ",".join(f"{quota.renamed_from}:{quota.name}" for quota in terms.quotas if quota.renamed_from)


def text_of_new_day(terms: DayTerms) -> str:
    """Return a new day as text, with its tabs and newlines replaced so that it is one field of a line."""
    rows = [
        f"0\t0\t0\t0\t0\t1\t0\t{terms.opens_at_ms}\t{terms.starts_at_ms}\t{terms.ends_at_ms}\t{terms.forget_at_ms}"
        f"\t{text_of_sessions(terms.sessions)}\t{text_of_guards_of_day({one.name: one.guard for one in terms.quotas})}",
        "",
    ]
    for quota in terms.quotas:
        rule = quota.re_release
        reallocate_to, reallocate_at_ms = (
            ("", 0) if quota.reallocation is None else (quota.reallocation.to, quota.reallocation.at_ms)
        )
        rows.append(
            f"{quota.name}\t{quota.capacity}\t{quota.capacity}\t0\t0\t0\t0\t0"
            f"\t{rule.rule}\t{rule.cooling_ms}\t{rule.jitter_ms}\t{reallocate_to}\t{reallocate_at_ms}\t{rule.blocks_ms}"
            f"\t{text_of_scope(quota.guard)}"
        )
    return "\n".join(rows).replace("\t", "\x01").replace("\n", "\x02")
