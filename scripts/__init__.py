"""Checks of the repository that need nothing but the standard library."""
