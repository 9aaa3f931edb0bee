"""Draws: :class:`Draw` and :class:`AsyncDraw`, as ``engine.draw("id")`` returns them."""

from __future__ import annotations

__all__ = ["AsyncDraw", "Draw", "DrawMethods"]

from collections.abc import Sequence

from quota_engine.draws.commands import DrawConfig
from quota_engine.draws.ledger import address_of
from quota_engine.draws.lottery import commitment_of
from quota_engine.draws.outcomes import DrawOutcome
from quota_engine.draws.queries import DrawView, ReadDraw
from quota_engine.method_binding import AsyncBound, SyncBound, async_method, sync_method
from quota_engine.ports import AsyncStore, Query, Store
from quota_engine.workflows import draws
from quota_engine.workflows.arguments import Applicants
from quota_engine.workflows.draws import AwardReport, DrawChoice, DrawFiles, SubmittedApplication
from quota_engine.workflows.generator_drivers import Workflow, async_handler_of, call_handlers, handler_of
from quota_engine.workflows.jobs import JOB_TIMEOUT_MS, job
from quota_engine.workflows.request_builder import RequestBuilder


class DrawMethods:
    """Methods of a draw, written once for both classes."""

    def __init__(self, requests: RequestBuilder, draw: str) -> None:
        self._requests = requests
        self._address = address_of(draw)
        self.id = draw

    def create(self, config: DrawConfig) -> Workflow[DrawOutcome]:
        """Announce the draw with the commitment to its seed. An announced draw cannot be changed.

        Args:
            config: times, days, commitment and limits.

        Returns:
            ``DONE``; ``CONFLICT`` if it is announced with another configuration; ``DRAW_OVER``.
        """
        return draws.create(self.id, config)

    def view(self) -> Workflow[DrawView | None]:
        """Return the draw's phase, configuration, counts and frozen digests; ``None`` for an unknown draw."""
        view: DrawView | None = yield Query(self._address, ReadDraw())
        return view

    def apply(
        self,
        applicants: Applicants,
        choices: Sequence[DrawChoice],
        *,
        expected_version: int = 0,
        expected_epoch: int = 0,
    ) -> Workflow[DrawOutcome]:
        """Apply for places: for the first of ``choices`` that is free when the application's turn comes.

        Args:
            applicants: one identity, or a party of several, all or nothing.
            choices: the choices in order of preference. A truthful order is the best one: no other order gives a
                better chance.
            expected_version: 0 for a new application; to change one, its version from :meth:`find` or the last outcome.
            expected_epoch: the epoch of that version; 0 if it is not known. With it, a version that the draw lost in a
                failover is ``APPLICATION_LOST``, even if another one has its number now.

        Returns:
            ``APPLIED`` with ``number``, ``version``, ``epoch`` and ``tokens``, which are the receipt. Refusals, in this
            order: ``UNKNOWN_DRAW``, ``NOT_OPEN``, ``APPLICATIONS_CLOSED``, ``PARTY_TOO_LARGE``, ``TOO_MANY_CHOICES``,
            ``NOT_IN_DRAW``, ``ALREADY_APPLIED``, ``APPLICATION_LOST``, ``STALE``, ``DRAW_FULL``.
        """
        return draws.enter(self._requests, self.id, applicants, choices, expected_version, expected_epoch)

    def withdraw(self, applicant: str, *, expected_version: int, expected_epoch: int = 0) -> Workflow[DrawOutcome]:
        """Withdraw an application for its whole party.

        Args:
            applicant: the identity of one of its applicants.
            expected_version: the application's version.
            expected_epoch: the epoch of that version; 0 if it is not known.

        Returns:
            ``WITHDRAWN``. Refusals: ``UNKNOWN_DRAW``, ``NOT_OPEN``, ``APPLICATIONS_CLOSED``, ``NOT_FOUND``,
            ``APPLICATION_LOST``, ``STALE``.
        """
        return draws.withdraw(self._requests, self.id, applicant, expected_version, expected_epoch)

    def check_receipt(self, applicant: str, *, number: int, version: int, epoch: int) -> Workflow[DrawOutcome]:
        """Return what the draw knows of a receipt, at any time until the draw is forgotten.

        A store that may lose acknowledged writes can lose an application in a failover. Its applicant is not among the
        losers of the draw, but in no application.

        Args:
            applicant: the identity of one of its applicants.
            number: number on the receipt.
            version: version on the receipt.
            epoch: epoch on the receipt.

        Returns:
            ``APPLIED`` or ``WITHDRAWN`` if the draw has this version; ``STALE`` if the application was changed after
            it; ``APPLICATION_LOST`` if a failover has lost it; ``NOT_FOUND``; ``UNKNOWN_DRAW``. The outcome has
            number, version and epoch of the application that the draw has, if any.
        """
        return draws.check_receipt(self._requests, self.id, applicant, number, version, epoch)

    def find(self, applicant: str) -> Workflow[SubmittedApplication | None]:
        """Return an applicant's application with its receipt, or ``None``.

        Args:
            applicant: the identity of one of its applicants.
        """
        return draws.find(self._requests, self.id, applicant)

    def close(self, *, epoch: int = 0, timeout_ms: int | None = None) -> Workflow[DrawOutcome]:
        """After the closing time: record the offered places, and freeze them and the applications.

        The draw offers the available units of each quota that an application names, and the units parked for it.
        Publish :meth:`files` now, before the seed is revealed.

        Args:
            epoch: the draw's present epoch, after ``EPOCH_CHANGED``; 0 otherwise.
            timeout_ms: time of the whole call in milliseconds, 200 to 3,600,000; ``None`` for the ``job_timeout_ms`` of
                the engine.

        Returns:
            ``DONE``; ``UNKNOWN_DRAW``; ``STILL_OPEN`` with ``retry_at_ms``; ``CONFLICT`` if it was frozen otherwise;
            ``EPOCH_CHANGED`` with ``epoch`` if the draw's store has failed over. Then compare the draw with everything
            that was published before, and call again with this epoch.

        Raises:
            JobTimeout: the time is over, and the draw is not frozen. A repeated call keeps the places that are
                recorded, and reads the applications from the first one on: give it more time.
        """
        return job("close", timeout_ms, draws.close(self._requests, self.id, epoch))

    def run(self, seed: str, entropy: str = "", *, epoch: int = 0) -> Workflow[DrawOutcome]:
        """Reveal the seed. This decides the draw.

        Args:
            seed: the secret seed, 64 hexadecimal digits.
            entropy: the public text of the announced source, if one was announced.
            epoch: the draw's present epoch, after ``EPOCH_CHANGED``; 0 otherwise.

        Returns:
            ``DONE``, ``UNKNOWN_DRAW`` or ``NOT_FROZEN``. ``CONFLICT`` if the seed does not match the commitment, or the
            text differs from an earlier one, is missing or was not announced. ``EPOCH_CHANGED`` with ``epoch`` if the
            draw's store has failed over. Then a first run may be lost: repeat it with its text and this epoch.
        """
        return draws.run(self._requests, self.id, seed, entropy, epoch)

    def files(self, *, timeout_ms: int | None = None) -> Workflow[DrawFiles | None]:
        """Return the files to publish: applications, capacities, and after :meth:`run` the result.

        The engine computes them from the store's state, which takes seconds for a million applications; the async
        class does so in a thread. ``None`` for an unknown draw.

        Args:
            timeout_ms: time of the whole call besides the computation, in milliseconds, 200 to 3,600,000; ``None`` for
                the ``job_timeout_ms`` of the engine.

        Raises:
            JobTimeout: the time is over. Nothing was changed; give the call more time.
        """
        return job("files", timeout_ms, draws.files_of(self._requests, self.id))

    def award(
        self, *, hold_ttl_ms: int = 0, skip: int = 0, limit: int = 0, timeout_ms: int | None = None
    ) -> Workflow[AwardReport]:
        """Hold the winners' places. Safe to repeat.

        Their days must be open, and the office may refuse a winner as it refuses any applicant. A winner confirms with
        the reference of the report.

        Args:
            hold_ttl_ms: length of the holds; 0 for the office's rule.
            skip: number of winners to skip, in the order of the draw.
            limit: number of winners to award; 0 for all others.
            timeout_ms: time of the whole call in milliseconds, 200 to 3,600,000; ``None`` for the ``job_timeout_ms`` of
                the engine.

        Raises:
            JobTimeout: the time is over between two parts of the winners. ``report`` is about the winners before, and
                ``resume_with`` names the next one in ``skip``.
        """
        return job("award", timeout_ms, draws.award_draw(self._requests, self.id, hold_ttl_ms, skip, limit))


