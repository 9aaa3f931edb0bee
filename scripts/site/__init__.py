"""The documentation site: ``python -m scripts.site`` stages the pages, generates the reference, and runs Sphinx."""
