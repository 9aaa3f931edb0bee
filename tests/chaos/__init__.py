"""Faults of real servers, networks and clients under load: ``make chaos`` runs all, the tests a few."""
