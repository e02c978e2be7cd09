"""What ONNX Runtime would fuse, were it written as its optimizers know it.

They make one operator of an RMS norm that divides by the root; the exporter multiplies by its
reciprocal, and then they leave six. A decoder spends a tenth of a step in them.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from hardpoint_onnxruntime.constants import replace


def fusible(model: Any) -> None:
    """Change ``model`` in place: a product with a root's reciprocal is a quotient by the root.

    It is rounded once, and before it was rounded twice.
    """
    for node in list(model.graph):
        if node.op_type != "Mul" or node.domain:
            continue
        for value, factor in (node.inputs, node.inputs[::-1]):
            root = _root_under(factor)
            if root is not None and value is not factor:
                _divide(model.graph, node, value, root)
                break


def _root_under(value: Any) -> Any:
    """The root that ``value`` is the reciprocal of; ``None``: it is no such thing."""
    found = value
    for kind in ("Reciprocal", "Sqrt"):
        node = found.producer()
        if node is None or node.op_type != kind or node.domain:
            return None
        root, found = found, node.inputs[0]
    return root


def _divide(graph: Any, product: Any, value: Any, root: Any) -> None:
    """``value / root`` in the place of ``product``."""
    quotient = ir.node("Div", [value, root], name=f"{product.name}_by_root")
    quotient.meta.update(product.meta)
    replace(graph, product, [quotient], quotient.outputs)
