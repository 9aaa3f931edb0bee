"""Load a catalog: from a file, from a built-in one, or from raw data."""

from __future__ import annotations

__all__ = ["builtin_names", "catalog_from", "load_catalog"]

import importlib.resources
import os
from typing import Any

from quota_engine.catalog.parsing import SUFFIXES, parse, read_raw
from quota_engine.catalog.resolved import Catalog, resolve
from quota_engine.catalog.schema import CatalogFile
from quota_engine.catalog.schema_conversion import IssueCollector, convert_leniently, format_value
from quota_engine.catalog.validation import validate
from quota_engine.domain.errors import CatalogError

_DATA = importlib.resources.files("quota_engine.catalog") / "data"


def builtin_names() -> tuple[str, ...]:
    """Return the names of the catalogs that come with the package, in alphabetical order."""
    names = (entry.name for entry in _DATA.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def load_catalog(path_or_builtin_name: str | os.PathLike[str]) -> Catalog:
    """Load a catalog from a ``.toml``, ``.json``, ``.yaml`` or ``.yml`` file of at most 8 MiB, or a built-in one.

    A name of :func:`builtin_names` (such as ``"surabaya"``) is the built-in catalog; anything else is a path.

    Raises :class:`CatalogError` with every mistake of the file. Of the mistakes of syntax it is only the first,
    because nothing behind it can be read for certain.
    """
    name = os.fspath(path_or_builtin_name)
    collector = IssueCollector(name)
    if name in builtin_names():
        collector = IssueCollector(f"{name}.toml")
        raw = parse((_DATA / f"{name}.toml").read_bytes(), ".toml", collector)
    elif not name.lower().endswith(SUFFIXES) and not os.path.lexists(name.replace("\0", "")):
        known = builtin_names()
        collector.add(
            "",
            f"no built-in catalog {format_value(name)}",
            f"one of {', '.join(known)}, or a file that ends in {', '.join(SUFFIXES)}{collector.hint(name, known)}",
        )
        raw = None
    else:
        raw = read_raw(name, collector)
    return _checked(raw, collector)


def catalog_from(raw: Any, name: str = "catalog") -> Catalog:
    """Return the catalog of raw data (what ``json.loads`` or ``tomllib.loads`` returns).

    ``name`` stands in the mistakes in place of a file's. Raises :class:`CatalogError` with every mistake.
    """
    return _checked(raw, IssueCollector(name))


def _checked(raw: Any, collector: IssueCollector) -> Catalog:
    if raw is None and collector.issues():
        raise CatalogError(tuple(collector.issues()))
    file = convert_leniently(raw, CatalogFile, collector)
    validate(file, collector)
    if mistakes := collector.issues():
        raise CatalogError(tuple(mistakes))
    return resolve(file)
