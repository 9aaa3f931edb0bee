"""What is published of draws, as files: worked out once for each draw and phase, kept on the disk, sent in pieces.

So a download costs the same small memory whatever its size, and the draw is not carried out again for it. Nothing here
lasts: another process, or this one after a restart, works out the same files from what the store has.
"""

from __future__ import annotations

__all__ = ["APPLICATIONS", "CAPACITIES", "PROOF", "RESULT", "Published", "PublishedDraws", "file_names"]

import asyncio
import hashlib
import shlex
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final, NamedTuple, TypeVar

import msgspec

from quota_engine.api_schema.draws import DrawChoiceBody, DrawnBody, ProofBody, TotalsBody, choice_body
from quota_engine.draws.ledger import DrawPhase, DrawView
from quota_engine.draws.lottery import key_of, lot_of
from quota_engine.engine.draws import AsyncDraw
from quota_engine.service.http.etag import is_one_of
from quota_engine.service.http.file_response import Download
from quota_engine.workflows.draws import DrawFiles

T = TypeVar("T")

APPLICATIONS: Final = "applications.jsonl"
CAPACITIES: Final = "capacities.json"
RESULT: Final = "result.jsonl"
PROOF: Final = "proof.json"

_DRAWS_MAX: Final = 16
_BYTES_MAX: Final = 1 << 30
_READERS_MAX: Final = 64
_CHOICES: Final = "choices.jsonl"
"""Ours: the choices by number, so that one can be found without reading all."""
_LINE_BYTES_MAX: Final = 65_536
_SEEKS_MAX: Final = 64


def file_names(phase: DrawPhase) -> tuple[str, ...]:
    """The files that there are of a draw in this phase."""
    if phase is DrawPhase.FROZEN:
        return (APPLICATIONS, CAPACITIES, PROOF)
    return (APPLICATIONS, CAPACITIES, RESULT, PROOF) if phase is DrawPhase.REVEALED else ()


class PublishedFile(NamedTuple):
    """A file on the disk: how large it is, and its SHA-256 in hex."""

    path: Path
    size_bytes: int
    sha256: str

    def open(self) -> IO[bytes]:
        """Open it for reading."""
        return self.path.open("rb")


class Published(NamedTuple):
    """All that is published of one draw in one phase."""

    folder: Path
    proof: ProofBody
    files: dict[str, PublishedFile]

    def drawn(self, number: int) -> DrawnBody | None:
        """What became of an application; ``None`` for a number that is not on the list. Reads a few lines."""
        with self.files[APPLICATIONS].open() as lines:
            application = msgspec.json.decode(_line_of(lines, number) or b"null", type=_Application | None)
        with self.files[RESULT].open() as lines:
            lines.readline(_LINE_BYTES_MAX)
            got = msgspec.json.decode(_line_of(lines, number) or b"null", type=_Lot | None)
        if application is None or got is None:
            return None
        with (self.folder / _CHOICES).open("rb") as lines:
            choices = [_line_of(lines, int(name[1:])) for name in application.choices]
        return DrawnBody(
            draw=self.proof.draw,
            number=number,
            tokens=application.applicants,
            choices=[msgspec.json.decode(line or b"null", type=_Choice).choice for line in choices],
            order_key=self.proof.order_key,
            lot=lot_of(self.proof.order_key)(number).hex(),
            rank=got.rank,
            of=self.proof.totals.applications if self.proof.totals else 0,
            preference=got.preference,
        )


class _Numbered(msgspec.Struct):
    number: int


class _Application(_Numbered):
    applicants: list[str]
    choices: list[str]


class _Lot(_Numbered):
    rank: int
    preference: int = 0


class _Choice(_Numbered):
    choice: DrawChoiceBody


_number: Final = msgspec.json.Decoder(_Numbered).decode


