"""The form of identities: every spelling of one identity becomes the same text, and other text is refused.

This is the only place that normalizes identities. It runs before the hash, in every call that takes an identity.
"""

from __future__ import annotations

__all__ = ["ANY_FORM", "IDENTITY_LENGTH_MAX", "STRIP_LENGTH_MAX", "IdentityFormat"]

import dataclasses
import re
import unicodedata
from collections.abc import Callable
from typing import Any, Final

from quota_engine.domain.check_digits import CHECK_DIGITS
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.identity_pattern import PatternBounds, can_match, check_pattern

IDENTITY_LENGTH_MAX: Final = 256
"""The most characters of an identity, before and after normalization."""
STRIP_LENGTH_MAX: Final = 32
"""The most characters of ``strip``."""
_PASSES_MAX: Final = 8
"""Removing a character may let others combine, so a text is normalized until it stays. Two or three passes suffice."""
_IGNORABLE: Final = re.compile(
    "[\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that are invisible by themselves: Unicode 16's Default_Ignorable_Code_Point, such as variation selectors
and fillers, and its format characters (category Cf), such as the soft hyphen and marks of direction. They are listed,
because processes with different versions of Python must agree.
"""
_FOREIGN_DIGIT: Final = re.compile(r"[^\D0-9]")
_DASHES: Final = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\u2e3a\u2e3b\ufe58\ufe63\uff0d"
_ANY_TEXT: Final = f"1 to {IDENTITY_LENGTH_MAX} printable characters"


@dataclasses.dataclass(frozen=True, slots=True)
class IdentityFormat:
    r"""The spelling of identities in one catalog. Without arguments: only the rules that hold always.

    Always: Unicode form NFKC; decimal digits of all scripts as ``0`` to ``9``; no invisible characters, such as
    variation selectors; no white space around it. Then the attributes apply.

    Attributes:
        strip: characters that are removed everywhere; a space stands for all white space, ``-`` for all dashes.
        pattern: a pattern of :mod:`~quota_engine.domain.identity_pattern` that the whole text must match, such as
            ``\d{16}``; ``""`` for any text.
        check_digit: name of the algorithm of :mod:`~quota_engine.domain.check_digits` that the digits must satisfy;
            ``""`` for none.
        casefold: fold capital letters, before the pattern. Otherwise ``a1`` and ``A1`` are two identities.
        expected: a valid identity in the office's own language, such as ``16 angka``.
        expected_en: the same in English.
    """

    strip: str = ""
    pattern: str = ""
    check_digit: str = ""
    casefold: bool = False
    expected: str = ""
    expected_en: str = ""
    is_plain: bool = dataclasses.field(init=False, repr=False, compare=False)
    """True if only the rules that hold always apply."""
    matches_normalized: Callable[[str], object] | None = dataclasses.field(init=False, repr=False, compare=False)
    """Matches ASCII texts that :meth:`normalize` returns as they are, and only such texts; ``None`` if no quick check
    can decide that.
    """
    _stripped: Any = dataclasses.field(init=False, repr=False, compare=False)
    _matches: Any = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the format.

        Raises:
            InvalidRequest: an attribute is not valid; ``where`` is its name.
        """
        if len(self.strip) > STRIP_LENGTH_MAX or any(one.isalnum() for one in self.strip):
            expected = f"up to {STRIP_LENGTH_MAX} characters that are neither letters nor digits"
            raise InvalidRequest("strip", repr(self.strip[:STRIP_LENGTH_MAX]), expected)
        if self.check_digit and self.check_digit not in CHECK_DIGITS:
            raise InvalidRequest("check_digit", repr(self.check_digit), f"one of {', '.join(CHECK_DIGITS)}")
        bounds = check_pattern(self.pattern, "pattern") if self.pattern else None
        if self.casefold and any(one.isupper() for one in self.pattern):
            raise InvalidRequest("pattern", "has capital letters", "small letters, because casefold is set")
        if (self.pattern or self.check_digit) and not (self.expected or self.expected_en):
            raise InvalidRequest("expected", "missing", 'a valid identity in words, such as "16 digits"')
        stripped = re.compile(_class_of(self.strip)).sub if self.strip else None
        matches = re.compile(self.pattern, re.ASCII).fullmatch if self.pattern else None
        is_plain = not (self.strip or self.pattern or self.check_digit or self.casefold)
        object.__setattr__(self, "_stripped", stripped)
        object.__setattr__(self, "_matches", matches)
        object.__setattr__(self, "is_plain", is_plain)
        is_quick = bounds is not None and not self.check_digit and not self._can_change(bounds)
        object.__setattr__(self, "matches_normalized", matches if is_quick else None)

    def normalize(self, identity: str, where: str = "identity") -> str:
        """Return the one spelling of an identity.

        Args:
            identity: up to 256 characters.
            where: the name of the argument in an error message.

        Raises:
            InvalidRequest: not an identity of this form. The message has ``where`` and the form, never the identity.
        """
        if type(identity) is not str or len(identity) > IDENTITY_LENGTH_MAX:
            raise InvalidRequest(where, "not a usable identity", self.expected_in("en") or _ANY_TEXT)
        text = self._pass(identity)
        if not text.isascii():  # one pass suffices for ASCII
            text = self._settled(text, where)
        # isprintable() also excludes lone surrogates, which cannot be encoded.
        if not 0 < len(text) <= IDENTITY_LENGTH_MAX or not text.isprintable():
            raise InvalidRequest(where, "not a usable identity", self.expected_in("en") or _ANY_TEXT)
        if self._matches is not None and self._matches(text) is None:
            raise InvalidRequest(where, "not a usable identity", self.expected_in("en"))
        if self.check_digit and not (text.isdigit() and CHECK_DIGITS[self.check_digit](text)):
            raise InvalidRequest(where, "not a usable identity: its check digit is wrong", self.expected_in("en"))
        return text

    def expected_in(self, language: str) -> str:
        """Return the words for a valid identity; ``""`` if any text is valid.

        Args:
            language: ``"en"`` for English; any other gives the words in the office's own language.
        """
        return (self.expected_en if language == "en" else "") or self.expected or self.expected_en

    def _can_change(self, bounds: PatternBounds) -> bool:
        """Return True if the pattern could match an ASCII text that is not normalized."""
        return any(
            can_match(bounds, one)
            for one in map(chr, range(128))
            if one.isspace() or not one.isprintable() or self._pass(f"0{one}0") != f"0{one}0"
        )

    def _settled(self, text: str, where: str) -> str:
        """Repeat passes until the text stays as it is, so that normalizing twice changes nothing."""
        for _ in range(_PASSES_MAX):
            again = self._pass(text)
            if again == text:
                return text
            text = again
        raise InvalidRequest(where, "not a usable identity", self.expected_in("en") or _ANY_TEXT)

    def _pass(self, text: str) -> str:
        if not text.isascii():
            text = unicodedata.normalize("NFKC", _IGNORABLE.sub("", text))
            text = _FOREIGN_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)
        if self.casefold:
            text = text.casefold()
        if self._stripped is not None:
            text = self._stripped("", text)
        return text.strip()


def _class_of(strip: str) -> str:
    """Return the class of the characters to remove, as a regular expression."""
    parts = [r"\s" if one == " " else re.escape(_DASHES) if one == "-" else re.escape(one) for one in strip]
    return f"[{''.join(parts)}]"


ANY_FORM: Final = IdentityFormat()
"""Any text, by the rules that hold always."""
