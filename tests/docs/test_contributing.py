"""The policy of CONTRIBUTING.md works in an engine. Its store is ``examples/third_party_store.py``."""

from __future__ import annotations

import re

from tests.support.paths import ROOT


def test_the_policy_decides() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (policy,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    exec(policy, {"__name__": "example"})  # noqa: S102 - our own document
