"""How a draw is kept in the store; ``lua/draw_1_ledger.lua`` is the other side.

Fields are set apart by tabs, rows by newlines, wishes by semicolons. A wish is
``office/day/service/service_unit/session/channel/group/options``. None of these can occur in a name.
"""

from __future__ import annotations

__all__ = ["DRAW_HASHES", "DRAW_KEY_NAMES", "DrawDecoder", "draw_of_state", "encode_for_draw"]

from collections.abc import Callable
from typing import Any, Final

from quota_engine.draws.ledger import (
    CloseDraw,
    CreateDraw,
    DrawConfig,
    DrawLedger,
    DrawOutcome,
    DrawQuery,
    DrawStatus,
    DrawView,
    FindApplication,
    FoundApplication,
    FreezeDraw,
    FrozenInputs,
    OfferDay,
    ReadApplications,
    ReadDraw,
    ReadOfferedDays,
    ReadPreferences,
    RevealSeed,
    Row,
    StoredApplication,
    SubmitApplication,
    WithdrawApplication,
    phase_of,
)
from quota_engine.draws.lottery import Preference
from quota_engine.stores.redis.codecs.office import applicant_of_text, choice_of_text, text_of_applicant, text_of_choice

DRAW_KEY_NAMES: Final = ("head", "applications", "applicants", "wishes", "offered")
"""The keys of a draw, in the order in which the scripts take them."""
DRAW_HASHES: Final = frozenset(range(5))

_STATUS: Final = {str(status): status for status in DrawStatus}
_WISHES_KEPT_MAX: Final = 10_000


def text_of_wish(wish: Preference) -> str:
    """A wish in a word."""
    return f"{wish.office}/{wish.day}/{text_of_choice(wish.choice)}".replace("\t", "/")


def wish_of_text(text: str) -> Preference:
    """The other way round."""
    office, day, choice = text.split("/", 2)
    return Preference(office, int(day), choice_of_text(choice.replace("/", "\t")))


def _text_of_terms(terms: DrawConfig) -> str:
    numbers = (
        terms.opens_at_ms,
        terms.closes_at_ms,
        terms.forget_at_ms,
        terms.first_day,
        terms.last_day,
        terms.party_max,
        terms.choices_max,
        terms.applications_max,
    )
    return "\t".join((*map(str, numbers), terms.commitment, terms.entropy_source))


def _terms_of_fields(fields: list[str]) -> DrawConfig:
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


def _applied_of_fields(fields: list[str]) -> StoredApplication:
    number, version, applicants, wishes = fields
    return StoredApplication(
        int(number),
        int(version),
        tuple(map(applicant_of_text, applicants.split(","))) if applicants else (),
        tuple(map(int, wishes.split(","))) if wishes else (),
    )


def _frozen_of_text(text: str) -> FrozenInputs | None:
    if not text:
        return None
    applications, applications_digest, capacities_digest = text.split(",")
    return FrozenInputs(int(applications), applications_digest, capacities_digest)


_ENCODE: Final[dict[type, Callable[[Any], str]]] = {
    CreateDraw: lambda one: f"create\t{_text_of_terms(one.config)}",
    SubmitApplication: lambda one: (
        f"apply\t{','.join(map(text_of_applicant, one.applicants))}\t{one.expected_version}"
        f"\t{';'.join(map(text_of_wish, one.preferences))}"
    ),
    WithdrawApplication: lambda one: f"withdraw\t{text_of_applicant(one.applicant)}\t{one.expected_version}",
    CloseDraw: lambda one: "close",
    OfferDay: lambda one: f"offer_day\t{one.office}\t{one.day}\t{_text_of_row(one.quotas)}",
    FreezeDraw: lambda one: f"freeze\t{one.applications}\t{one.applications_digest}\t{one.capacities_digest}",
    RevealSeed: lambda one: f"reveal\t{one.seed}\t{one.commitment}\t{one.entropy}",
    ReadDraw: lambda one: "draw",
    FindApplication: lambda one: f"find\t{text_of_applicant(one.applicant)}",
    ReadApplications: lambda one: f"applications\t{one.after}\t{one.limit}",
    ReadPreferences: lambda one: f"wishes\t{one.after}\t{one.limit}",
    ReadOfferedDays: lambda one: f"offered\t{one.after}\t{one.limit}",
}


