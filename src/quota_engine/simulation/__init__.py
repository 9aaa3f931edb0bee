"""The simulator runs a seeded opening against the real engine under a virtual clock. It may import the engine.

A scenario holds every parameter. The supply is the office-days on sale, and the population is the applicants with their
first presses; both are the same for every run of a scenario. Agents decide what an applicant does after an answer.
:mod:`.opening` runs them against an engine, :mod:`.baseline` against a model of the application that the engine
replaces, and :mod:`.agent_opening` adds bots and brokers in front of a policy.

Nothing here reads a clock or draws from an unseeded source, so a seed replays a run.
"""
