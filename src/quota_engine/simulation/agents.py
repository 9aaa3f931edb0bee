"""Decisions of applicants after an answer, and the time they take: the same for the engine and the baseline."""

from __future__ import annotations

__all__ = ["Agents", "NextAction"]

import enum
from array import array
from typing import Final

from quota_engine.simulation.arrivals import ArrivalKind, Population
from quota_engine.simulation.rng import TABLE_BITS, lognormal_table, stream
from quota_engine.simulation.scenario import AgentTraits, Arrivals

_UNDRAWN: Final = -(2**62)

# These are compared a million times, and the attribute of an enum costs more than the comparison.
_REFRESHER: Final = int(ArrivalKind.REFRESHER)
_RECORDED: Final = int(ArrivalKind.RECORDED)


class NextAction(enum.IntEnum):
    """Next action of an applicant who was refused."""

    PRESS = 0
    JOIN_WAIT_LIST = 1
    ACCEPT = 2


_ACCEPT: Final = (NextAction.ACCEPT, 0)


class Agents:
    """Decisions of all applicants. Each kind of decision draws from its own stream.

    Delays are in microseconds from the moment at which the answer reaches the applicant.
    """

    def __init__(self, traits: AgentTraits, arrivals: Arrivals, population: Population) -> None:
        seed = population.seed
        self._traits = traits
        self._kind = population.kind
        self._later = {index: list(reversed(presses)) for index, presses in population.later_presses_us.items()}
        self._patience_until_us = array("q", [_UNDRAWN]) * len(population)
        # 0: not decided yet; n: n - 1 retries are left.
        self._retries_left = bytearray(len(population))
        self._reaction_us = lognormal_table(round(arrivals.reaction_s_median * 1e6), arrivals.reaction_sigma)
        self._form_us = lognormal_table(round(traits.form_s_median * 1e6), traits.form_sigma)
        self._relogin_us = lognormal_table(round(traits.relogin_s_median * 1e6), 0.5)
        self._retry_us = lognormal_table(round(traits.retry_s_median * 1e6), 0.5)
        self._reaction_bits = stream(seed, "agents/reaction").getrandbits
        self._form_bits = stream(seed, "agents/form").getrandbits
        self._pause_draw = stream(seed, "agents/pause").random
        self._refusal_draw = stream(seed, "agents/choice").random
        self._share_draw = stream(seed, "agents/fate").random
        self._decline_draw = stream(seed, "agents/decline").random
        self._patience = stream(seed, "agents/patience").expovariate

    def reaction_us(self) -> int:
        """Return the time from an answer to the next press."""
        return self._reaction_us[self._reaction_bits(TABLE_BITS)]

    def form_us(self) -> int:
        """Return the time that the form takes."""
        return self._form_us[self._form_bits(TABLE_BITS)]

    def pause_us(self, mean_s: float) -> int:
        """Return a random time of half to one and a half times ``mean_s`` seconds."""
        return int((0.5 + self._pause_draw()) * mean_s * 1_000_000)

    def crash_us(self) -> int | None:
        """Return the time until an applicant is back after a crash, or ``None`` if the client does not crash."""
        if self._share_draw() >= self._traits.crash_share:
            return None
        return int(self.form_us() * self._pause_draw()) + self._relogin_us[self._form_bits(TABLE_BITS)]

    def abandons(self) -> bool:
        """Return True if the applicant never submits the form."""
        return self._share_draw() < self._traits.abandon_share

    def declines(self) -> bool:
        """Return True if an applicant declines an offer of the wait list."""
        share = self._traits.decline_share
        return share > 0 and self._decline_draw() < share

    def wait_patience_us(self) -> int:
        """Return the time for which an applicant stays on the wait list."""
        mean_s = self._traits.wait_list_patience_s_mean
        return int(self._patience(1 / mean_s) * 1_000_000) if mean_s else 0

    def delay_until_open_us(self, index: int, now_us: int, opens_us: int) -> int:
        """Return the delay of an applicant whose request came before the opening.

        Args:
            index: The applicant.
            now_us: Moment at which the answer arrives.
            opens_us: Moment of the opening, which the answer names.
        """
        later = self._later.get(index)
        if later:
            return self._recorded_us(later, now_us)
        if self._kind[index] == _REFRESHER:
            return self.pause_us(self._traits.refresh_s_mean)
        return max(opens_us - now_us, 0) + self.reaction_us()

    def after_refusal(self, index: int, now_us: int) -> tuple[NextAction, int]:
        """Return the next action of an applicant after a sold-out answer, and its delay."""
        kind = self._kind[index]
        if kind == _RECORDED:
            later = self._later.get(index)
            return (NextAction.PRESS, self._recorded_us(later, now_us)) if later else _ACCEPT
        if kind == _REFRESHER and now_us < self._patient_until_us(index, now_us):
            return NextAction.PRESS, self.pause_us(self._traits.refresh_s_mean)
        retries_left = self._retries_left[index]
        if retries_left == 0:
            draw = self._refusal_draw()
            if draw < self._traits.wait_list_share:
                self._retries_left[index] = 1
                return NextAction.JOIN_WAIT_LIST, self.reaction_us()
            if draw >= self._traits.wait_list_share + self._traits.retry_share:
                return _ACCEPT
            retries_left = self._traits.retries_max + 1
        if retries_left == 1:
            return _ACCEPT
        self._retries_left[index] = retries_left - 1
        return NextAction.PRESS, self._retry_us[self._reaction_bits(TABLE_BITS)]

    def _patient_until_us(self, index: int, now_us: int) -> int:
        until_us = self._patience_until_us[index]
        if until_us == _UNDRAWN:
            mean_s = self._traits.patience_s_mean
            until_us = now_us + (int(self._patience(1 / mean_s) * 1_000_000) if mean_s else 0)
            self._patience_until_us[index] = until_us
        return until_us

    @staticmethod
    def _recorded_us(later: list[int], now_us: int) -> int:
        """Return the delay to the next recorded press. Presses before the answer count as one press, at once."""
        press_us = later.pop()
        while later and later[-1] <= now_us:
            press_us = later.pop()
        return max(press_us - now_us, 0)
