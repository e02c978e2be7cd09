"""Partitioners with one flaw each: what they say of their objectives, and make of costs."""

from mutants_partitioner import Cheapest, Provider

from hardpoint import Assignment, PlanError
from hardpoint.planning import compute_nodes
from hardpoint_partitioners.greedy import CapabilityPartitioner


class LatencyOnly(CapabilityPartitioner):
    def partition(self, program, targets, objective, costs):
        if objective != "latency":
            raise PlanError(f"there is nothing to do for {objective}")
        return super().partition(program, targets, objective, costs)


class NeedsCosts(CapabilityPartitioner):
    def partition(self, program, targets, objective, costs):
        answer = super().partition(program, targets, objective, costs)
        for node in compute_nodes(program):
            costs.node_seconds(node, answer.targets[node.name])
        return answer


class ForgetsTransfers(Cheapest):
    def partition(self, program, targets, objective, costs):
        if costs.node_seconds is None:
            return super().partition(program, targets, objective, costs)
        return Assignment(
            {
                node.name: min(
                    (i.target for i in targets if node.name in i.support.supported),
                    key=lambda target, node=node: costs.node_seconds(node, target),
                )
                for node in compute_nodes(program)
            }
        )


latency_only = Provider(LatencyOnly)
declares_too_little = Provider(CapabilityPartitioner, objectives=("latency",))
declares_the_unknown = Provider(CapabilityPartitioner, objectives=("latency", "beauty"))
needs_costs = Provider(NeedsCosts)
claims_costs = Provider(CapabilityPartitioner, uses_costs=True)
forgets_transfers = Provider(ForgetsTransfers, uses_costs=True)