def encode_for_draw(command: Any) -> str:
    """A command, or a question, as a line for the scripts."""
    return _ENCODE[type(command)](command)


class DrawDecoder:
    """Makes objects of the lines of one draw."""

    def __init__(self, place: str) -> None:
        self._draw = place.partition(".")[2]

    def outcome(self, command: Any, line: str) -> DrawOutcome:
        """The answer to ``command``, whose line was ``line``."""
        status, number, version, flags, retry_at_ms, quotas = line.split("\t")
        return DrawOutcome(
            _STATUS[status], int(number), int(version), flags == "p", int(retry_at_ms), _row_of_text(quotas)
        )

    def answer(self, question: DrawQuery, line: str) -> Any:
        """The answer to ``question``, whose line was ``line``."""
        rows = line.split("\n") if line else []
        match question:
            case ReadDraw():
                return self._view(line.split("\t")) if line else None
            case FindApplication():
                if not line:
                    return None
                return FoundApplication(_applied_of_fields(rows[0].split("\t")), tuple(map(wish_of_text, rows[1:])))
            case ReadApplications():
                return [_applied_of_fields(row.split("\t")) for row in rows]
            case ReadPreferences():
                return [wish_of_text(row) for row in rows]
            case ReadOfferedDays():
                return [_offered_of_text(row) for row in rows]

    def _view(self, fields: list[str]) -> DrawView:
        now, _, frozen, seed, entropy, last_number, active, people, wishes, offered = fields[:10]
        terms = _terms_of_fields(fields[10:])
        return DrawView(
            self._draw,
            phase_of(terms, bool(frozen), bool(seed), int(now)),
            terms,
            int(active),
            int(people),
            int(last_number),
            int(wishes),
            int(offered),
            _frozen_of_text(frozen),
            seed,
            entropy,
        )


def draw_of_state(place: str, state: list[Any]) -> DrawLedger:
    """The ledger that the answers of ``draw_4_state.lua`` come to, each hash a dict."""
    head, applications, applicants, wishes, offered = state
    ledger = DrawLedger(place)
    if "terms" not in head:
        return ledger
    ledger.now_ms = int(head["now_ms"])
    ledger.config = _terms_of_fields(head["terms"].split("\t"))
    ledger.closed = head["closed"] == "1"
    ledger.frozen = _frozen_of_text(head["frozen"])
    ledger.seed, ledger.entropy = head["seed"], head["entropy"]
    ledger.last_number, ledger.active_applications, ledger.active_applicants = (
        int(head[name]) for name in ("last_number", "active", "people")
    )
    for number, text in applications.items():
        if number != "~":
            ledger.applications[int(number)] = _applied_of_fields([number, *text.split("\t")])
    for text, standing in applicants.items():
        if text != "~":
            home, _, active = standing.partition(",")
            if home != "0":
                ledger.assigned_numbers[applicant_of_text(text)] = int(home)
            if (active or home) != "0":
                ledger.application_of[applicant_of_text(text)] = int(active or home)
    for number in range(1, int(head["wishes"]) + 1):
        wish = wish_of_text(wishes[str(number)])
        ledger.preferences.append(wish)
        ledger.preference_numbers[wish] = int(wishes[f"={text_of_wish(wish)}"])
    for number in range(1, int(head["offered"]) + 1):
        day = _offered_of_text(offered[str(number)])
        ledger.offered_days[day.office, day.day] = day.quotas
    return ledger
