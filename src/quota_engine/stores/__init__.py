"""Stores: where ledgers live. Each store implements ``quota_engine.ports`` and applies the rules of ``ledger_kinds``.

Stores may import the ports and everything below them; they import neither workflows nor the engine.
"""
