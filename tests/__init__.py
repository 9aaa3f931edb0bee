"""The tests, as a package: so that they share the oracle and the helpers."""
