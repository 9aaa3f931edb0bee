"""National numbers of made-up people, and nine spellings of one of them."""

from __future__ import annotations

__all__ = ["NIK", "SPELLINGS", "nik"]

NIK = "3578012345678901"

SPELLINGS = (
    NIK,
    f"  {NIK} ",
    "3578 0123 4567 8901",
    "3578.0123.4567.8901",
    "3578-0123-4567-8901",
    "３５７８０１２３４５６７８９０１",  # full-width digits
    "٣٥٧٨٠١٢٣٤٥٦٧٨٩٠١",  # Arabic-Indic digits
    "3\ufe0f" + NIK[1:],  # a variation selector
    f"\u200f35\u00ad78\u200b{NIK[4:]}",  # a mark of direction, a soft hyphen, a zero-width space
)
"""A catalog with ``strip = " .-"`` and ``pattern = '\\d{16}'`` takes all of them as the first one."""


def nik(number: int) -> str:
    """Return a number of 16 digits, different for each ``number`` below 10 million, and from :data:`NIK`."""
    return str(3_578_990_000_000_000 + number)
