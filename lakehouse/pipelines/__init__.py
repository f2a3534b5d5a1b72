"""Declarations: one YAML and one contract a table, parsed into one typed object without Dagster."""

from lakehouse.pipelines.load import Pipeline, Problem, find_problems, load_pipelines
from lakehouse.pipelines.model import PipelineSpec
from lakehouse.pipelines.sound import load_sound
from lakehouse.pipelines.taken import name_trouble

__all__ = [
    "Pipeline",
    "PipelineSpec",
    "Problem",
    "find_problems",
    "load_pipelines",
    "load_sound",
    "name_trouble",
]
