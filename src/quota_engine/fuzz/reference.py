"""The pure machines beside a store: each command that the store has applied is applied here as well, and compared."""

from __future__ import annotations

__all__ = ["Reference"]

import pickle
from collections.abc import Callable
from typing import Any, Final

from quota_engine.domain.audit import audit_state
from quota_engine.domain.cross_office_registry import Registry
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.queries import lookup, view
from quota_engine.ledger_kinds import OFFICE, LedgerKind, kind_of
from quota_engine.ports import Lookup, View

_AUDITED_EVERY: Final = 64
"""Operations from one audit of an office to the next."""
StepCheck = Callable[[str, Any, int, Any], str]
"""Another model beside the machine: it receives address, command, time and outcome; returns an objection, or ``""``."""


class Reference:
    """One pure ledger for each address of a store.

    Attributes:
        ledgers: the ledgers by address.
        violations: a sentence for each difference.
        operations: commands and questions that were compared.
    """

    def __init__(self, step_check: StepCheck | None = None) -> None:
        self.ledgers: dict[str, Any] = {}
        self.violations: list[str] = []
        self.operations = 0
        self._step_check = step_check
        self._kinds: dict[str, LedgerKind] = {}

    def apply(self, address: str, command: Any, now_ms: int, outcome: Any) -> None:
        """Apply a command that the store has applied, and compare the outcomes."""
        self.operations += 1
        ledger = self.ledgers.get(address)
        if ledger is None:
            kind = self._kinds[address] = kind_of(address)
            ledger = kind.new(address)
            if type(command) in kind.creating_commands:
                self.ledgers[address] = ledger
        expected = self._kinds[address].apply(ledger, command, now_ms)
        if expected is not outcome and expected != outcome:
            self.violations.append(f"{address}: {command} at {now_ms}: {outcome}, and the machine says {expected}")
        if self.operations % _AUDITED_EVERY == 0 and isinstance(ledger, Ledger) and not self.violations:
            # At the end of a long run its days are forgotten, and with them what an audit could find.
            self.violations += [f"{address}: audit: {finding}" for finding in audit_state(ledger)]
        if self._step_check is not None:
            objection = self._step_check(address, command, now_ms, outcome)
            if objection:
                self.violations.append(f"{address}: {command} at {now_ms}: the oracle objects: {objection}")

    def ask(self, address: str, question: Any, now_ms: int, answer: Any) -> None:
        """Ask the machine as well, and compare the answers."""
        self.operations += 1
        kind = kind_of(address)
        expected = kind.ask(self.ledgers.get(address) or kind.new(address), question, now_ms)
        if expected != answer:
            self.violations.append(f"{address}: {question} at {now_ms}: {answer}, and the machine says {expected}")

    def ask_office(self, office: str, request: Lookup | View, now_ms: int, answer: Any) -> None:
        """Look a reservation up, or view a day, and compare the answers."""
        self.operations += 1
        ledger = self.ledger(office)
        if isinstance(request, Lookup):
            expected: Any = lookup(ledger, request.id, now_ms)
        else:
            expected = [one for day in request.days if (one := view(ledger, day, now_ms)) is not None]
        if expected != answer:
            self.violations.append(f"{office}: {request} at {now_ms}: {answer}, and the machine says {expected}")

    def ledger(self, address: str) -> Any:
        """Return the ledger of an address; a new one if there is none."""
        return self.ledgers.get(address) or kind_of(address).new(address)

    def compare_last_number(self, office: str, number: int) -> None:
        """Compare the number of an office's last event, which shows a step that does more or less than the machine."""
        expected = len(self.ledger(office).events)
        if number != expected:
            self.violations.append(f"{office}: the state differs from the machine's: {number} events, not {expected}")

    def compare(self, address: str, described: Any) -> None:
        """Compare the whole state of a ledger."""
        kind = kind_of(address)
        expected = kind.describe(self.ledger(address))
        if expected != described:
            keys = [key for key in expected if expected[key] != described.get(key)]
            self.violations.append(
                f"{address}: the state differs from the machine's: "
                + "; ".join(f"{key}: {described.get(key)!r}, not {expected[key]!r}" for key in keys[:3])
            )

    def adopt(self, address: str, state: Any, admission: Any = None) -> None:
        """Take over the state of a ledger that the store has repaired by itself.

        Args:
            address: the ledger.
            state: its state, as the store keeps it.
            admission: of an office, its token buckets and used passes.
        """
        self._step_check = None  # it has not seen the repair
        self._kinds[address] = kind_of(address)
        if isinstance(state, Registry):
            state.claims_due = sorted((one.forget_at_ms, key) for key, one in state.claims.items())
            state.moves_due = sorted((one.forget_at_ms, key) for key, one in state.moves.items())
        if kind_of(address) is not OFFICE:
            self.ledgers[address] = state
            return
        ledger = OFFICE.new(address)
        for name in Ledger.__slots__:
            setattr(ledger, name, getattr(state, name))
        ledger.admission = admission
        ledger.next_forget_ms = 0  # no store keeps it: the next command finds it
        self.ledgers[address] = ledger

    def save(self) -> bytes:
        """Return a copy of all ledgers, for :meth:`restore`."""
        return pickle.dumps(self.ledgers)

    def restore(self, saved: bytes) -> None:
        """Go back to a copy."""
        self._step_check = None
        self.ledgers = pickle.loads(saved)  # noqa: S301 - made by save()