class Draw(SyncBound[DrawMethods]):
    """A draw by its id: a lottery among applications with ranked choices. ``engine.draw("id")`` sends nothing yet.

    Methods that change something return a :class:`~quota_engine.DrawOutcome`, whose ``status`` is the result.
    All methods raise the errors of :class:`~quota_engine.QuotaEngine`. Repeat a call that raised ``OutcomeUnknown``
    with the same arguments.
    """

    def __init__(self, store: Store, requests: RequestBuilder, draw: str, job_timeout_ms: int = JOB_TIMEOUT_MS) -> None:
        handle = handler_of(store)
        super().__init__(DrawMethods(requests, draw), handle, call_handlers(store, handle, job_timeout_ms))
        self.id = draw

    def commitment(self, seed: str) -> str:
        """Return the commitment to publish before applications open. Sends nothing.

        Args:
            seed: 64 hexadecimal digits, such as ``secrets.token_hex(32)``. Keep it secret until the applications have
                been published.
        """
        return commitment_of(self.id, seed)

    create = sync_method(DrawMethods.create)
    view = sync_method(DrawMethods.view)
    apply = sync_method(DrawMethods.apply)
    withdraw = sync_method(DrawMethods.withdraw)
    check_receipt = sync_method(DrawMethods.check_receipt)
    find = sync_method(DrawMethods.find)
    close = sync_method(DrawMethods.close)
    run = sync_method(DrawMethods.run)
    files = sync_method(DrawMethods.files)
    award = sync_method(DrawMethods.award)


class AsyncDraw(AsyncBound[DrawMethods]):
    """:class:`Draw` for asyncio: the same methods, awaited."""

    def __init__(
        self, store: AsyncStore, requests: RequestBuilder, draw: str, job_timeout_ms: int = JOB_TIMEOUT_MS
    ) -> None:
        handle = async_handler_of(store)
        super().__init__(DrawMethods(requests, draw), handle, call_handlers(store, handle, job_timeout_ms))
        self.id = draw

    def commitment(self, seed: str) -> str:
        """See :meth:`Draw.commitment`."""
        return commitment_of(self.id, seed)

    create = async_method(DrawMethods.create)
    view = async_method(DrawMethods.view)
    apply = async_method(DrawMethods.apply)
    withdraw = async_method(DrawMethods.withdraw)
    check_receipt = async_method(DrawMethods.check_receipt)
    find = async_method(DrawMethods.find)
    close = async_method(DrawMethods.close)
    run = async_method(DrawMethods.run)
    files = async_method(DrawMethods.files)
    award = async_method(DrawMethods.award)
