"""Asset checks by layer: pure functions that look at one table version, and their thin Dagster form."""
