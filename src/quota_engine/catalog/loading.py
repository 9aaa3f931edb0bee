"""Load a catalog from a file, from a built-in name or from raw data."""

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
    """Return the names of the built-in catalogs, in alphabetical order."""
    names = (entry.name for entry in _DATA.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def load_catalog(path_or_builtin_name: str | os.PathLike[str]) -> Catalog:
    """Load a catalog.

    Args:
        path_or_builtin_name: a name of :func:`builtin_names`, such as ``"surabaya"``, or the path of a ``.toml``,
            ``.json``, ``.yaml`` or ``.yml`` file of at most 8 MiB.

    Raises:
        CatalogError: the file is invalid. The error has all issues of the file, but only the first syntax error,
            because the text after it cannot be read reliably.
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
    """Return the catalog of raw data.

    Args:
        raw: the data as ``json.loads`` or ``tomllib.loads`` returns it.
        name: the name that issues show in place of a file name.

    Raises:
        CatalogError: the data is invalid. The error has all issues.
    """
    return _checked(raw, IssueCollector(name))


def _checked(raw: Any, collector: IssueCollector) -> Catalog:
    if raw is None and collector.issues():
        raise CatalogError(tuple(collector.issues()))
    file = convert_leniently(raw, CatalogFile, collector)
    validate(file, collector)
    if issues := collector.issues():
        raise CatalogError(tuple(issues))
    return resolve(file)
