"""The one way this plugin says no."""

from __future__ import annotations

from hardpoint.storage.refusal import DAMAGED, Refusal, show

__all__ = ["DAMAGED", "refuse", "show"]

refuse = Refusal("onnx", "hardpoint-onnx")
