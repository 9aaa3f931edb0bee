"""The codec of offices: commands and their outcomes, questions and their answers.

``office_terms`` has rules and days, and ``office_state`` the stored records and events; ``lua/office/codec.lua`` has
the same layouts.

Everything is text. Tabs separate fields, newlines separate rows, commas separate the names of a list. None of these
characters can occur in an id, a name or a keyed hash. Keyed hashes are in base 64 instead of hex, because the store has
four copies of each.
"""

from __future__ import annotations

__all__ = [
    "STATE_OF_LETTER",
    "OfficeDecoder",
    "OfficeQuestion",
    "abandoned_of_text",
    "applicant_of_text",
    "choice_of_text",
    "encode",
    "text_of_applicant",
    "text_of_choice",
    "text_of_party",
]

from binascii import a2b_base64, b2a_base64, unhexlify
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from quota_engine.admission.guarded_command import GuardedCommand, GuardedOutcome
from quota_engine.domain.commands import (
    DAY_MAX,
    Cancel,
    CheckIn,
    CloseDay,
    Command,
    Confirm,
    Decline,
    Expire,
    Extend,
    MarkNoShow,
    MoveIn,
    MoveOut,
    OpenDay,
    PrepareMove,
    Publish,
    ReallocateUnused,
    Release,
    ReleaseParked,
    RemoveApplicant,
    ReplaceApplicant,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
    Stay,
    UndoAttendance,
    UndoMove,
)
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Choice, Reservation
from quota_engine.domain.outcomes import AbandonedHolds, DayView, Outcome, QuotaView, Status, WaitListPosition
from quota_engine.domain.validation import is_name
from quota_engine.ports import Lookup, ReadAbandonedHolds, ReadWaitListPosition, View
from quota_engine.stores.redis.codecs.buckets import text_of_guards
from quota_engine.stores.redis.codecs.office_terms import (
    sessions_of_text,
    text_of_new_day,
    text_of_renames,
    text_of_rules,
)

OfficeQuestion = Lookup | View | ReadWaitListPosition | ReadAbandonedHolds
"""A question about an office that takes one line."""

STATE_OF_LETTER: Final = {
    "W": State.WAITING,
    "H": State.HELD,
    "C": State.CONFIRMED,
    "A": State.ATTENDED,
    "N": State.NO_SHOW,
    "R": State.RELEASED,
    "E": State.EXPIRED,
    "X": State.CANCELLED,
    "M": State.MOVED,
}
_STATUS: Final = {str(status): status for status in Status}
_ZERO: Final = 0
"""Compared with ``is``: one step for the type and the value, because ``False`` and ``0.0`` are equal to 0."""
_HELD: Final = Status.HELD
_STATE_HELD: Final = State.HELD


# --- Applicants ----------------------------------------------------------------------------------------------------

_SHORT_LENGTH: Final = 22
_TO_NAME: Final = bytes.maketrans(b"+/", b"-_")
_FROM_NAME: Final = str.maketrans("-_", "+/")


def _short_text_of_hash(applicant: str) -> str:
    """Return a keyed hash of 32 hex digits in 22 characters, and ``""`` for any other applicant."""
    if len(applicant) != 32 or applicant != applicant.lower():
        return ""
    try:
        digest = unhexlify(applicant)
    except ValueError:
        return ""
    return b2a_base64(digest)[:_SHORT_LENGTH].translate(_TO_NAME).decode()


def text_of_applicant(applicant: str) -> str:
    """Return a keyed hash of 32 hex digits in 22 characters. Any other text of 22 characters gets a dot in front."""
    if len(applicant) == 32 and (short := _short_text_of_hash(applicant)):
        return short
    return f".{applicant}" if len(applicant) == _SHORT_LENGTH else applicant


def applicant_of_text(text: str) -> str:
    """Return an applicant from its text."""
    if len(text) == _SHORT_LENGTH:
        return a2b_base64(f"{text.translate(_FROM_NAME)}==").hex()
    return text[1:] if len(text) == _SHORT_LENGTH + 1 and text[0] == "." else text


def text_of_party(applicants: tuple[str, ...]) -> str:
    """Return the applicants of a party as text, separated by commas."""
    return text_of_applicant(applicants[0]) if len(applicants) == 1 else ",".join(map(text_of_applicant, applicants))


# --- Commands ------------------------------------------------------------------------------------------------------


