"""The codec of draws; ``lua/draw/ledger.lua`` has the same layouts.

Tabs separate fields, newlines separate rows, semicolons separate preferences. A preference is
``office/day/service/service_unit/session/channel/group/options``. None of these characters can occur in a name.
"""

from __future__ import annotations

__all__ = ["DrawDecoder", "draw_of_state", "encode", "preference_of_text", "text_of_preference"]

from collections.abc import Callable
from typing import Any, Final

from quota_engine.domain.epochs import EPOCH_FIRST, AdvanceEpoch
from quota_engine.draws.commands import (
    CloseDraw,
    CreateDraw,
    DrawConfig,
    FreezeDraw,
    OfferDay,
    RevealSeed,
    Row,
    SubmitApplication,
    WithdrawApplication,
)
from quota_engine.draws.ledger import DrawLedger, phase_of
from quota_engine.draws.lottery import Preference
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.draws.queries import (
    DrawQuery,
    DrawView,
    FindApplication,
    FoundApplication,
    FrozenInputs,
    ReadApplications,
    ReadDraw,
    ReadOfferedDays,
    ReadPreferences,
    StoredApplication,
)
from quota_engine.stores.redis.codecs.office import applicant_of_text, choice_of_text, text_of_applicant, text_of_choice

_STATUS: Final = {str(status): status for status in DrawStatus}


def text_of_preference(preference: Preference) -> str:
    """Return a preference as text."""
    return f"{preference.office}/{preference.day}/{text_of_choice(preference.choice)}".replace("\t", "/")


def preference_of_text(text: str) -> Preference:
    """Return a preference from its text."""
    office, day, choice = text.split("/", 2)
    return Preference(office, int(day), choice_of_text(choice.replace("/", "\t")))


def _text_of_config(config: DrawConfig) -> str:
    numbers = (
        config.opens_at_ms,
        config.closes_at_ms,
        config.forget_at_ms,
        config.first_day,
        config.last_day,
        config.party_max,
        config.choices_max,
        config.applications_max,
    )
    return "\t".join((*map(str, numbers), config.commitment, config.entropy_source))


def _config_of_fields(fields: list[str]) -> DrawConfig:
    opens, closes, forget, first, last, party, choices, applications = map(int, fields[:8])
    return DrawConfig(opens, closes, forget, first, last, fields[8], fields[9], party, choices, applications)


def _text_of_row(quotas: Row) -> str:
    return ",".join(f"{quota}:{units}" for quota, units in quotas)


def _row_of_text(text: str) -> Row:
    pairs = (part.split(":") for part in text.split(",") if part)
    return tuple((quota, int(units)) for quota, units in pairs)


def _offered_of_text(text: str) -> OfferDay:
    place, quotas = text.split("\t")
    office, day = place.split("/")
    return OfferDay(office, int(day), _row_of_text(quotas))


def _application_of_fields(fields: list[str]) -> StoredApplication:
    number, version_and_epoch, applicants, preferences = fields
    version, _, epoch = version_and_epoch.partition(":")
    return StoredApplication(
        int(number),
        int(version),
        tuple(map(applicant_of_text, applicants.split(","))) if applicants else (),
        tuple(map(int, preferences.split(","))) if preferences else (),
        int(epoch or EPOCH_FIRST),
    )


def _frozen_of_text(text: str) -> FrozenInputs | None:
    if not text:
        return None
    applications, applications_digest, capacities_digest = text.split(",")
    return FrozenInputs(int(applications), applications_digest, capacities_digest)


_ENCODE: Final[dict[type, Callable[[Any], str]]] = {
    CreateDraw: lambda one: f"create\t{_text_of_config(one.config)}",
    SubmitApplication: lambda one: (
        f"apply\t{','.join(map(text_of_applicant, one.applicants))}\t{one.expected_version}\t{one.expected_epoch}"
        f"\t{';'.join(map(text_of_preference, one.preferences))}"
    ),
    WithdrawApplication: lambda one: (
        f"withdraw\t{text_of_applicant(one.applicant)}\t{one.expected_version}\t{one.expected_epoch}"
    ),
    CloseDraw: lambda one: "close",
    OfferDay: lambda one: f"offer_day\t{one.office}\t{one.day}\t{_text_of_row(one.quotas)}",
    FreezeDraw: lambda one: (
        f"freeze\t{one.epoch}\t{one.applications}\t{one.applications_digest}\t{one.capacities_digest}"
    ),
    RevealSeed: lambda one: f"reveal\t{one.seed}\t{one.commitment}\t{one.epoch}\t{one.entropy}",
    AdvanceEpoch: lambda one: f"advance_epoch\t{one.epoch_min}",
    ReadDraw: lambda one: "draw",
    FindApplication: lambda one: f"find\t{text_of_applicant(one.applicant)}",
    ReadApplications: lambda one: f"applications\t{one.after}\t{one.limit}",
    ReadPreferences: lambda one: f"preferences\t{one.after}\t{one.limit}",
    ReadOfferedDays: lambda one: f"offered\t{one.after}\t{one.limit}",
}


