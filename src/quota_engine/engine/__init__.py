"""The public engines: QuotaEngine, AsyncQuotaEngine, their waiting rooms, draws and token buckets.

May import workflows and stores, and everything below them.
"""
