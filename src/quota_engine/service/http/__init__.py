"""HTTP as every endpoint uses it: requests, responses, problems, tokens, routing, event streams and load shedding.

May import api_schema, the engine's types and the service's observability package; never the context or the handlers.
"""
