"""Published files of draws: computed once for each draw and phase, kept on disk, and sent in chunks.

A download needs the same small memory for a draw of any size, and does not run the draw again. The files are a cache:
another process, or this one after a restart, computes the same files from the store.

With a publication folder, a copy of the files stays there, and is never replaced by other contents. The files of a draw
that contradicts what was published before (:mod:`publication_records`) are in a folder of their epoch beside it.
"""

from __future__ import annotations

__all__ = ["APPLICATIONS", "CAPACITIES", "PROOF", "RESULT", "DrawFileCache", "PublishedDraw", "file_names"]

import asyncio
import hashlib
import os
import shlex
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final, NamedTuple

import msgspec

from quota_engine import typed_data
from quota_engine.api_schema.draws import ApplicationResultBody, DrawChoiceBody, ProofBody, TotalsBody, choice_body
from quota_engine.draws.lottery import key_of, lot_of
from quota_engine.draws.queries import DrawPhase, DrawView
from quota_engine.engine.draws import AsyncDraw
from quota_engine.service.http.etag import matches_etag
from quota_engine.service.http.file_response import FileResponse
from quota_engine.workflows.draws import DrawFiles

APPLICATIONS: Final = "applications.jsonl"
CAPACITIES: Final = "capacities.json"
RESULT: Final = "result.jsonl"
PROOF: Final = "proof.json"

_DRAWS_MAX: Final = 16
_BYTES_MAX: Final = 1 << 30
_DOWNLOADS_MAX: Final = 64
_CHOICES: Final = "choices.jsonl"
"""Not published: the choices by number, so that one is found without reading all of them."""
_LINE_BYTES_MAX: Final = 65_536
_SEEKS_MAX: Final = 64


def file_names(phase: DrawPhase) -> tuple[str, ...]:
    """Return the names of the files that a draw in this phase has."""
    if phase is DrawPhase.FROZEN:
        return (APPLICATIONS, CAPACITIES, PROOF)
    return (APPLICATIONS, CAPACITIES, RESULT, PROOF) if phase is DrawPhase.REVEALED else ()


class PublishedFile(NamedTuple):
    """A file on disk, its size, and its SHA-256 in hex."""

    path: Path
    size_bytes: int
    sha256: str

    def open(self) -> IO[bytes]:
        """Open the file for reading."""
        return self.path.open("rb")


class PublishedDraw(NamedTuple):
    """The files of one draw in one phase."""

    folder: Path
    proof: ProofBody
    files: dict[str, PublishedFile]

    def find_result(self, number: int) -> ApplicationResultBody | None:
        """Return the result of the application ``number``; ``None`` if there is no such application.

        Reads a few lines of the files, and blocks meanwhile.
        """
        with self.files[APPLICATIONS].open() as lines:
            application = typed_data.decode_json(_find_line(lines, number) or b"null", _ApplicationLine | None)
        with self.files[RESULT].open() as lines:
            lines.readline(_LINE_BYTES_MAX)
            result = typed_data.decode_json(_find_line(lines, number) or b"null", _ResultLine | None)
        if application is None or result is None:
            return None
        with (self.folder / _CHOICES).open("rb") as lines:
            choices = [_find_line(lines, int(name[1:])) for name in application.choices]
        return ApplicationResultBody(
            draw=self.proof.draw,
            number=number,
            tokens=application.applicants,
            choices=[typed_data.decode_json(line or b"null", _ChoiceLine).choice for line in choices],
            order_key=self.proof.order_key,
            lot=lot_of(self.proof.order_key)(number).hex(),
            rank=result.rank,
            of=self.proof.totals.applications if self.proof.totals else 0,
            preference=result.preference,
        )


class _NumberedLine(msgspec.Struct):
    number: int


class _ApplicationLine(_NumberedLine):
    applicants: list[str]
    choices: list[str]


class _ResultLine(_NumberedLine):
    rank: int
    preference: int = 0


class _ChoiceLine(_NumberedLine):
    choice: DrawChoiceBody


_decode_number: Final = typed_data.json_decoder(_NumberedLine).decode


