"""Guards of a day: quotas that every matching booking consumes, in addition to the quotas that its caller names.

The day's terms say which bookings a guard counts. So a booking consumes the guards of its day even if its caller has
another catalog. A reservation is stored with a *complete* choice: the matching guards are the last quotas of each
option, in the order of the day's quotas.
"""

from __future__ import annotations

__all__ = ["complete_choice", "is_same_choice", "matching_guards", "rewrite_choice", "rewrite_option"]

from collections.abc import Mapping

from msgspec.structs import replace

from quota_engine.domain.model import Choice, GuardScope


def matching_guards(guards: Mapping[str, GuardScope], choice: Choice) -> tuple[str, ...]:
    """Return the guards that count bookings of this choice.

    Args:
        guards: the scope of each guard of the day, in the order of the day's quotas.
        choice: the choice.
    """
    return tuple(
        name
        for name, scope in guards.items()
        if scope.service in ("", choice.service)
        and scope.service_unit in ("", choice.service_unit)
        and scope.session in ("", choice.session)
    )


def complete_choice(guards: Mapping[str, GuardScope], choice: Choice) -> Choice:
    """Return the choice with all guards that count it; itself if it is complete. Arguments as above."""
    return rewrite_choice({}, guards, choice)


def is_same_choice(guards: Mapping[str, GuardScope], stored: Choice, given: Choice) -> bool:
    """Return True if a reservation's choice is the given one, with or without the guards that count it."""
    return stored == given or stored == complete_choice(guards, given)


def rewrite_choice(renamed: Mapping[str, str], guards: Mapping[str, GuardScope], choice: Choice) -> Choice:
    """Return the choice with new names of quotas, and then with all guards that count it. Equal options become one.

    Args:
        renamed: new names of quotas by their old ones.
        guards: as for :func:`matching_guards`, with the new names.
        choice: the choice; returned itself if nothing changes.
    """
    matching = matching_guards(guards, choice)
    if not renamed and (not matching or all(option[-len(matching) :] == matching for option in choice.options)):
        return choice
    options = tuple(dict.fromkeys(rewrite_option(renamed, matching, option) for option in choice.options))
    return choice if options == choice.options else replace(choice, options=options)


def rewrite_option(renamed: Mapping[str, str], matching: tuple[str, ...], option: tuple[str, ...]) -> tuple[str, ...]:
    """Return one option with new names, each once, and with the ``matching`` guards at its end."""
    names = dict.fromkeys(renamed.get(name, name) for name in option)
    return (*(name for name in names if name not in matching), *matching)
