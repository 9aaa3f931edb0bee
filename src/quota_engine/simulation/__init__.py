"""The simulator: a seeded opening, run against the real engine under a virtual clock.

A **scenario** (:mod:`.scenario`) holds every parameter. The **market** (:mod:`.market`) is what is on sale, and the
**population** (:mod:`.arrivals`, :mod:`.trace`) who presses when; both are the same for every run of a scenario. The
**agents** (:mod:`.agents`) decide what an applicant does after an answer. :mod:`.spike` runs them against an engine,
:mod:`.old_application` against a model of the application that the engine replaces. A **result** (:mod:`.result`)
holds what came of it.

Nothing here reads a clock or draws from an unseeded source: a seed replays a whole evening.
"""
