"""Load, save, convert and compare weights, over whichever serializer fits the file."""

from hardpoint.weights.choose import open_weights
from hardpoint.weights.content import describe_content
from hardpoint.weights.convert import ConvertReport, convert_weights, save_weights
from hardpoint.weights.diff import TensorDiff, WeightsDiff, diff_weights
from hardpoint.weights.load import load_weights
from hardpoint.weights.progress import Progress

__all__ = [
    "ConvertReport",
    "Progress",
    "TensorDiff",
    "WeightsDiff",
    "convert_weights",
    "describe_content",
    "diff_weights",
    "load_weights",
    "open_weights",
    "save_weights",
]
