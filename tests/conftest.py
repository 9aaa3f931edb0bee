"""Settings for all tests: Hypothesis repeats itself exactly unless it is asked for a long search."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

# Without the phase "explain": its notes are longer than the list of commands that a failure prints.
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
# A walk is large by nature; seeds cut failures down better than Hypothesis does, so its size costs nothing.
_LARGE_IS_FINE = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)

# No deadline: a time limit measures the machine that runs the tests, not the code.
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=150,
    phases=_PHASES,
    report_multiple_bugs=False,
    suppress_health_check=_LARGE_IS_FINE,
)
settings.register_profile(
    "long",
    derandomize=False,
    deadline=None,
    max_examples=5_000,
    phases=_PHASES,
    print_blob=True,
    suppress_health_check=_LARGE_IS_FINE,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
