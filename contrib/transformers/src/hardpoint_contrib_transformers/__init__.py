"""transformers pipelines whose model runs through hardpoint."""

from hardpoint_contrib_transformers.build import pipeline
from hardpoint_contrib_transformers.compiled import CompiledPipeline
from hardpoint_contrib_transformers.saved import load

__all__ = ["CompiledPipeline", "load", "pipeline"]
