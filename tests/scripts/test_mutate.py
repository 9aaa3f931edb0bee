from __future__ import annotations

from scripts.mutate import Mutant, Result, is_excluded, page_of

TEXT = """\
class Limits(Struct, frozen=True):
    places: int | None = 3

def free(units: int | str) -> int | None:
    return units - 1
"""
MUTANT = Mutant("domain/quotas.py", "core/NumberReplacer", 0, 7, "free")


def test_annotations_and_class_options_have_no_mutants() -> None:
    skips = is_excluded(TEXT)
    assert skips((1, 28))
    assert skips((2, 16))
    assert skips((4, 21))
    assert skips((4, 34))
    assert not skips((2, 25))
    assert not skips((5, 19))


def test_page_counts_and_lists_survivors_with_their_reasons() -> None:
    change = "`return units - 1` → `return units - 2`"
    results = [Result(MUTANT, "killed", change), Result(MUTANT, "timeout", change), Result(MUTANT, "survived", "`a`")]
    row = f"| `domain/quotas.py` | free | {change}"
    page = page_of(results, 1, 9_000, {row: "it only takes longer"})
    assert "| domain | 3 | 1 | 33 % |" in page
    assert f"{row} | it only takes longer |" in page
    assert "| `domain/quotas.py` | free | `a` | not read yet |" in page
