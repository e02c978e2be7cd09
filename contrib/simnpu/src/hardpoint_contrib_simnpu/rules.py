"""The operators of the chip, each with the rule that lowers it."""

from __future__ import annotations

from torch.fx import Node

from hardpoint_contrib_simnpu import rules_matrix, rules_shape, rules_vector
from hardpoint_contrib_simnpu.emitter import Value
from hardpoint_contrib_simnpu.lowering import Lowering, Rule, call_of
from hardpoint_contrib_simnpu.origin import RefusedError

RULES: dict[object, Rule] = {**rules_matrix.RULES, **rules_vector.RULES, **rules_shape.RULES}


def lower_node(low: Lowering, node: Node) -> Value:
    """Emit what computes ``node``, whose operands have values already.

    :raises RefusedError: the chip cannot, with the reason in words.
    """
    rule = RULES.get(node.target)
    if rule is None:
        raise RefusedError(f"{node.target} is not among the chip's operators")
    return rule(low, call_of(node))
