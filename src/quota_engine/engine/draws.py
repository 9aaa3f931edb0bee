"""One draw of an engine: :class:`Draw` and :class:`AsyncDraw`. They have the same methods and decide nothing.

What a method does stands once, at the sync one; the async one is the same with ``await``.
"""

from __future__ import annotations

__all__ = ["AsyncDraw", "Draw"]

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quota_engine.draws.ledger import DrawConfig, DrawOutcome, DrawView, ReadDraw, address_of
from quota_engine.draws.lottery import commitment_of
from quota_engine.ports import AsyncStore, Query, Store
from quota_engine.workflows import draws
from quota_engine.workflows.generator_drivers import run, run_async
from quota_engine.workflows.request_builder import Applicants, RequestBuilder

if TYPE_CHECKING:
    from quota_engine.workflows.draws import AwardReport, DrawChoice, DrawFiles, SubmittedApplication


class Draw:
    """A draw by its id; get one with :meth:`quota_engine.QuotaEngine.draw`. Nothing is asked before a method is called.

    Methods that change something return a :class:`~quota_engine.DrawOutcome`, whose ``status`` says what it came to.
    All methods raise as those of :class:`~quota_engine.QuotaEngine` do; what raised ``OutcomeUnknown`` can be repeated
    as it was.
    """

    def __init__(self, backend: Store, desk: RequestBuilder, draw: str) -> None:
        self._backend = backend
        self._desk = desk
        self._place = address_of(draw)
        self.id = draw

    def commitment(self, seed: str) -> str:
        """What to publish of a seed before applications are taken. A seed is 64 hex digits: ``secrets.token_hex(32)``.

        Keep it where nobody can read it until the applications have been published.
        """
        return commitment_of(self.id, seed)

    def create(self, config: DrawConfig) -> DrawOutcome:
        """Announce the draw, with the commitment to its seed. What has been announced can not be changed.

        Returns:
            ``DONE``; ``CONFLICT`` if it has been announced with other terms; ``OVER``.
        """
        return run(draws.create(self.id, config), self._backend)

    def view(self) -> DrawView | None:
        """The draw as it stands: its phase, its terms, how many have applied, what was frozen; ``None``: not known."""
        view: DrawView | None = self._backend.execute(Query(self._place, ReadDraw()))
        return view

    def apply(self, applicants: Applicants, choices: Sequence[DrawChoice], *, expected_version: int = 0) -> DrawOutcome:
        """Apply for the first of ``choices`` that is free when one's turn comes; alone, or as a party, all or nothing.

        Args:
            applicants: one identity, or a list of them. The application's number is that of the first.
            choices: the best one first. Rank as you like: nothing else gives you a better chance.
            version: 0 for a new application; to change one, its version as :meth:`find` or the last answer told it.

        Returns:
            ``APPLIED`` with ``number`` and ``tokens``, which are the receipt, and ``version``. Refusals, in this order:
            ``UNKNOWN_DRAW``, ``NOT_OPEN``, ``CLOSED``, ``PARTY_TOO_LARGE``, ``TOO_MANY_CHOICES``, ``NOT_IN_DRAW``,
            ``ALREADY_APPLIED``, ``STALE``, ``DRAW_FULL``.
        """
        return run(draws.enter(self._desk, self.id, applicants, choices, expected_version), self._backend)

    def withdraw(self, applicant: str, *, expected_version: int) -> DrawOutcome:
        """Take back the application that ``applicant`` is in, for all of its party.

        Returns:
            ``WITHDRAWN``. Refusals: ``UNKNOWN_DRAW``, ``NOT_OPEN``, ``CLOSED``, ``NOT_FOUND``, ``STALE``.
        """
        return run(draws.withdraw(self._desk, self.id, applicant, expected_version), self._backend)

    def find(self, applicant: str) -> SubmittedApplication | None:
        """The application that ``applicant`` is in, with its receipt; ``None`` if there is none."""
        return run(draws.find(self._desk, self.id, applicant), self._backend)

    def close(self) -> DrawOutcome:
        """After the closing time: write down what the draw gives away, and freeze that and the applications.

        What is available then of each quota that somebody applied for is given away, and what had been parked for the
        next draw. Publish :meth:`files` now, before the seed is revealed.

        Returns:
            ``DONE``; ``UNKNOWN_DRAW``; ``STILL_OPEN`` with ``retry_at_ms``; ``CONFLICT`` if it was frozen otherwise.
        """
        return run(draws.close(self._desk, self.id), self._backend)

    def run(self, seed: str, entropy: str = "") -> DrawOutcome:
        """Reveal the seed, with the public text that was announced, if one was. This decides the draw.

        Returns:
            ``DONE``; ``UNKNOWN_DRAW``; ``NOT_FROZEN``; ``CONFLICT`` if the seed is not the one that was committed to,
            or another entropy was given before, or one is missing or was not announced.
        """
        return run(draws.run(self.id, seed, entropy), self._backend)

    def files(self) -> DrawFiles | None:
        """All that is to be published of the draw: applications, capacities, and after :meth:`run` the result.

        It is worked out anew from what the store has. ``None`` for a draw that is not known.
        """
        record = run(draws.read(self._desk, self.id), self._backend)
        return None if record is None else draws.drawn(record)

    def award(self, *, hold_ttl_ms: int = 0, skip: int = 0, limit: int = 0) -> AwardReport:
        """Hold the winners' places for ``hold_ttl_ms`` from now (0: as the office's rules say). Safe to repeat.

        Many can be seen to in parts: ``limit`` winners (0: all) after the first ``skip``, in the order of the draw.

        Their days have to be open, and whoever the office would refuse is refused here too. The references in the
        report are what each winner confirms.
        """
        files = self.files()
        if files is None:
            return draws.NOTHING_AWARDED
        return run(draws.award(self._desk, files, hold_ttl_ms, skip, limit), self._backend)


