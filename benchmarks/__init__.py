"""Benchmarks. Run one as a module: ``python -m benchmarks.memory``."""
