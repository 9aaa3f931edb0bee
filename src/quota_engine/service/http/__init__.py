"""HTTP terms: requests, responses, problems, entity tags, server-sent events and endpoints.

May import api_schema; never handlers or the composition root.
"""
