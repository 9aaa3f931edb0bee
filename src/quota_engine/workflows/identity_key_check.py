"""The check that a store was first opened with the same identity key."""

from __future__ import annotations

__all__ = ["check_identity_key"]

from quota_engine.domain.errors import WrongIdentityKey
from quota_engine.domain.identity_key import fingerprint_of, source_of
from quota_engine.ports import CheckIdentityKey
from quota_engine.workflows.generator_drivers import Workflow


def check_identity_key(key: bytes, namespace: str = "") -> Workflow[None]:
    """Compare the key with the one that the store was first opened with. The first key of a store is always right.

    Args:
        key: the identity key of this process.
        namespace: the store's namespace, for the error.

    Raises:
        WrongIdentityKey: the store was first opened with another key.
    """
    fingerprint = fingerprint_of(key)
    if (yield CheckIdentityKey(fingerprint)) != fingerprint:
        raise WrongIdentityKey(source_of(key), namespace)
