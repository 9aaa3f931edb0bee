"""Prose of source files: docstrings, comments and Markdown, as units and sentences without markup.

:mod:`scripts.check_prose` applies its rules to them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

CODE: Final = "CODE"
"""Stands for a code span, a reST role or an address: one word that no rule matches."""


class Source(StrEnum):
    """Kinds of text. Some rules depend on the kind."""

    DOCSTRING = "docstring"
    FUNCTION_DOCSTRING = "function docstring"
    """Of a function or method, whose first line is an imperative. Tests and properties have plain docstrings."""
    COMMENT = "comment"
    MARKDOWN = "markdown"


@dataclass(frozen=True)
class Unit:
    """A piece of prose that ends where its sentences end: a paragraph, a list item, a heading, an argument's entry."""

    source: Source
    lines: tuple[tuple[int, str], ...]
    """Line numbers of the file, counted from 1, each with its text."""
    is_summary: bool = False
    """True for the first paragraph of a docstring."""


_BULLET = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s+")
_SECTION = re.compile(r"\s*(?:Args|Arguments|Attributes|Example|Examples|Note|Raises|Returns|Yields):\s*$")
_ENTRY = re.compile(r"\s*\*{0,2}[A-Za-z_][\w.]*(?:\s*\([^)]*\))?:\s+")
_FIELD = re.compile(r"\s*:[a-z]+(?: [\w.]+)?:\s+")
_COLUMNS = re.compile(r"(?<=\S) {2,}(?=\S)|\t+")
_RULER = re.compile(r"[-=~#*_\s]*$")


def _plain_units(source: Source, lines: Iterable[tuple[int, str]]) -> Iterator[Unit]:
    """Split a docstring or a comment into units. Doctests, literal blocks and rulers are skipped."""
    unit: list[tuple[int, str]] = []
    summary = source in (Source.DOCSTRING, Source.FUNCTION_DOCSTRING)
    section_indent: int | None = None
    literal_indent: int | None = None
    doctest = False

    def end_unit() -> Iterator[Unit]:
        nonlocal unit, summary
        if unit:
            yield Unit(source, tuple(unit), summary)
            summary = False
        unit = []

    for number, text in lines:
        bare = text.strip()
        indent = len(text) - len(text.lstrip())
        if not bare or _RULER.fullmatch(bare):
            doctest = False
            yield from end_unit()
            continue
        if literal_indent is not None:
            if indent > literal_indent:
                continue
            literal_indent = None
        if doctest or bare.startswith(">>>"):
            doctest = True
            continue
        if _SECTION.fullmatch(text):
            yield from end_unit()
            section_indent = indent
            continue
        if section_indent is not None and indent <= section_indent:
            section_indent = None
        entry = _FIELD.match(text) or (_ENTRY.match(text) if section_indent is not None else None)
        bullet = _BULLET.match(text)
        if entry or bullet:
            yield from end_unit()
            text = text[(entry or bullet).end() :]  # type: ignore[union-attr]
        cells = _COLUMNS.split(text.strip())
        if len(cells) > 1:
            # A table in a comment: each cell is a unit, and the next line may continue the last cell.
            for cell in cells:
                yield from end_unit()
                unit = [(number, cell)]
        else:
            unit.append((number, text.strip()))
        if bare.endswith("::"):
            yield from end_unit()
            literal_indent = indent
    yield from end_unit()


_PYTHON_TOKENS = re.compile(
    r'(?P<prefix>\b[rRbBuUfF]{1,2})?(?P<quoted>"""(?P<long>(?:\\.|[^\\])*?)"""'
    r"|\'\'\'(?:\\.|[^\\])*?\'\'\'"
    r'|"(?P<short>(?:\\.|[^"\\\n])*)"'
    r"|'(?:\\.|[^'\\\n])*')"
    r"|(?P<comment>#[^\n]*)",
    re.DOTALL,
)
_LUA_TOKENS = re.compile(
    r"--\[(?P<a>=*)\[(?P<block>.*?)\](?P=a)\]"
    r"|\[(?P<b>=*)\[.*?\](?P=b)\]"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'(?:\\.|[^'\\\n])*'"
    r"|(?P<comment>--[^\n]*)",
    re.DOTALL,
)
_DIRECTIVE = re.compile(
    r"#\s*(?:noqa(?::\s*[A-Z]+\d+(?:\s*,\s*[A-Z]+\d+)*)?\s*[-–:,]?|(?:type:|pragma|fmt:|mypy:|ruff:|!|-\*-)[^#]*)"
)
_HEADER = re.compile(r"^(?P<indent>[ \t]*)(?P<keyword>async def|def|class) (?P<name>\w+)", re.MULTILINE)
_PROPERTY = re.compile(r"@(?:\w+\.)*(?:\w*property|setter|getter)\b[^\n]*\n(?:[ \t]*@[^\n]*\n)*\Z")


