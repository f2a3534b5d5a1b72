"""Dagster: the component that turns a pipeline's YAML into assets, gold, jobs, sensors and the instance."""