def _find_line(lines: IO[bytes], number: int) -> bytes | None:
    """Return the line with this number, from the current position on. Lines are sorted, so a binary search finds it."""
    low = lines.tell()
    high = lines.seek(0, 2)
    # Invariant: low is the start of a line, and the wanted line starts in low..high-1 if it exists.
    for _ in range(_SEEKS_MAX):
        if high - low <= _LINE_BYTES_MAX:
            break
        middle = lines.seek((low + high) // 2)
        lines.readline(_LINE_BYTES_MAX)
        start = lines.tell()
        line = lines.readline(_LINE_BYTES_MAX)
        if start < high and line and _decode_number(line).number <= number:
            low = start
        else:
            high = middle + 1
    lines.seek(low)
    while low < high and (line := lines.readline(_LINE_BYTES_MAX)):
        if _decode_number(line).number == number:
            return line
        low += len(line)
    return None


class DrawFileCache:
    """The files of the draws that were requested last."""

    def __init__(
        self, draws_max: int = _DRAWS_MAX, bytes_max: int = _BYTES_MAX, publication_folder: Path | None = None
    ) -> None:
        """Keep the files of at most ``draws_max`` draws and ``bytes_max`` bytes, the most recently requested ones.

        ``publication_folder`` keeps a copy of all files; ``None``: no copy.
        """
        self._publication_folder = publication_folder
        self._draws_max = draws_max
        self._bytes_max = bytes_max
        self._folder: Path | None = None
        self._draws: OrderedDict[tuple[str, ...], asyncio.Task[PublishedDraw]] = OrderedDict()
        self._build_lock = asyncio.Lock()
        self.builds = 0
        """Number of times that files were computed."""
        self.downloads = 0
        """Number of downloads in progress."""

    async def download(self, published: PublishedDraw, name: str, if_none_match: bytes) -> FileResponse | None:
        """Return a response with one of the files, or a 304 if ``if_none_match`` names it.

        Returns:
            ``None`` while the limit of concurrent downloads is reached.
        """
        file = published.files[name]
        content_type = b"application/json" if name.endswith(".json") else b"application/jsonl"
        if matches_etag(file.sha256, if_none_match):
            return FileResponse(None, name, file.size_bytes, file.sha256, content_type, lambda: None)
        if self.downloads >= _DOWNLOADS_MAX:
            return None
        stream = await asyncio.to_thread(file.open)
        self.downloads += 1
        return FileResponse(stream, name, file.size_bytes, file.sha256, content_type, self._download_ended)

    def _download_ended(self) -> None:
        self.downloads -= 1

    async def get(self, draw: AsyncDraw, view: DrawView, contradictions: tuple[str, ...] = ()) -> PublishedDraw:
        """Return the files of a frozen draw. Concurrent calls for one draw share the computation.

        Args:
            draw: the draw.
            view: its state.
            contradictions: how it contradicts what was published before. The proof and the result state them.
        """
        frozen = view.frozen
        assert frozen is not None, "only a frozen draw has files"
        key = (
            draw.id, view.seed, view.entropy, frozen.applications_digest, frozen.capacities_digest, *contradictions,
        )  # fmt: skip
        task = self._draws.get(key)
        if task is None:
            task = self._draws[key] = asyncio.create_task(self._build(draw, contradictions))
        else:
            self._draws.move_to_end(key)
        try:
            published = await asyncio.shield(task)  # a canceled request must not cancel the others' computation
        except Exception:
            if self._draws.get(key) is task:
                del self._draws[key]
            raise
        self._evict(key)
        return published

    async def _build(self, draw: AsyncDraw, contradictions: tuple[str, ...]) -> PublishedDraw:
        async with self._build_lock:  # a large draw takes gigabytes of memory while it is computed
            files = await draw.files()
            assert files is not None, "a frozen draw is retained for weeks"
            self.builds += 1
            if self._folder is None:
                self._folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="quota-engine-draws-"))
            files = _with_contradictions(files, contradictions)
            published = await asyncio.to_thread(_write_draw, files, self._folder / str(self.builds))
            if self._publication_folder is not None:
                epoch = files.record.view.epoch if contradictions else 0
                await asyncio.to_thread(_keep_copy, published, self._publication_folder, epoch)
            return published

    def _evict(self, kept: tuple[str, ...]) -> None:
        """Delete the least recently requested files beyond the limits. An open download continues on POSIX."""
        done = {key: task.result() for key, task in self._draws.items() if task.done() and not task.exception()}
        size_bytes = sum(file.size_bytes for published in done.values() for file in published.files.values())
        for key, published in done.items():
            if key == kept or (len(self._draws) <= self._draws_max and size_bytes <= self._bytes_max):
                continue
            del self._draws[key]
            size_bytes -= sum(file.size_bytes for file in published.files.values())
            shutil.rmtree(published.folder, ignore_errors=True)

    async def close(self) -> None:
        """Cancel computations in progress and delete all files."""
        for task in self._draws.values():
            task.cancel()
        await asyncio.gather(*self._draws.values(), return_exceptions=True)
        self._draws.clear()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