def _is_command(text: str, header: re.Match[str]) -> bool:
    """Return True if the docstring after a header must be an imperative: a function's, but no property's or test's."""
    if header["keyword"] == "class" or header["name"].startswith("test_"):
        return False
    return not _PROPERTY.search(text, max(0, header.start() - 300), header.start())


def _python_texts(text: str) -> Iterator[tuple[Source, list[tuple[int, str]]]]:
    """Yield the docstrings and comments of a module as numbered lines, in order.

    A docstring is a string outside all brackets with only white space before and after it on its lines.
    A token scanner finds it in a third of the time that a parser takes.
    """
    headers = list(_HEADER.finditer(text))
    header_starts = [header.start() for header in headers]
    comments = _Comments()
    line, position, depth = 1, 0, 0
    for token in _PYTHON_TOKENS.finditer(text):
        start = token.start()
        between = text[position:start]
        line += between.count("\n")
        depth += sum(map(between.count, "([{")) - sum(map(between.count, ")]}"))
        position = token.end()
        row_start = text.rfind("\n", 0, start) + 1
        is_first = not text[row_start:start].strip()
        comment = token["comment"]
        if comment is not None:
            kept = _DIRECTIVE.sub("", comment).lstrip("#:")
            yield from comments.add(line, start - row_start, kept, stands_alone=is_first)
            continue
        value = token["long"] if token["long"] is not None else token["short"]
        row_end = text.find("\n", position)
        if (
            is_first
            and not depth
            and value is not None
            and not text[position : row_end if row_end >= 0 else None].strip()
        ):
            yield from comments.end()
            source = Source.DOCSTRING
            before = text[:row_start].rstrip()
            index = bisect_right(header_starts, start) - 1
            if before.endswith(":") and index >= 0 and _is_command(text, headers[index]):
                source = Source.FUNCTION_DOCSTRING
            yield source, list(enumerate(value.split("\n"), line))
        line += token.group().count("\n")
    yield from comments.end()


class _Comments:
    """Joins adjacent comment lines of one column to one comment."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str]] = []
        self._column = -1

    def add(
        self, line: int, column: int, text: str, *, stands_alone: bool
    ) -> Iterator[tuple[Source, list[tuple[int, str]]]]:
        """Take the next comment line, and yield the comment before it if that has ended."""
        if not (self._lines and stands_alone and column == self._column and line == self._lines[-1][0] + 1):
            yield from self.end()
        self._lines.append((line, text))
        self._column = column if stands_alone else -1

    def end(self) -> Iterator[tuple[Source, list[tuple[int, str]]]]:
        """Yield the comment that is not complete yet, if there is one."""
        if self._lines:
            yield Source.COMMENT, self._lines
        self._lines = []
        self._column = -1


def _lua_texts(text: str) -> Iterator[tuple[Source, list[tuple[int, str]]]]:
    """Yield the comments of a Lua file as numbered lines, in order."""
    comments = _Comments()
    line, position = 1, 0
    for token in _LUA_TOKENS.finditer(text):
        start = token.start()
        line += text.count("\n", position, start)
        position = start
        row_start = text.rfind("\n", 0, start) + 1
        if token["comment"] is not None:
            kept = token["comment"].lstrip("-")
            stands_alone = not text[row_start:start].strip()
            yield from comments.add(line, start - row_start, kept, stands_alone=stands_alone)
        elif token["block"]:
            yield from comments.end()
            yield Source.COMMENT, list(enumerate(token["block"].split("\n"), line))
    yield from comments.end()


def python_units(text: str) -> Iterator[Unit]:
    """Return the units of a Python module: docstrings, strings after fields, and comments."""
    for source, lines in _python_texts(text):
        yield from _plain_units(source, lines)


def lua_units(text: str) -> Iterator[Unit]:
    """Return the units of the comments of a Lua file."""
    for source, lines in _lua_texts(text):
        yield from _plain_units(source, lines)


_FENCE = re.compile(r"\s*(?:>\s*)*(?P<mark>`{3,}|~{3,})")
_SWITCH = re.compile(r"<!--\s*prose:\s*(?P<state>on|off)\s*-->")
_HEADING = re.compile(r"\s*#{1,6}\s+")
_REFERENCE = re.compile(r"\s*\[[^\]]+\]:\s+\S+")
LINK_ADDRESS: Final = re.compile(r"\]\([^)\s]*\)|<?https?://[^\s)>]+>?|\b(?:src|href)=\"[^\"]*\"")


def markdown_rows(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of Markdown that are prose. A line that is skipped comes as an empty one."""
    fence = ""
    is_on = True
    is_comment = False
    for number, row in enumerate(text.splitlines(), 1):
        mark = _FENCE.match(row)
        if fence:
            if mark and mark["mark"].startswith(fence) and not row.strip("`~ >\t"):
                fence = ""
            yield number, ""
        elif mark:
            fence = mark["mark"]
            yield number, ""
        elif switch := _SWITCH.search(row):
            is_on = switch["state"] == "on"
            yield number, ""
        elif is_comment or row.lstrip().startswith("<!--"):
            is_comment = "-->" not in row
            yield number, ""
        else:
            yield number, row if is_on and not row.lstrip().startswith("|") else ""


