"""What is constant in a model, computed when it is compiled and not at each load."""

from __future__ import annotations

from collections.abc import Container, Iterable

import torch

from hardpoint_openvino.origin import compile_error, in_words
from hardpoint_openvino.runtime import ov
from hardpoint_openvino.stored import address

_SMALL = 2**16  # bytes: scales, shapes and the like


def fold(model: ov.Model, weights: Iterable[torch.Tensor]) -> ov.Model:
    """The model with what is constant computed, as OpenVINO else does each time that it compiles.

    Batch norms become part of the weights before them, and the gates of recurrent layers come in
    OpenVINO's order: those weights are others then. All others stay in the program's memory.

    :param weights: the program's. ``model`` itself comes back where constants would grow by more
        than them: a mask is computed sooner than it is read.
    :raises CompileError: OpenVINO cannot compute them.
    """
    from openvino._offline_transformations import apply_moc_transformations

    held = {tensor.data_ptr(): tensor.nbytes for tensor in weights}
    folded: ov.Model = model.clone()
    try:
        apply_moc_transformations(folded, cf=True)
        grown = _own_bytes(folded, held) - _own_bytes(model, held)
    except Exception as error:
        raise compile_error(
            "OpenVINO cannot compute what is constant in the segment",
            cause=in_words(error),
            remedy="switch the option fold off, or leave this target out of targets=",
        ) from error
    return folded if grown <= sum(held.values()) + _SMALL else model


def _own_bytes(model: ov.Model, held: Container[int]) -> int:
    """Bytes of constants that lie at none of these addresses; each address once."""
    constants = [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
    sizes = {address(node): node.get_byte_size() for node in constants}
    return sum(size for at, size in sizes.items() if at not in held)
