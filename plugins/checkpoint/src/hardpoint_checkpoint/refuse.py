"""The one way this plugin says no."""

from __future__ import annotations

from hardpoint.storage.refusal import DAMAGED, Refusal, show

__all__ = ["DAMAGED", "NEEDS_MORE", "refuse", "show"]

refuse = Refusal("checkpoint", "hardpoint-checkpoint")

NEEDS_MORE = (
    "only if you trust whoever made the file: load it with torch.load where it can do no harm, and"
    " save its tensors alone, e.g. as safetensors"
)
