"""Inputs of the targets, kept as text: one JSON string a line, each character of which stands for one byte."""

from __future__ import annotations

__all__ = ["FOLDER", "mutants", "read_corpus", "write_corpus"]

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).with_name("corpora")


def read_corpus(target: str) -> list[bytes]:
    """Return the inputs of a target."""
    lines = (FOLDER / f"{target}.jsonl").read_text(encoding="ascii").splitlines()
    return [json.loads(line).encode("latin-1") for line in lines]


def write_corpus(target: str, inputs: Iterable[bytes]) -> None:
    """Keep the inputs of a target, the shortest first."""
    ordered = sorted(set(inputs), key=lambda one: (len(one), one))
    text = "".join(json.dumps(one.decode("latin-1")) + "\n" for one in ordered)
    (FOLDER / f"{target}.jsonl").write_text(text, encoding="ascii")


def mutants(corpus: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield inputs that differ from those of a corpus in some bytes, the same ones for the same seed."""
    source = random.Random(seed)
    for _ in range(count):
        data = bytearray(source.choice(corpus))
        for _ in range(source.randint(1, 4)):
            at = source.randint(0, len(data))
            match source.randrange(5):
                case 0:
                    data[at:at] = source.randbytes(source.randint(1, 4))
                case 1:
                    del data[at : at + source.randint(1, 8)]
                case 2 if at < len(data):
                    data[at] ^= 1 << source.randrange(8)
                case 3:
                    other = source.choice(corpus)
                    begin = source.randint(0, len(other))
                    data[at:at] = other[begin : begin + source.randint(1, 32)]
                case _:
                    data[at:at] = data[at : at + 16] * source.randint(1, 3)
        yield bytes(data)