def _line_of(lines: IO[bytes], number: int) -> bytes | None:
    """The line of this number, from where the file stands on. Lines are in the order of their numbers: it is searched
    for by halves, in a few reads.
    """
    low = lines.tell()
    high = lines.seek(0, 2)
    # The wanted line, if there is one, begins in low..high-1, and low is the beginning of a line.
    for _ in range(_SEEKS_MAX):
        if high - low <= _LINE_BYTES_MAX:
            break
        middle = lines.seek((low + high) // 2)
        lines.readline(_LINE_BYTES_MAX)
        begins = lines.tell()
        line = lines.readline(_LINE_BYTES_MAX)
        if begins < high and line and _number(line).number <= number:
            low = begins
        else:
            high = middle + 1
    lines.seek(low)
    while low < high and (line := lines.readline(_LINE_BYTES_MAX)):
        if _number(line).number == number:
            return line
        low += len(line)
    return None


class PublishedDraws:
    """The files of the draws that somebody asked for, the last few of them."""

    def __init__(self, draws_max: int = _DRAWS_MAX, bytes_max: int = _BYTES_MAX) -> None:
        self._draws_max = draws_max
        self._bytes_max = bytes_max
        self._folder: Path | None = None
        self._known: OrderedDict[tuple[str, ...], asyncio.Task[Published]] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()
        self.made = 0
        """How many times files have been worked out."""
        self.readers = 0
        """How many downloads are under way."""

    async def download(self, published: Published, name: str, seen: bytes) -> Download | None:
        """One of the files, to be sent; nothing of it to who has ``seen`` it (an ``If-None-Match``). ``None`` while as
        many downloads are under way as there may be.
        """
        file = published.files[name]
        content_type = b"application/json" if name.endswith(".json") else b"application/jsonl"
        if is_one_of(file.sha256, seen):
            return Download(None, name, file.size_bytes, file.sha256, content_type, _nothing)
        if self.readers >= _READERS_MAX:
            return None
        stream = await asyncio.to_thread(file.open)
        self.readers += 1
        return Download(stream, name, file.size_bytes, file.sha256, content_type, self._read)

    def _read(self) -> None:
        self.readers -= 1

    async def of(self, draw: AsyncDraw, view: DrawView) -> Published:
        """The files of a draw that has been frozen. Those who ask for it at one time wait for the same work."""
        frozen = view.frozen
        assert frozen is not None, "asked only for what has been frozen"
        key = (draw.id, view.seed, frozen.applications_digest, frozen.capacities_digest)
        task = self._known.get(key)
        if task is None:
            task = self._known[key] = asyncio.create_task(self._make(draw))
        else:
            self._known.move_to_end(key)
        try:
            published = await asyncio.shield(task)  # whoever goes away stops nobody else's
        except Exception:
            if self._known.get(key) is task:
                del self._known[key]
            raise
        self._forget_old(key)
        return published

    async def _make(self, draw: AsyncDraw) -> Published:
        async with self._one_at_a_time:  # a large draw takes gigabytes while it is worked out
            files = await draw.files()
            assert files is not None, "it was there a moment ago, and is kept for weeks"
            self.made += 1
            if self._folder is None:
                self._folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="quota-engine-draws-"))
            return await asyncio.to_thread(_write, files, self._folder / str(self.made))

    def _forget_old(self, kept: tuple[str, ...]) -> None:
        """Drop those that nobody has asked for the longest. Who is reading one of them reads on."""
        done = {key: task.result() for key, task in self._known.items() if task.done() and not task.exception()}
        size_bytes = sum(one.size_bytes for published in done.values() for one in published.files.values())
        for key, published in done.items():
            if key == kept or (len(self._known) <= self._draws_max and size_bytes <= self._bytes_max):
                continue
            del self._known[key]
            size_bytes -= sum(one.size_bytes for one in published.files.values())
            shutil.rmtree(published.folder, ignore_errors=True)

    async def close(self) -> None:
        """Stop what is under way, and remove all files."""
        for task in self._known.values():
            task.cancel()
        await asyncio.gather(*self._known.values(), return_exceptions=True)
        self._known.clear()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


def _nothing() -> None:
    pass


def _write(files: DrawFiles, folder: Path) -> Published:
    """Write the files of one draw; in a thread, for it can take seconds."""
    folder.mkdir()
    record = files.record
    wishes = ((int(name[1:]), wish) for name, wish in record.capacities.preferences.items())
    encode = msgspec.json.Encoder().encode
    _write_lines(
        folder / _CHOICES,
        (encode(_Choice(number, choice_body(wish))) + b"\n" for number, wish in sorted(wishes, key=lambda one: one[0])),
    )
    written = {
        APPLICATIONS: _write_lines(folder / APPLICATIONS, files.application_lines()),
        CAPACITIES: _write_lines(folder / CAPACITIES, [files.capacities_json]),
    }
    if files.head is not None:
        written[RESULT] = _write_lines(folder / RESULT, files.result_lines())
    proof = _proof(files, {name: one.sha256 for name, one in written.items()})
    content = msgspec.json.format(encode(proof), indent=1) + b"\n"
    written[PROOF] = _write_lines(folder / PROOF, [content])
    return Published(folder, proof, written)


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
    words = (
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
        check="" if head is None else " ".join(words),
    )
