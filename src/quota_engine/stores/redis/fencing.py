"""The fence of a ledger as a client sees it, and the sentences for its callers."""

from __future__ import annotations

__all__ = ["Refusal", "Seen", "behind_refusal", "fenced_refusal", "ledger_name"]

import datetime
from typing import Final, NamedTuple

_KINDS: Final = {"~room": "waiting room", "~draw": "draw", "~buckets": "bucket set", "~n": "registry shard"}


class Seen(NamedTuple):
    """The fence of a ledger as a process saw it last.

    Attributes:
        epoch: The fencing epoch, 0 before the ledger exists.
        server: The server's id.
        ends_at_ms: When the ledger ends by itself, 0 if that is not known.
    """

    epoch: int = 0
    server: str = ""
    ends_at_ms: int = 0

    @classmethod
    def of_line(cls, line: str) -> Seen:
        """Return the fence from the last line of a script's reply."""
        epoch, server, ends_at_ms = line.split(":")
        return cls(int(epoch), server, int(ends_at_ms))

    def __str__(self) -> str:
        """Return the same line, for the next call; ``""`` if nothing was seen."""
        return ":".join(map(str, self)) if self.server else ""


class Refusal(NamedTuple):
    """A closed ledger, for its callers.

    Attributes:
        reason: The facts that are known.
        remedy: The next step of the caller.
    """

    reason: str
    remedy: str


def ledger_name(address: str) -> str:
    """Return what a person calls the ledger at an address, such as ``the office surabaya``."""
    prefix, _, rest = address.partition(".")
    return f"the {_KINDS[prefix]} {rest}" if prefix in _KINDS else f"the office {address}"


def fenced_refusal(address: str, error: str, *, needs_operator: bool) -> Refusal:
    """Return why a ledger is closed, from the error ``FENCED`` of ``lua/shared/fence.lua``.

    Args:
        address: The ledger's address.
        error: The error's text.
        needs_operator: True if clients do not open ledgers by themselves.
    """
    _, epoch, since_ms, has_server = error.split()
    name = ledger_name(address)
    if since_ms != "0":
        since = datetime.datetime.fromtimestamp(int(since_ms) / 1000, datetime.UTC)
        reason = f"{name} is closed: another client has been reconciling it since {since:%Y-%m-%d %H:%M:%S} UTC"
        return Refusal(reason, "try again in a moment")
    remedy = f"call reconcile({address!r}) to open it" if needs_operator else "try again in a moment"
    if has_server == "0":
        return Refusal(f"{name} is closed: it was written without a fence, so it must be reconciled once", remedy)
    reason = (
        f"{name} is closed: another server wrote it last (epoch {epoch}), so there was a failover or a restart, "
        "and its last changes may be missing here"
    )
    return Refusal(reason, remedy)


def behind_refusal(address: str, error: str) -> Refusal:
    """Return why a server is not trusted, from the error ``BEHIND`` of ``lua/shared/fence.lua``."""
    _, epoch, seen_epoch, is_known = error.split()
    name = ledger_name(address)
    if is_known == "1":
        return Refusal(
            f"{name} is at epoch {epoch} on this server, and this process has seen it at epoch {seen_epoch}: "
            "the server is an old primary that was cut off, or an older copy was restored",
            f"connect to the present primary, or call reconcile({address!r}) to continue with this copy",
        )
    return Refusal(
        f"this store has no record of {name}, which this process has seen at epoch {seen_epoch}: "
        "the store was wiped, an older copy was restored, or this is another server",
        f"restore the data, or call reconcile({address!r}) to begin again without them",
    )
