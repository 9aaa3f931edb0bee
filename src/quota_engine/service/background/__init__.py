"""Work that the service does on its own: publish days, create waiting rooms, write the files of draws.

May import the engine and the service's http package; never the context or the handlers.
"""
