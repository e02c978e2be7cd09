"""Load, save and convert weights, over whichever serializer fits the file."""

from hardpoint.weights.choose import open_weights
from hardpoint.weights.content import describe_content
from hardpoint.weights.convert import ConvertReport, convert_weights, save_weights
from hardpoint.weights.load import load_weights
from hardpoint.weights.progress import Progress

__all__ = [
    "ConvertReport",
    "Progress",
    "convert_weights",
    "describe_content",
    "load_weights",
    "open_weights",
    "save_weights",
]
