"""Load, save, convert, cut, merge and compare weights, over whichever serializer fits the file."""

from hardpoint.weights.choose import open_weights
from hardpoint.weights.content import describe_content
from hardpoint.weights.convert import ConvertReport, convert_weights, save_weights
from hardpoint.weights.diff import TensorDiff, WeightsDiff, diff_weights
from hardpoint.weights.load import load_weights
from hardpoint.weights.merge import MergeReport, merge_weights
from hardpoint.weights.parts import Choice, parse_index
from hardpoint.weights.progress import Progress
from hardpoint.weights.slicing import slice_weights

__all__ = [
    "Choice",
    "ConvertReport",
    "MergeReport",
    "Progress",
    "TensorDiff",
    "WeightsDiff",
    "convert_weights",
    "describe_content",
    "diff_weights",
    "load_weights",
    "merge_weights",
    "open_weights",
    "parse_index",
    "save_weights",
    "slice_weights",
]