def markdown_units(text: str) -> Iterator[Unit]:
    """Return the units of a Markdown page. Code fences, tables and HTML comments are skipped."""
    unit: list[tuple[int, str]] = []
    for number, row in markdown_rows(text):
        row = row.lstrip("> ") if row.lstrip().startswith(">") else row
        heading = _HEADING.match(row)
        bullet = _BULLET.match(row)
        ends = not row.strip() or bool(heading or bullet or _REFERENCE.match(row) or _RULER.fullmatch(row))
        if ends and unit:
            yield Unit(Source.MARKDOWN, tuple(unit))
            unit = []
        if heading:
            yield Unit(Source.MARKDOWN, ((number, row[heading.end() :].strip(" #")),))
        elif bullet:
            unit.append((number, row[bullet.end() :].strip()))
        elif not ends:
            unit.append((number, row.strip()))
    if unit:
        yield Unit(Source.MARKDOWN, tuple(unit))


_CODE_SPAN = re.compile(
    r"(?P<tick>`{1,3})(?!`).+?(?<!`)(?P=tick)(?!`)"
    r"|<?https?://[^\s)>]+>?"
    r"|</?[a-z][^>]*>",
    re.DOTALL,
)
_ROLE = re.compile(r":[a-z][a-z:]*:(?=`)")
_LINK = re.compile(r"!?\[(?P<text>[^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_EMPHASIS = re.compile(r"\*{1,3}|(?<!\w)_{1,3}(?=\w)|(?<=\w)_{1,3}(?!\w)")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]\x00]*(?=\s+[\"'“‘(\[\x00]*[A-Z0-9])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|approx|resp|incl|No|St|Dr|Mr|Ms|[A-Z])|\.\.)\.$")


def _blanked(match: re.Match[str]) -> str:
    """Replace a span by one code word of the same length, so that positions stay."""
    length = match.end() - match.start()
    filler = CODE[: max(1, min(length, len(CODE)))]
    return filler + "\x00" * (length - len(filler))


def _linked(match: re.Match[str]) -> str:
    """Keep the text of a link and blank the rest of it."""
    whole, text = match.group(), match["text"]
    start = whole.index("[") + 1
    return "\x00" * start + text + "\x00" * (len(whole) - start - len(text))


def _emphasized(match: re.Match[str]) -> str:
    return "\x00" * len(match.group())


@dataclass(frozen=True)
class Sentence:
    """One sentence of a unit, without markup."""

    text: str
    line: int
    is_first: bool


def sentences(unit: Unit) -> Iterator[Sentence]:
    """Split a unit into sentences. Code spans, roles and addresses become the word ``CODE``."""
    starts: list[int] = []
    length = 0
    for _, row in unit.lines:
        starts.append(length)
        length += len(row) + 1
    text = " ".join(row for _, row in unit.lines)
    text = _ROLE.sub(_emphasized, text)
    text = _CODE_SPAN.sub(_blanked, text)
    text = _LINK.sub(_linked, text)
    text = _EMPHASIS.sub(_emphasized, text)
    begin = 0
    is_first = True
    for end in [*_ends(text), len(text)]:
        raw = text[begin:end]
        offset = begin + len(raw) - len(raw.lstrip(" \x00"))
        words = re.sub(r"\s+", " ", raw.replace("\x00", "")).strip()
        if words:
            line = unit.lines[max(0, bisect_right(starts, offset) - 1)][0]
            yield Sentence(words, line, is_first)
            is_first = False
        begin = end


def _ends(text: str) -> Iterator[int]:
    for match in _SENTENCE_END.finditer(text):
        before = text[max(0, match.start() - 12) : match.start() + 1].replace("\x00", "")
        if match.group().startswith(".") and _ABBREVIATION.search(before):
            continue
        yield match.end()
