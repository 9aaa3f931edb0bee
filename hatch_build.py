"""Make the description for the package index from ``README.md``: without pictures, and without relative links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


def description(readme: str) -> str:
    """Return a README whose links all work outside the repository.

    A package index has no files of the repository, so a relative link keeps only its text, and pictures go.

    Args:
        readme: the README in Markdown.
    """
    text = re.sub(r"^(?:!\[[^\]]*\]\([^)]*\)|<img [^>]*>)\n", "", readme, flags=re.MULTILINE)
    text = re.sub(r"^The picture shows .*?\n\n", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^## The pages\n.*?(?=^## )", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)
    return re.sub(r"\n{3,}", "\n\n", text)


class ReadmeHook(MetadataHookInterface):
    """Sets the dynamic field ``readme``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the description."""
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": description(readme)}