def encode(command: Any) -> str:
    """Return a command or question as a line for the scripts."""
    return _ENCODE[type(command)](command)


class DrawDecoder:
    """Decodes the replies of one draw."""

    def __init__(self, address: str) -> None:
        self._draw = address.partition(".")[2]

    def outcome(self, command: Any, line: str) -> DrawOutcome:
        """Return the outcome of a command from its reply line."""
        status, number, version, flags, retry_at_ms, quotas, epoch = line.split("\t")
        return DrawOutcome(
            _STATUS[status],
            int(number),
            int(version),
            flags == "p",
            int(retry_at_ms),
            _row_of_text(quotas),
            epoch=int(epoch),
        )

    def answer(self, question: DrawQuery, line: str) -> Any:
        """Return the answer to a question from its reply line."""
        rows = line.split("\n") if line else []
        match question:
            case ReadDraw():
                return self._view(line.split("\t")) if line else None
            case FindApplication():
                if not line:
                    return None
                return FoundApplication(
                    _application_of_fields(rows[0].split("\t")), tuple(map(preference_of_text, rows[1:]))
                )
            case ReadApplications():
                return [_application_of_fields(row.split("\t")) for row in rows]
            case ReadPreferences():
                return [preference_of_text(row) for row in rows]
            case ReadOfferedDays():
                return [_offered_of_text(row) for row in rows]

    def _view(self, fields: list[str]) -> DrawView:
        now, _, frozen, seed, entropy, last_number, active, applicants, preferences, offered, *epochs = fields[:13]
        epoch, frozen_epoch, revealed_epoch = map(int, epochs)
        config = _config_of_fields(fields[13:])
        return DrawView(
            self._draw,
            phase_of(config, bool(frozen), bool(seed), int(now)),
            config,
            int(active),
            int(applicants),
            int(last_number),
            int(preferences),
            int(offered),
            _frozen_of_text(frozen),
            seed,
            entropy,
            epoch,
            frozen_epoch,
            revealed_epoch,
        )


def draw_of_state(address: str, state: list[Any]) -> DrawLedger:
    """Return a draw from the replies of the state script, each hash as a dictionary."""
    head, applications, applicants, preferences, offered = state
    ledger = DrawLedger(address)
    if "config" not in head:
        return ledger
    ledger.now_ms = int(head["now_ms"])
    ledger.config = _config_of_fields(head["config"].split("\t"))
    ledger.closed = head["closed"] == "1"
    ledger.frozen = _frozen_of_text(head["frozen"])
    ledger.seed, ledger.entropy = head["seed"], head["entropy"]
    ledger.epoch = int(head["epoch"])
    ledger.frozen_epoch, ledger.revealed_epoch = int(head["frozen_epoch"]), int(head["revealed_epoch"])
    ledger.last_number = int(head["last_number"])
    ledger.active_applications, ledger.active_applicants = int(head["active"]), int(head["applicants"])
    for number, text in applications.items():
        if number != "~":
            ledger.applications[int(number)] = _application_of_fields([number, *text.split("\t")])
    for text, membership in applicants.items():
        if text != "~":
            assigned_number, _, active = membership.partition(",")
            if assigned_number != "0":
                ledger.assigned_numbers[applicant_of_text(text)] = int(assigned_number)
            if (active or assigned_number) != "0":
                ledger.application_of[applicant_of_text(text)] = int(active or assigned_number)
    for number in range(1, int(head["preferences"]) + 1):
        preference = preference_of_text(preferences[str(number)])
        ledger.preferences.append(preference)
        ledger.preference_numbers[preference] = int(preferences[f"={text_of_preference(preference)}"])
    for number in range(1, int(head["offered"]) + 1):
        day = _offered_of_text(offered[str(number)])
        ledger.offered_days[day.office, day.day] = day.quotas
    return ledger