def text_of_choice(choice: Choice) -> str:
    """Return a choice as text: its five names, and its options as ``a,b|c``."""
    options = "|".join(",".join(option) for option in choice.options)
    return f"{choice.service}\t{choice.service_unit}\t{choice.session}\t{choice.channel}\t{choice.group}\t{options}"


def choice_of_text(text: str) -> Choice:
    """Return a choice from its text."""
    service, service_unit, session, channel, group, options = text.split("\t")
    split = tuple(tuple(option.split(",")) for option in options.split("|"))
    return Choice(service, service_unit, session, channel, group, split)


def _step(verb: str) -> Callable[[Any], str]:
    return lambda command: f"{verb}\t{command.id}\t{text_of_applicant(command.owner)}\t{command.expected_version}"


def _text_of_confirm(one: Confirm) -> str:
    if one.reacquire and one.valid_until_ms:
        return (
            f"reacquire_until\t{one.valid_until_ms}\t{one.id}\t{text_of_applicant(one.owner)}\t{one.expected_version}"
        )
    return f"confirm\t{one.id}\t{text_of_applicant(one.owner)}\t{one.expected_version}\t{one.reacquire:d}"


_ENCODE: Final[dict[type, Callable[[Any], str]]] = {
    Confirm: _text_of_confirm,
    Extend: lambda one: f"{_step('extend')(one)}\t{one.extension}",
    RemoveApplicant: lambda one: f"{_step('remove_applicant')(one)}\t{text_of_applicant(one.applicant)}",
    ReplaceApplicant: lambda one: (
        f"replace_applicant\t{one.id}\t{one.expected_version}\t{one.valid_until_ms}"
        f"\t{text_of_applicant(one.applicant)}\t{text_of_applicant(one.replacement)}"
    ),
    Release: _step("release"),
    Decline: _step("decline"),
    Cancel: _step("cancel"),
    CheckIn: _step("check_in"),
    MarkNoShow: _step("mark_no_show"),
    UndoAttendance: _step("undo_attendance"),
    Reschedule: lambda one: (
        f"reschedule\t{one.id}\t{one.day}\t{text_of_applicant(one.owner)}\t{one.expected_version}\t{text_of_choice(one.choice)}"
    ),
    Stay: _step("stay"),
    PrepareMove: _step("prepare_move"),
    MoveIn: lambda one: (
        f"move_in\t{one.id}\t{one.day}\t{text_of_party(one.applicants)}\t{one.deadline_at_ms}\t{one.moves}"
        f"\t{one.valid_until_ms}\t{one.forced_moves}\t{one.extensions}\t{text_of_choice(one.choice)}"
    ),
    MoveOut: _step("move_out"),
    Lookup: lambda one: f"lookup\t{one.id}",
    View: lambda one: f"view\t{one.days[0]}",
    ReadAbandonedHolds: lambda one: "abandoned_holds",
    ReadWaitListPosition: lambda one: f"wait_list_position\t{one.id}",
    UndoMove: _step("undo_move"),
    Expire: lambda one: f"expire\t{one.day}\t{one.limit}",
    SetRules: lambda one: f"set_rules\t{text_of_rules(one.rules)}",
    Publish: lambda one: (
        f"publish\t{one.day}\t{text_of_new_day(one.terms)}\t{text_of_renames(one.terms)}"
        f"\t{msgspec.json.encode(one.terms).decode()}"
    ),
    SetCapacity: lambda one: f"set_capacity\t{one.day}\t{one.quota}\t{one.capacity}\t{one.expected_revision}",
    CloseDay: lambda one: f"close_day\t{one.day}\t{one.expected_revision}",
    OpenDay: lambda one: f"open_day\t{one.day}\t{one.expected_revision}",
    ReallocateUnused: lambda one: f"reallocate_unused\t{one.day}\t{one.quota}\t{one.expected_revision}",
    ReleaseParked: lambda one: f"release_parked\t{one.day}\t{one.quota}\t{one.expected_revision}",
    GuardedCommand: lambda one: _encode_guarded(one),
}


def _encode_guarded(command: GuardedCommand) -> str:
    command.check()
    return text_of_guards(command) + encode(command.command)


_choice_texts: dict[int, tuple[Choice, str]] = {}
"""Texts of choices by ``id()``: at an opening nearly all callers want the same few."""
_CHOICES_KEPT_MAX: Final = 1_000