class AsyncDraw:
    """:class:`Draw` for asyncio: the same methods, awaited. See there for what they do."""

    def __init__(self, backend: AsyncStore, desk: RequestBuilder, draw: str) -> None:
        self._backend = backend
        self._desk = desk
        self._place = address_of(draw)
        self.id = draw

    def commitment(self, seed: str) -> str:
        """See :meth:`Draw.commitment`."""
        return commitment_of(self.id, seed)

    async def create(self, config: DrawConfig) -> DrawOutcome:
        """See :meth:`Draw.create`."""
        return await run_async(draws.create(self.id, config), self._backend)

    async def view(self) -> DrawView | None:
        """See :meth:`Draw.view`."""
        view: DrawView | None = await self._backend.execute(Query(self._place, ReadDraw()))
        return view

    async def apply(
        self, applicants: Applicants, choices: Sequence[DrawChoice], *, expected_version: int = 0
    ) -> DrawOutcome:
        """See :meth:`Draw.apply`."""
        return await run_async(draws.enter(self._desk, self.id, applicants, choices, expected_version), self._backend)

    async def withdraw(self, applicant: str, *, expected_version: int) -> DrawOutcome:
        """See :meth:`Draw.withdraw`."""
        return await run_async(draws.withdraw(self._desk, self.id, applicant, expected_version), self._backend)

    async def find(self, applicant: str) -> SubmittedApplication | None:
        """See :meth:`Draw.find`."""
        return await run_async(draws.find(self._desk, self.id, applicant), self._backend)

    async def close(self) -> DrawOutcome:
        """See :meth:`Draw.close`."""
        return await run_async(draws.close(self._desk, self.id), self._backend)

    async def run(self, seed: str, entropy: str = "") -> DrawOutcome:
        """See :meth:`Draw.run`."""
        return await run_async(draws.run(self.id, seed, entropy), self._backend)

    async def files(self) -> DrawFiles | None:
        """See :meth:`Draw.files`. The draw itself runs in a thread: it can take seconds."""
        import asyncio  # whoever gets here has it, and nobody else needs it

        record = await run_async(draws.read(self._desk, self.id), self._backend)
        return None if record is None else await asyncio.to_thread(draws.drawn, record)

    async def award(self, *, hold_ttl_ms: int = 0, skip: int = 0, limit: int = 0) -> AwardReport:
        """See :meth:`Draw.award`."""
        files = await self.files()
        if files is None:
            return draws.NOTHING_AWARDED
        return await run_async(draws.award(self._desk, files, hold_ttl_ms, skip, limit), self._backend)
