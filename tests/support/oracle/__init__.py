"""The oracle: a naive implementation of one office, written from ``docs/rules.md`` and not from the code.

It keeps no counter and no index. It computes free units, claims and the wait list from all records each time. It shares
commands, terms and outcomes with the library, but no rules.

Each module adds a part of the rules to the class of another: ``office`` (state and counts), ``units``, ``identities``,
``reservations``, ``moves``, ``operators``. ``dispatch`` has the whole.

If the rules allow several equal records to be shown, :class:`~tests.support.oracle.records.ExpectedOutcome` has all of
them.
"""

from tests.support.oracle.dispatch import Oracle
from tests.support.oracle.records import Record

__all__ = ["Oracle", "Record"]
