"""Check the prose of the repository: docstrings, comments and Markdown.

Every finding is one line, ``file:line: rule: excerpt``. The exit code is 1 if there are findings, 2 for bad usage.

Rules:

- ``noun-clause``: a sentence begins with a clause that stands for a noun.
- ``summary``: the docstring of a function begins with a noun phrase or a third person instead of an imperative.
  Properties and tests are free of this rule, and so is everything below ``tests``.
- ``cannot``: the word is written as two.
- ``contraction``: a contraction outside the tutorial.
- ``long-sentence``: a sentence has more than 30 words. A code span counts as one word.
- ``long-line``: a line of Markdown has more than 120 characters. Tables, code fences and addresses do not count.
- ``word``: a word or phrase of ``prose_words.toml``, which names the plain replacement.

A passage of Markdown between the comments ``prose: off`` and ``prose: on`` is skipped.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):  # run as a file instead of as a module
    sys.path.insert(0, str(ROOT))

from scripts.prose_units import (  # noqa: E402 - the path is set above
    CODE,
    LINK_ADDRESS,
    Source,
    Unit,
    lua_units,
    markdown_rows,
    markdown_units,
    python_units,
    sentences,
)

WORDS_FILE: Final = Path(__file__).resolve().parent / "prose_words.toml"
SENTENCE_WORDS_MAX: Final = 30
LINE_LENGTH_MAX: Final = 120
EXCERPT_LENGTH_MAX: Final = 90


class Rule(StrEnum):
    """Names of the rules, as findings show them."""

    NOUN_CLAUSE = "noun-clause"
    SUMMARY = "summary"
    CANNOT = "cannot"
    CONTRACTION = "contraction"
    LONG_SENTENCE = "long-sentence"
    LONG_LINE = "long-line"
    WORD = "word"


@dataclass(frozen=True)
class Finding:
    """One violation of a rule."""

    path: str
    line: int
    rule: Rule
    excerpt: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.excerpt}"


def long_lines(path: str, text: str) -> Iterator[Finding]:
    """Report lines of Markdown that are too long even without their addresses."""
    for number, row in markdown_rows(text):
        if len(row) > LINE_LENGTH_MAX:
            length = len(LINK_ADDRESS.sub("](#)", row))
            if length > LINE_LENGTH_MAX:
                excerpt = f"{len(row)} characters: {row.strip()[:60]}…"
                yield Finding(path, number, Rule.LONG_LINE, excerpt)


_CLAUSE_THAT = re.compile(
    r"That (?:the|a|an|no|nobody|nothing|none|it|he|she|they|we|you|each|every|everybody|all|some|any|anybody|its|their"
    r"|this|these|there|both|two|three|units|reservations|people|tickets|rooms|days|offices|applicants|callers"
    r"|identities|workers|events|entries|not|only|which|what|who|whoever)\b"
)
_CLAUSE_OTHER = re.compile(
    r"(?:What|Who|Whoever|Whom|Whose|Which|Whatever|Whichever|Whether"
    r"|How (?:many|much|long|often|old|far|soon|fast|few|late|big|large|well))\b"
)
_CLAUSE_SUMMARY = re.compile(r"(?:How|When|Where|Why)\b[^,]*$")
_ADVERBIAL = re.compile(r"Whether [^,]* or [^,]*,|(?:Whatever|Whichever) (?:the|a|an|its|their|your)\b[^,]*,")
_NO_IMPERATIVE = re.compile(
    r"(?:The|A|An|All|Each|Every|One|Two|Those|These|This|Its|It|Their|They|No|Nothing|None|Some|Any|Another|Both|Of|For"
    r"|With|From|At|In|On|By|As|So|Only|Such|There|True|False|[A-Z][a-z]+(?:[^s\Ws]s|ies)) (?!for all:)"
)
_WORD = re.compile(r"[^\W_]")
_CANNOT = re.compile(r"\bcan not\b(?! only)", re.IGNORECASE)
_CONTRACTION = re.compile(
    r"\b(?:(?:is|are|was|were|do|does|did|has|have|had|ca|wo|would|could|should|must)n['’]t"
    r"|(?:it|that|there|what|who|let|here|he|she)['’]s|\w+['’](?:ll|re|ve))\b",
    re.IGNORECASE,
)
_OPENING = " \"'“‘(["
_TOKEN = re.compile(r"[^\W\d_][\w'’-]*|[^\s\w]+|\w+")


def begins_with_noun_clause(sentence: str, *, is_summary: bool = False) -> bool:
    """Return True if the sentence begins with a clause that stands for a noun.

    Args:
        sentence: Text without markup, with its punctuation. Questions are fine.
        is_summary: True for the first sentence of a docstring, which must not begin with "How", "When", "Where" or
            "Why" either.
    """
    text = sentence.lstrip(_OPENING)
    if text.rstrip("\"'”’)] ").endswith("?"):
        return False
    if _CLAUSE_OTHER.match(text) or _CLAUSE_THAT.match(text):
        return not _ADVERBIAL.match(text)
    return is_summary and bool(_CLAUSE_SUMMARY.match(text))


def word_count(sentence: str) -> int:
    """Return the number of words. Punctuation that stands alone is no word."""
    return sum(1 for one in sentence.split() if _WORD.search(one))


@dataclass(frozen=True)
class Phrase:
    """A phrase of the word list."""

    words: tuple[frozenset[str], ...]
    unless_before: frozenset[str]
    unless_after: frozenset[str]
    plain: str


class WordList:
    """Phrases that prose avoids, with their plain replacements, found by their first word."""

    def __init__(self, phrases: dict[str, str]) -> None:
        self._by_first: dict[str, list[Phrase]] = {}
        for pattern, plain in phrases.items():
            parts = [frozenset(part.split("|")) for part in pattern.lower().replace("!", "!|").split()]
            before = parts.pop(0) if "!" in parts[0] else frozenset()
            after = parts.pop() if "!" in parts[-1] else frozenset()
            words = tuple(parts)
            phrase = Phrase(words, before, after, plain)
            for first in words[0]:
                self._by_first.setdefault(first, []).append(phrase)

    @classmethod
    def load(cls, path: Path = WORDS_FILE) -> WordList:
        """Read the table ``words`` of a TOML file: phrase to replacement. The file explains the notation."""
        with path.open("rb") as file:
            return cls(tomllib.load(file)["words"])

    def matches(self, sentence: str) -> Iterator[tuple[str, str]]:
        """Yield each phrase found in the sentence, as written, with its replacement."""
        tokens = _TOKEN.findall(sentence.replace("’", "'"))
        lowered = [token.lower() if token != CODE else CODE for token in tokens]
        for start, first in enumerate(lowered):
            for phrase in self._by_first.get(first, ()):
                end = start + len(phrase.words)
                if end > len(lowered):
                    continue
                if not all(lowered[start + index] in options for index, options in enumerate(phrase.words)):
                    continue
                if end < len(lowered) and lowered[end] in phrase.unless_after:
                    continue
                if start and lowered[start - 1] in phrase.unless_before:
                    continue
                yield " ".join(tokens[start:end]), phrase.plain


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT_LENGTH_MAX else text[: EXCERPT_LENGTH_MAX - 1].rstrip() + "…"


def check_unit(path: str, unit: Unit, words: WordList) -> Iterator[Finding]:
    """Report the findings of one unit."""
    needs_imperative = unit.source is Source.FUNCTION_DOCSTRING and not path.startswith("tests/")
    for sentence in sentences(unit):
        text, line = sentence.text, sentence.line
        is_summary = unit.is_summary and sentence.is_first
        if begins_with_noun_clause(text, is_summary=is_summary):
            yield Finding(path, line, Rule.NOUN_CLAUSE, _excerpt(text))
        elif is_summary and needs_imperative and _NO_IMPERATIVE.match(text):
            yield Finding(path, line, Rule.SUMMARY, _excerpt(text))
        if _CANNOT.search(text):
            yield Finding(path, line, Rule.CANNOT, _excerpt(text))
        if (match := _CONTRACTION.search(text)) and not Path(path).name.startswith("tutorial"):
            yield Finding(path, line, Rule.CONTRACTION, f"{match.group()}: {_excerpt(text)}")
        count = word_count(text)
        if count > SENTENCE_WORDS_MAX:
            yield Finding(path, line, Rule.LONG_SENTENCE, f"{count} words: {_excerpt(text)}")
        for phrase, plain in words.matches(text):
            yield Finding(path, line, Rule.WORD, f'"{phrase}" ({plain}): {_excerpt(text)}')


def check_text(path: str, text: str, words: WordList) -> list[Finding]:
    """Return the findings of a file, ordered by line.

    Args:
        path: Name for the findings. Its ending decides how the text is read: ``.py``, ``.lua`` or ``.md``.
        text: Content of the file.
        words: Phrases to report.
    """
    readers = {".py": python_units, ".lua": lua_units, ".md": markdown_units}
    suffix = Path(path).suffix
    findings = [found for unit in readers[suffix](text) for found in check_unit(path, unit, words)]
    if suffix == ".md":
        findings.extend(long_lines(path, text))
    return sorted(findings, key=lambda found: found.line)


def tracked_files(paths: Sequence[str]) -> list[str]:
    """Return the tracked Python, Lua and Markdown files below the paths, relative to the root of the repository."""
    listed = subprocess.run(  # noqa: S603 - the paths come after "--"
        ["git", "ls-files", "-z", "--", *(paths or ["."])],  # noqa: S607
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [
        name for name in listed.stdout.split("\0") if name.endswith((".py", ".lua", ".md")) and (ROOT / name).is_file()
    ]


def folder_of(path: str) -> str:
    """Return the folder under which ``--count`` adds up a file: a package of the library, or a top folder."""
    parts = Path(path).parts
    if len(parts) == 1:
        return "."
    depth = 3 if parts[:2] == ("src", "quota_engine") and len(parts) > 3 else 2 if parts[0] == "src" else 1
    return "/".join(parts[:depth])


def count_table(findings: Iterable[Finding]) -> str:
    """Return a table of the number of findings, by folder and rule."""
    counts = Counter((folder_of(found.path), found.rule) for found in findings)
    folders = sorted({folder for folder, _ in counts})
    rules = list(Rule)
    rows = [["folder", *(rule.value for rule in rules), "all"]]
    for folder in [*folders, "all"]:
        numbers = [sum(counts[one, rule] for one in (folders if folder == "all" else [folder])) for rule in rules]
        rows.append([folder, *map(str, numbers), str(sum(numbers))])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the files and print the findings. Return the exit code."""
    parser = argparse.ArgumentParser(description="Check docstrings, comments and Markdown against the rules of prose.")
    parser.add_argument("paths", nargs="*", help="files or folders; all tracked files if left out")
    parser.add_argument("--count", action="store_true", help="print numbers by folder instead of findings")
    parser.add_argument("--rule", action="append", choices=[rule.value for rule in Rule], help="only this rule")
    options = parser.parse_args(arguments)
    words = WordList.load()
    paths = [str(Path(path).resolve().relative_to(ROOT)) for path in options.paths]
    findings: list[Finding] = []
    for name in tracked_files(paths):
        findings.extend(check_text(name, (ROOT / name).read_text(encoding="utf-8"), words))
    if options.rule:
        findings = [found for found in findings if found.rule in options.rule]
    lines = [count_table(findings)] if options.count else [str(found) for found in findings]
    if findings:
        sys.stdout.write("\n".join(lines) + "\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
