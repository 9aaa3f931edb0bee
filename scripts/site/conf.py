"""Settings of Sphinx for the documentation site. ``scripts/site/build.py`` prepares the source folder."""

from __future__ import annotations

from pathlib import Path

import quota_engine

project = "quota_engine"
author = "The quota_engine developers"
project_copyright = author
version = release = quota_engine.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}

smartquotes = False  # Quotes are as their author typed them, and the build is faster.

# Headings get the anchors that Markdown viewers give them, because pages link to these.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
# Figures and comments of the pages are HTML; tables of reference pages are wide.
suppress_warnings = ["myst.header"]

toc_object_entries = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# Strict for pages, headings and downloads. Types of other projects and of private modules have no page here.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r".*")]

html_theme = "furo"
html_title = f"quota_engine {release}"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
# No figure, font or script from another host: the site must read without a network.
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}