def _with_contradictions(files: DrawFiles, contradictions: tuple[str, ...]) -> DrawFiles:
    """Return files whose findings and result state the contradictions."""
    if not contradictions:
        return files
    head = None if files.head is None else msgspec.structs.replace(files.head, contradictions=contradictions)
    return msgspec.structs.replace(files, head=head, findings=(*files.findings, *contradictions))


def _keep_copy(published: PublishedDraw, folder: Path, epoch: int) -> None:
    """Copy the files of a draw into its folder. Files that are there stay, except for the proof, which grows.

    Args:
        published: the files.
        folder: the folder of all publications.
        epoch: epoch of a draw that contradicts what was published before, otherwise 0.
    """
    kept = folder / f"draw.{published.proof.draw}"
    if epoch:
        kept /= f"epoch-{epoch}"
    kept.mkdir(parents=True, exist_ok=True)
    for name, file in published.files.items():
        if name == PROOF or not (kept / name).exists():
            draft = kept / f".{name}.{os.getpid()}"
            shutil.copyfile(file.path, draft)
            draft.replace(kept / name)


def _write_draw(files: DrawFiles, folder: Path) -> PublishedDraw:
    """Write the files of one draw. Takes seconds for a large draw, so it runs in a thread."""
    folder.mkdir()
    record = files.record
    preferences = ((int(name[1:]), preference) for name, preference in record.capacities.preferences.items())
    encode = msgspec.json.Encoder().encode
    _write_lines(
        folder / _CHOICES,
        (
            encode(_ChoiceLine(number, choice_body(preference))) + b"\n"
            for number, preference in sorted(preferences, key=lambda pair: pair[0])
        ),
    )
    written = {
        APPLICATIONS: _write_lines(folder / APPLICATIONS, files.application_lines()),
        CAPACITIES: _write_lines(folder / CAPACITIES, [files.capacities_json]),
    }
    if files.head is not None:
        written[RESULT] = _write_lines(folder / RESULT, files.result_lines())
    proof = _proof(files, {name: file.sha256 for name, file in written.items()})
    content = msgspec.json.format(encode(proof), indent=1) + b"\n"
    written[PROOF] = _write_lines(folder / PROOF, [content])
    return PublishedDraw(folder, proof, written)


def _write_lines(path: Path, lines: Iterable[bytes]) -> PublishedFile:
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("wb") as stream:
        for line in lines:
            stream.write(line)
            digest.update(line)
            size_bytes += len(line)
    return PublishedFile(path, size_bytes, digest.hexdigest())


def _proof(files: DrawFiles, digests: dict[str, str]) -> ProofBody:
    view, head = files.record.view, files.head
    frozen = view.frozen
    assert frozen is not None
    check = (
        "quota-engine draw verify", RESULT, "--applications", APPLICATIONS, "--capacities", CAPACITIES,
        "--commitment", view.config.commitment, "--applications-digest", frozen.applications_digest,
        "--capacities-digest", frozen.capacities_digest, "--entropy", shlex.quote(view.entropy),
    )  # fmt: skip
    totals = None if head is None else head.totals
    return ProofBody(
        draw=view.draw,
        commitment=view.config.commitment,
        entropy_source=view.config.entropy_source,
        applications_digest=frozen.applications_digest,
        capacities_digest=frozen.capacities_digest,
        seed=view.seed,
        entropy=view.entropy,
        order_key=key_of(view.draw, view.seed, view.entropy) if view.seed else "",
        totals=None
        if totals is None
        else TotalsBody(
            applications=totals.applications,
            applicants=totals.applicants,
            winners=totals.winners,
            places=totals.places,
            by_preference=list(totals.by_preference),
        ),
        files=digests,
        findings=list(files.findings),
        check="" if head is None else " ".join(check),
    )
