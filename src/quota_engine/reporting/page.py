"""The HTML page of a report: one file without external resources, for light and dark, screen and phone."""

from __future__ import annotations

__all__ = ["page"]

import html
from typing import Final

from quota_engine.reporting.figure import FIGURE_STYLE, READOUT_SCRIPT
from quota_engine.reporting.svg_plot import STYLE
from quota_engine.reporting.svg_ranges import RANGE_STYLE
from quota_engine.reporting.table import TABLE_STYLE

_PAGE_STYLE: Final = (
    ":root{color-scheme:light dark;--page:#fff;--text:#1f2933;--quiet:#5b6875;--line:#dfe4ea;--card:#f5f7f9;"
    "--bad:#b42318;--good:#1a7f4b}"
    "@media(prefers-color-scheme:dark){:root{--page:#14181d;--text:#e6e9ed;--quiet:#a3afbb;--line:#36404b;"
    "--card:#1d232a;--bad:#ff8f85;--good:#6fd3a0}}"
    "*{box-sizing:border-box}body{margin:0 auto;padding:24px 16px 48px;max-width:1080px;background:var(--page);"
    "color:var(--text);font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
    "h1{font-size:1.7rem;line-height:1.2;margin:0 0 4px}h2{font-size:1.2rem;margin:36px 0 12px}p{margin:0 0 12px}"
    ".quiet{color:var(--quiet)}.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:12px;"
    "margin:20px 0}.card{background:var(--card);border-radius:10px;padding:14px 16px}.card h3{font-size:.9rem;"
    "font-weight:500;margin:0 0 6px;color:var(--quiet)}.card b{font-size:1.5rem;line-height:1.25;display:block;"
    "font-variant-numeric:tabular-nums}.card span{font-size:.9rem;color:var(--quiet)}"
    ".good{color:var(--good)}.bad{color:var(--bad)}"
    ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:28px 24px}"
    "figure{margin:0;min-width:0}figcaption{margin:0 0 8px}figcaption b{display:block}svg{display:block;width:100%;"
    "height:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "th,td{padding:5px 8px;text-align:left;border-bottom:1px solid var(--line);font-weight:400;vertical-align:top}"
    "td{text-align:right;white-space:nowrap}thead th{font-weight:600}thead th+th{text-align:right}"
    "tbody th.section{font-weight:600;padding-top:14px}details{margin-top:8px;font-size:.9rem}"
    "summary{cursor:pointer;color:var(--quiet)}.scroll{overflow-x:auto}code{font-size:.9em}"
    "td.quiet{min-width:16em}td.value{text-align:left;white-space:normal;overflow-wrap:anywhere}"
)


def page(title: str, body: str) -> str:
    """Return an HTML file that is also well-formed XML.

    Args:
        title: Title, as text.
        body: Content of the body, as markup. Its plots come from :mod:`.figure`.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{html.escape(title)}</title><style>{_PAGE_STYLE}{STYLE}{FIGURE_STYLE}{RANGE_STYLE}{TABLE_STYLE}</style></head>\n"
        f"<body><main>{body}</main><script>{READOUT_SCRIPT}</script></body></html>\n"
    )
