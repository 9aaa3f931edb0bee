"""quota_engine."""
