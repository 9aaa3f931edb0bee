"""``quota-engine reservation``: show and change a single reservation, in a store or through a service.

Identities come from standard input or a prompt without echo. They are in no argument, so in no shell history and no
list of processes, and in no output.
"""

from __future__ import annotations

__all__ = ["app"]

import dataclasses
import datetime
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TextIO

from cyclopts import App, Parameter

from quota_engine.cli.identity_input import read_identities
from quota_engine.cli.output import BAD_FINDING, DONE, AsJson, print_json
from quota_engine.cli.reservation_access import Access, open_access, split_store
from quota_engine.cli.reservation_text import (
    describe_refusal,
    next_step,
    reservation_lines,
    reservation_to_builtins,
    zone_of,
)
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.validation import check_integer

app: Final = App(name="reservation", help="Show, extend, decline, cancel, reschedule and change one reservation.")
_VERSION_MAX: Final = 2**31
_OWNER: Final = "the owner"


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every command that changes a reservation."""

    expected_version: Annotated[
        int, Parameter(help="refuse if it has another version; default: the version that this command reads first.")
    ] = 0
    check_owner: Annotated[
        bool, Parameter(help="read the owner's identity first, and refuse if the owner is not in the party.")
    ] = False
    catalog: Annotated[
        str, Parameter(help="catalog of the store, built-in or a file; default: the variable QUOTA_ENGINE_CATALOG.")
    ] = ""
    config: Annotated[
        pathlib.Path | None,
        Parameter(help="configuration file of the services, with store, catalog and identity key, in place of STORE."),
    ] = None
    token_file: Annotated[
        str, Parameter(help="file with an operator's token, for a service; default: the variable QUOTA_ENGINE_TOKEN.")
    ] = ""
    as_json: Annotated[bool, Parameter(name="--json", help="print the result as JSON, and nothing else.")] = False


_DEFAULTS: Final = Options()


@app.command
def show(
    store: str,
    reference: str = "",
    /,
    *,
    catalog: str = "",
    config: pathlib.Path | None = None,
    token_file: str = "",
    as_json: AsJson = False,
) -> int:
    """Show a reservation: its state, day, queue numbers, deadline, and its place on the wait list.

    Needs no identity key. Exit code 0: found; 1: there is no such reservation; 2: bad usage; 3: no store.

    Example:  quota-engine reservation show sqlite:///quota.db surabaya~9f2c

    Args:
        store: URL of the store, or address of a service; left out with QUOTA_ENGINE_BACKEND or --config.
        reference: reference of the reservation, as its confirmation has it.
        catalog: catalog of the store, for local times; default: the variable QUOTA_ENGINE_CATALOG.
        config: configuration file of the services, in place of STORE.
        token_file: file with an operator's token, for a service; default: the variable QUOTA_ENGINE_TOKEN.
        as_json: print the result as JSON, and nothing else.
    """
    store, reference = split_store(store, reference, config)
    with open_access(store, changes=False, catalog=catalog, config=config, token_file=token_file) as access:
        record = access.methods.lookup(reference)
        if record is None:
            return _report(access, reference, Outcome(Status.NOT_FOUND), as_json=as_json)
        position = access.methods.wait_list_position(reference) if record.state is State.WAITING else None
        moved_to = access.methods.find_moved(reference) if record.state is State.MOVED else ""
    if as_json:
        print_json(reservation_to_builtins(record, access.catalog, position=position, moved_to=moved_to))
    else:
        _write(reservation_lines(record, access.catalog, position=position, moved_to=moved_to))
    return DONE


@app.command
def extend(store: str, reference: str = "", /, *, options: Options = _DEFAULTS) -> int:
    """Give a hold more time, as often as the office allows.

    Exit code 0: done; 1: refused; 2: bad usage; 3: the store or service cannot be reached.

    Example:  quota-engine reservation extend surabaya~9f2c

    Args:
        store: URL of the store, or address of a service; left out with QUOTA_ENGINE_BACKEND or --config.
        reference: reference of the reservation, as its confirmation has it.
    """

    def step(access: Access, record: Reservation, checks: dict[str, Any]) -> Outcome:
        return access.methods.extend(record.reference, record.extensions + 1, **checks)

    return _change(store, reference, options, step)


@app.command
def decline(store: str, reference: str = "", /, *, yes: bool = False, options: Options = _DEFAULTS) -> int:
    """Decline an offer of the wait list. The party keeps its place on the list, and the offer goes to the next one.

    Exit codes as for ``extend``.

    Example:  quota-engine reservation decline surabaya~9f2c --yes

    Args:
        store: URL of the store, or address of a service; left out with QUOTA_ENGINE_BACKEND or --config.
        reference: reference of the reservation, as its confirmation has it.
        yes: decline it; without this the command prints the reservation, and changes nothing.
    """

    def step(access: Access, record: Reservation, checks: dict[str, Any]) -> Outcome:
        return access.methods.decline(record.reference, **checks)

    return _change(store, reference, options, step, yes=yes, loses="the offer")


@app.command
def cancel(store: str, reference: str = "", /, *, yes: bool = False, options: Options = _DEFAULTS) -> int:
    """Cancel a confirmed reservation. Its places go to others, as the rules of the quota say.

    Exit codes as for ``extend``.

    Example:  quota-engine reservation cancel surabaya~9f2c --yes

    Args:
        store: URL of the store, or address of a service; left out with QUOTA_ENGINE_BACKEND or --config.
        reference: reference of the reservation, as its confirmation has it.
        yes: cancel it; without this the command prints the reservation, and changes nothing.
    """

    def step(access: Access, record: Reservation, checks: dict[str, Any]) -> Outcome:
        return access.methods.cancel(record.reference, **checks)

    return _change(store, reference, options, step, yes=yes, loses="the places")


@app.command
def reschedule(
    store: str,
    reference: str = "",
    /,
    *,
    to: str,
    office: str = "",
    service: str | None = None,
    service_unit: str | None = None,
    session: str | None = None,
    channel: str | None = None,
    group: str | None = None,
    options: Options = _DEFAULTS,
) -> int:
    """Move a reservation to another day, session or office. It keeps the old place, or has the new one.

    An operator's move in a store asks no admission policy. The selection stays as it is where no option is
    given. Exit codes as for ``extend``.

    Example:  quota-engine reservation reschedule surabaya~9f2c --to 2026-12-10

    Args:
        store: URL of the store, or address of a service; left out with QUOTA_ENGINE_BACKEND or --config.
        reference: reference of the reservation, as its confirmation has it.
        to: the new day, as an ISO date.
        office: id of the new office.
        service: id of the new service.
        service_unit: id of the new service unit.
        session: id of the new session.
        channel: id of the new channel.
        group: id of the new applicant group.
    """
    day = _date(to)

    def step(access: Access, record: Reservation, checks: dict[str, Any]) -> Outcome:
        old = record.choice
        wanted: dict[str, Any] = {
            "service": old.service if service is None else service,
            "service_unit": old.service_unit if service_unit is None else service_unit,
            "session": old.session if session is None else session,
            "channel": old.channel if channel is None else channel,
            "group": old.group if group is None else group,
        }
        return access.methods.reschedule(record.reference, day, office=office, **wanted, **checks)

    return _change(store, reference, options, step)


@app.command
def remove_member(store: str, reference: str = "", /, *, yes: bool = False, options: Options = _DEFAULTS) -> int:
    """Take one person out of a party. The remaining people keep their places and numbers.

    The identity of the person is one line of standard input, or typed at a prompt that does not show it. With
    --check-owner, the owner's identity is the line before. Exit codes as for ``extend``.

    Example:  quota-engine reservation remove-member surabaya~9f2c --yes < identity.txt

    Args:
        store: URL of the store, or address of a service; left out with QUOTA_ENGINE_BACKEND or --config.
        reference: reference of the reservation, as its confirmation has it.
        yes: remove the person; without this the command prints the reservation, and changes nothing.
    """

    def step(access: Access, record: Reservation, checks: dict[str, Any], leaving: str) -> Outcome:
        return access.methods.remove_applicant(record.reference, leaving, **checks)

    return _change(store, reference, options, step, yes=yes, loses="the person's place", whose=["who leaves"])


@app.command
def replace_member(store: str, reference: str = "", /, *, yes: bool = False, options: Options = _DEFAULTS) -> int:
    """Put another person in the place of one of a party, with their queue number.

    For operators only: offered to applicants, it lets brokers sell places. The identities are two lines of standard
    input, first of the person who leaves, or typed at prompts that do not show them. Exit codes as for ``extend``.

    Example:  quota-engine reservation replace-member surabaya~9f2c --yes < identities.txt

    Args:
        store: URL of the store, or address of a service; left out with QUOTA_ENGINE_BACKEND or --config.
        reference: reference of the reservation, as its confirmation has it.
        yes: replace the person; without this the command prints the reservation, and changes nothing.
    """
    if options.check_owner:
        raise InvalidRequest("--check-owner", "given to replace-member", "the command without it: it is an operator's")

    def step(access: Access, record: Reservation, checks: dict[str, Any], leaving: str, newcomer: str) -> Outcome:
        return access.methods.replace_applicant(record.reference, leaving, newcomer, **checks)

    whose = ["who leaves", "who comes in"]
    return _change(store, reference, options, step, yes=yes, loses="the person's place", whose=whose)


def _change(
    store: str,
    reference: str,
    options: Options,
    step: Callable[..., Outcome],
    *,
    yes: bool = True,
    loses: str = "",
    whose: Sequence[str] = (),
) -> int:
    """Read the reservation, carry out one step, and report it.

    Args:
        store: URL of the store or service, or ``""``.
        reference: the reservation.
        options: the options of the command.
        step: carries out the step with the access, the record, the checks, and the identities.
        yes: false if the operator must agree first.
        loses: what the party loses by the step.
        whose: whose identities the step needs.
    """
    store, reference = split_store(store, reference, options.config)
    check_integer(options.expected_version, "--expected-version", 0, _VERSION_MAX)
    # Without --yes no identity is read: the command only shows the reservation.
    owners = [_OWNER] if options.check_owner and yes else []
    identities = read_identities([*owners, *whose]) if yes else []
    with open_access(
        store, changes=True, catalog=options.catalog, config=options.config, token_file=options.token_file
    ) as access:
        record = access.methods.lookup(reference)
        if record is None:
            return _report(access, reference, Outcome(Status.NOT_FOUND), as_json=options.as_json)
        if not yes:
            _write(reservation_lines(record, access.catalog), stream=sys.stderr)
            raise InvalidRequest("--yes", f"missing: the party would lose {loses}", "--yes, to do it all the same")
        checks: dict[str, Any] = {"expected_version": options.expected_version or record.version}
        if owners:
            checks["owner"] = identities[0]
        outcome = step(access, record, checks, *identities[len(owners) :])
        return _report(access, reference, outcome, as_json=options.as_json)


def _report(access: Access, reference: str, outcome: Outcome, *, as_json: bool) -> int:
    record = outcome.reservation
    if as_json:
        found = None if record is None else reservation_to_builtins(record, access.catalog)
        result = {"ok": outcome.ok, "status": outcome.status, "reservation": found}
        if outcome.retry_at_ms:
            result["retry_at_ms"] = outcome.retry_at_ms
        if not outcome.ok:
            result["next_step"] = next_step(outcome.status)
        print_json(result)
    elif outcome.ok and record is not None:
        _write(reservation_lines(record, access.catalog))
    else:
        _write(describe_refusal(reference, outcome, zone_of(reference.partition("~")[0], access.catalog)))
    return DONE if outcome.ok else BAD_FINDING


def _write(lines: Sequence[str], stream: TextIO | None = None) -> None:
    (stream or sys.stdout).write("\n".join(lines) + "\n")


def _date(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise InvalidRequest("--to", f"{text[:40]!r} is no date", "an ISO date such as 2026-12-14") from None
