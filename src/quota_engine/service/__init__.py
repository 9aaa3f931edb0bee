"""The HTTP service (``quota-engine serve``, extra ``service``): JSON API, pages and event streams over one engine.

:mod:`quota_engine.service.app` puts it together. Nothing else in the package imports this folder, except the CLI.
"""
