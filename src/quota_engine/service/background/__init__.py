"""Background tasks of the service: publishing days, supervising waiting rooms, preparing draw files.

May import the engine and the service's http package; never handlers.
"""
