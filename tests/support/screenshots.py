"""Take the documents' pictures of the pages: ``python -m tests.support.screenshots [FOLDER]``.

The browser tests take them, so a picture shows a page that has passed its test.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.browser import PICTURES
from tests.support.paths import ROOT

if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    tests = [
        str(ROOT / "tests" / "service" / "pages" / name)
        for name in ("test_browser_pages.py", "operator/test_browser.py")
    ]
    chosen = "accessible"
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *tests)
    raise SystemExit(subprocess.run(command, env={**os.environ, PICTURES: str(folder)}, check=False).returncode)
