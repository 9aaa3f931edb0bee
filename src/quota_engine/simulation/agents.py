"""What applicants do after an answer, and how long they take: the same behaviour before either application."""

from __future__ import annotations

__all__ = ["Agents", "Next"]

import enum
from array import array
from typing import Final

from quota_engine.simulation.arrivals import Kind, Population
from quota_engine.simulation.rng import TABLE_BITS, lognormal_table, stream
from quota_engine.simulation.scenario import AgentTraits, Arrivals

_UNDRAWN: Final = -(2**62)

# Attributes of an enum cost more than the decisions they are compared in, a million times.
_REFRESHER: Final = int(Kind.REFRESHER)
_RECORDED: Final = int(Kind.RECORDED)


class Next(enum.IntEnum):
    """What an applicant does who was refused."""

    PRESS = 0
    WAIT = 1
    ACCEPT = 2


_ACCEPT: Final = (Next.ACCEPT, 0)


class Agents:
    """The applicants' decisions. Each kind of decision draws from a stream of its own.

    Delays are in microseconds, counted from the moment at which the answer reached the applicant.
    """

    def __init__(self, traits: AgentTraits, arrivals: Arrivals, population: Population) -> None:
        seed = population.seed
        self._traits = traits
        self._kind = population.kind
        self._later = {index: list(reversed(presses)) for index, presses in population.later_presses_us.items()}
        self._patience_until_us = array("q", [_UNDRAWN]) * len(population)
        # 0: has not decided yet; n: will look again n - 1 more times.
        self._looks = bytearray(len(population))
        self._reaction_us = lognormal_table(round(arrivals.reaction_s_median * 1e6), arrivals.reaction_sigma)
        self._form_us = lognormal_table(round(traits.form_s_median * 1e6), traits.form_sigma)
        self._relogin_us = lognormal_table(round(traits.relogin_s_median * 1e6), 0.5)
        self._look_again_us = lognormal_table(round(traits.look_again_s_median * 1e6), 0.5)
        self._reaction_bits = stream(seed, "agents/reaction").getrandbits
        self._form_bits = stream(seed, "agents/form").getrandbits
        self._pause = stream(seed, "agents/pause").random
        self._choice = stream(seed, "agents/choice").random
        self._fate = stream(seed, "agents/fate").random
        self._patience = stream(seed, "agents/patience").expovariate

    def reaction_us(self) -> int:
        """From seeing that something can be done to doing it."""
        return self._reaction_us[self._reaction_bits(TABLE_BITS)]

    def form_us(self) -> int:
        """How long the form takes."""
        return self._form_us[self._form_bits(TABLE_BITS)]

    def pause_us(self, mean_s: float) -> int:
        """Half to one and a half times ``mean_s``."""
        return int((0.5 + self._pause()) * mean_s * 1_000_000)

    def crash_us(self) -> int | None:
        """If the client crashes while this form is filled in: after how long the applicant is back, logged in again."""
        if self._fate() >= self._traits.crash_share:
            return None
        return int(self.form_us() * self._pause()) + self._relogin_us[self._form_bits(TABLE_BITS)]

    def abandons(self) -> bool:
        """Whether the form is never sent."""
        return self._fate() < self._traits.abandon_share

    def wait_patience_us(self) -> int:
        """How long somebody stays on the wait list."""
        mean_s = self._traits.wait_patience_s_mean
        return int(self._patience(1 / mean_s) * 1_000_000) if mean_s else 0

    def after_not_open_us(self, index: int, now_us: int, opens_us: int) -> int:
        """When somebody who came too early presses again; the answer said when it opens."""
        later = self._later.get(index)
        if later:
            return self._recorded_us(later, now_us)
        if self._kind[index] == _REFRESHER:
            return self.pause_us(self._traits.refresh_s_mean)
        return max(opens_us - now_us, 0) + self.reaction_us()

    def after_refusal(self, index: int, now_us: int) -> tuple[Next, int]:
        """What somebody does who was told that all is gone, and after which delay."""
        kind = self._kind[index]
        if kind == _RECORDED:
            later = self._later.get(index)
            return (Next.PRESS, self._recorded_us(later, now_us)) if later else _ACCEPT
        if kind == _REFRESHER and now_us < self._patient_until_us(index, now_us):
            return Next.PRESS, self.pause_us(self._traits.refresh_s_mean)
        looks = self._looks[index]
        if looks == 0:
            draw = self._choice()
            if draw < self._traits.wait_share:
                self._looks[index] = 1
                return Next.WAIT, self.reaction_us()
            if draw >= self._traits.wait_share + self._traits.look_again_share:
                return _ACCEPT
            looks = self._traits.look_again_max + 1
        if looks == 1:
            return _ACCEPT
        self._looks[index] = looks - 1
        return Next.PRESS, self._look_again_us[self._reaction_bits(TABLE_BITS)]

    def _patient_until_us(self, index: int, now_us: int) -> int:
        until_us = self._patience_until_us[index]
        if until_us == _UNDRAWN:
            mean_s = self._traits.patience_s_mean
            until_us = now_us + (int(self._patience(1 / mean_s) * 1_000_000) if mean_s else 0)
            self._patience_until_us[index] = until_us
        return until_us

    @staticmethod
    def _recorded_us(later: list[int], now_us: int) -> int:
        """The next recorded press; those that the answer came too late for are one press, at once."""
        press_us = later.pop()
        while later and later[-1] <= now_us:
            press_us = later.pop()
        return max(press_us - now_us, 0)