def _kept_text_of_choice(choice: Choice) -> str:
    kept = _choice_texts.get(id(choice))
    if kept is not None and kept[0] is choice:
        return kept[1]
    if len(_choice_texts) >= _CHOICES_KEPT_MAX:
        _choice_texts.clear()
    text = text_of_choice(choice)
    _choice_texts[id(choice)] = (choice, text)
    return text


def encode(command: Command | GuardedCommand | OfficeQuestion) -> str:
    """Return a command or a question as a line for the scripts. The line of a view is for its first day.

    Raises:
        InvalidRequest: The command is not well formed.
    """
    if type(command) is Reserve:
        id_, day, applicants = command.id, command.day, command.applicants
        # Nearly every reserve: one hashed identity and no times. These few steps check all that command.check() does.
        if (
            len(applicants) == 1
            and type(applicants[0]) is str
            and (party := _short_text_of_hash(applicants[0]))
            and type(id_) is str
            and is_name(id_)
            and type(day) is int
            and 0 < day <= DAY_MAX
            and command.hold_ttl_ms is command.valid_until_ms is _ZERO
        ):
            joins = "1" if command.join_wait_list else "0"
            return f"reserve\t{id_}\t{day}\t{party}\t{joins}\t0\t{_kept_text_of_choice(command.choice)}"
        command.check()  # a reserve does not check itself when it is made, and must not fail the batch of other callers
        until = f"reserve_until\t{command.valid_until_ms}" if command.valid_until_ms else "reserve"
        return (
            f"{until}\t{command.id}\t{command.day}\t{text_of_party(command.applicants)}\t{command.join_wait_list:d}"
            f"\t{command.hold_ttl_ms}\t{_kept_text_of_choice(command.choice)}"
        )
    return _ENCODE[type(command)](command)


# --- Answers -------------------------------------------------------------------------------------------------------


