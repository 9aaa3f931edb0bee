"""Pages for citizens: choose a day, wait, register, and manage the registration.

May import the parent package, the service's context and its ``http`` package; never the operators' pages.
"""