class OfficeDecoder:
    """Decodes the texts of one office. Equal choices are one object, in whichever record they are."""

    def __init__(self, office: str) -> None:
        self._office = office
        self._choices: dict[str, Choice] = {}
        self._outcomes: dict[str, Outcome] = {}
        """Outcomes without a record, by their line. There are few different ones."""
        self._hold: tuple[str, list[str], int, int, int] = ("", [], 0, 0, 0)
        """The last line of a new hold, its fields, its times and the index of its option. The holds of a batch usually
        have equal lines.
        """

    def choice(self, text: str) -> Choice:
        """Return the choice of a text."""
        choice = self._choices.get(text)
        if choice is None:
            if len(self._choices) >= _CHOICES_KEPT_MAX:
                self._choices.clear()
            choice = self._choices[text] = choice_of_text(text)
        return choice

    def record(self, reservation_id: str, fields: list[str], choice: Choice) -> Reservation:
        """Return a reservation from its stored fields; ``lua/office/codec.lua`` describes them."""
        head, day, created, ttl, index_and_option, party = fields[:6]
        created_at_ms, option = int(created, 36), index_and_option[-1]
        version, _, undo = head[1:].partition(".")
        return Reservation(
            self._office,
            reservation_id,
            int(day),
            tuple(map(applicant_of_text, party.split(","))),
            choice,
            () if option.isdigit() else choice.options[ord(option) - ord("a")],
            STATE_OF_LETTER[head[0]],
            int(version),
            created_at_ms,
            created_at_ms + int(ttl, 36) if ttl else 0,
            int(fields[6]) if len(fields) > 6 else 0,
            int(fields[7]) if len(fields) > 7 else 0,
            int(fields[8]) if len(fields) > 8 else 0,
            int(fields[9]) if len(fields) > 9 else 0,
            int(fields[10]) if len(fields) > 10 else 0,
            int(fields[11]) if len(fields) > 11 else 0,
            int(fields[12]) if len(fields) > 12 else 0,
            created_at_ms + int(undo, 36) if undo else 0,
            tuple(map(applicant_of_text, fields[13].split(","))) if fields[13:] and fields[13] else (),
            tuple(map(int, fields[14].split(","))) if len(fields) > 14 else (),
        )

    def outcome(self, command: Any, line: str) -> Any:
        """Return the outcome of a command from its reply line; a :class:`GuardedOutcome` for a guarded command."""
        hold = self._hold
        if line != hold[0]:
            fields = line.split("\t")
            if fields[0] != "NEW":
                return self._outcome(command, line, fields)
            hold = self._hold = line, fields, int(fields[1]), int(fields[2]), int(fields[3])
        # A new hold, the most frequent success: the command has the rest of its record.
        assert type(command) is Reserve
        _, fields, created_at_ms, deadline_at_ms, option = hold
        choice = command.choice
        outcome = Outcome(
            _HELD,
            Reservation(
                self._office,
                command.id,
                command.day,
                command.applicants,
                choice,
                choice.options[option],
                _STATE_HELD,
                1,
                created_at_ms,
                deadline_at_ms,
                0,
                0,
            ),
        )
        if len(fields) == 4:
            return outcome
        if len(fields) % 2:
            outcome = replace(outcome, extensions_left=int(fields[4]))
        return _announced(outcome, fields[-2:]) if len(fields) > 5 else outcome

    def _outcome(self, command: Any, line: str, fields: list[str]) -> Any:
        """Return the outcome of any other line, which has these fields."""
        if fields[0] == "G":
            _, refused_by, in_shadow, rest = line.split("\t", 3)
            indexes = tuple(map(int, in_shadow.split(","))) if in_shadow else ()
            return GuardedOutcome(self.outcome(command.command, rest), int(refused_by), indexes)
        if len(fields) <= 5:
            known = self._outcomes.get(line)
            if known is not None:
                return known
        record = None
        if len(fields) > 5:
            record = self.record(fields[5], fields[12:], self.choice("\t".join(fields[6:12])))
        flags, retry_at_ms, units, overbooked = fields[1:5]
        flag, *numbers = flags.split(",")
        flag, _, extensions_left = flag.partition("e")
        outcome = Outcome(
            _STATUS[fields[0]], record, flag == "p", flag == "s", int(retry_at_ms), int(units), int(overbooked)
        )
        if extensions_left:
            outcome = replace(outcome, extensions_left=int(extensions_left))
        if len(numbers) == 1:
            return replace(outcome, revision=int(numbers[0]))
        if numbers:
            return _announced(outcome, numbers)
        if record is None and len(self._outcomes) < _CHOICES_KEPT_MAX:
            self._outcomes[line] = outcome
        return outcome

    def answer(self, question: OfficeQuestion, line: str) -> Any:
        """Return the answer to a question from its reply line."""
        if isinstance(question, Lookup):
            return self.lookup(line)
        if isinstance(question, ReadWaitListPosition):
            return self.wait_list_position(line)
        if isinstance(question, ReadAbandonedHolds):
            return abandoned_of_text(line)
        view = self.view(question.days[0], line)
        return [] if view is None else [view]

    def lookup(self, line: str) -> Reservation | None:
        """Return the reservation of a lookup, or ``None``."""
        if not line:
            return None
        fields = line.split("\t")
        return self.record(fields[0], fields[7:], self.choice("\t".join(fields[1:7])))

    def wait_list_position(self, line: str) -> WaitListPosition | None:
        """Return the position of a reservation on a wait list, or ``None``."""
        if not line:
            return None
        ahead, waiting = map(int, line.split("\t"))
        return WaitListPosition(ahead, waiting)

    def view(self, day: int, line: str) -> DayView | None:
        """Return the counters of a day, or ``None`` if it is not known."""
        if not line:
            return None
        opens, starts, ends, closed, waiting, revision, sessions, *rows = line.split("\t")
        quotas: dict[str, QuotaView] = {}
        for row in rows:
            name, *numbers = row.split(",")
            capacity, free, held, confirmed, cooling, parked, withheld = map(int, numbers)
            quotas[name] = QuotaView(capacity, max(0, free), held, confirmed, cooling, parked, max(0, -free), withheld)
        return DayView(
            day,
            int(opens),
            int(starts),
            int(ends),
            closed == "1",
            int(waiting),
            quotas,
            int(revision),
            sessions_of_text(sessions),
        )


def _announced(outcome: Outcome, numbers: list[str]) -> Outcome:
    left, blocked_until_ms = map(int, numbers)
    return replace(outcome, abandoned_holds_left=left, blocked_until_ms=blocked_until_ms)


def abandoned_of_text(text: str) -> AbandonedHolds:
    """Return the counts of abandoned holds from their text."""
    return AbandonedHolds(*map(int, text.split(",")))
