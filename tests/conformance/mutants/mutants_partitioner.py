"""Partitioners with one flaw each; they derive from the first-party one, or from `Cheapest`."""

import random

import torch

from hardpoint import Assignment, Partitioner, PartitionerInfo, PlanError, Probe, Target, hookimpl
from hardpoint.planning import compute_nodes
from hardpoint_partitioners.greedy import CapabilityPartitioner
from hardpoint_partitioners.memory import Memory


class Provider:
    """The hooks."""

    def __init__(self, partitioner, **facts):
        self.partitioner = partitioner
        self.facts = {
            "summary": "a mutant",
            "objectives": ("latency", "throughput", "size", "memory"),
            **facts,
        }

    @hookimpl
    def hardpoint_partitioner_info(self):
        return PartitionerInfo(requires_api=(1, 0), **self.facts)

    @hookimpl
    def hardpoint_partitioner_probe(self, request):
        return Probe.ready()

    @hookimpl
    def hardpoint_partitioner_open(self, config):
        return self.partitioner()


def answering(change):
    """A provider that gives `change(targets, reasons, question)` for a correct answer.

    The question is (program, targets).
    """

    class Changed(CapabilityPartitioner):
        def partition(self, program, targets, objective, costs):
            answer = super().partition(program, targets, objective, costs)
            return change(dict(answer.targets), dict(answer.reasons), (program, targets))

    return Provider(Changed)


# --- a correct one that uses costs


class Cheapest(Partitioner):
    """The cheapest of: first fit, and all on each single target that can take it."""

    def partition(self, program, targets, objective, costs):
        mixed = CapabilityPartitioner().partition(program, targets, objective, costs)
        if costs.node_seconds is None:
            return mixed
        best = min(
            [mixed.targets, *self.singles(program, targets)],
            key=lambda placed: self.seconds(program, placed, costs, objective),
        )
        return mixed if best is mixed.targets else Assignment(best)

    def singles(self, program, targets):
        for info in targets:
            try:
                alone = CapabilityPartitioner().partition(program, [info], "latency", None)
            except PlanError:
                continue
            yield alone.targets

    def seconds(self, program, placed, costs, objective):
        busy = dict.fromkeys(placed.values(), 0.0)
        for node in compute_nodes(program):
            home = placed[node.name]
            busy[home] += costs.node_seconds(node, home)
            for used in node.all_input_nodes:
                if used.name in placed and placed[used.name] != home:
                    busy[home] += self.transfer(used, placed[used.name], home, costs)
        return max(busy.values()) if objective == "throughput" else sum(busy.values())

    def transfer(self, value, source, home, costs):
        if costs.transfer_seconds is None or not isinstance(value.meta["val"], torch.Tensor):
            return 0.0
        return costs.transfer_seconds(value.meta["val"].nbytes, source, home)


cheapest = Provider(Cheapest, uses_costs=True)


# --- invalid answers


def _all_on_the_first(placed, reasons, question):
    return Assignment(dict.fromkeys(placed, question[1][0].target))


class Breaks(CapabilityPartitioner):
    def partition(self, program, targets, objective, costs):
        return {}["node"]


forgets_one = answering(
    lambda placed, reasons, question: Assignment(dict(list(placed.items())[:-1]))
)
assigns_inputs = answering(
    lambda placed, reasons, question: Assignment({**placed, "x": question[1][0].target})
)
ignores_support = answering(_all_on_the_first)
invents_a_target = answering(
    lambda placed, reasons, question: Assignment(dict.fromkeys(placed, Target("tpu")))
)
returns_a_dict = answering(lambda placed, reasons, question: placed)
breaks = Provider(Breaks)
explains_inputs = answering(
    lambda placed, reasons, question: Assignment(placed, {"p_weight": "it is a weight"})
)
explains_nothing = answering(
    lambda placed, reasons, question: Assignment(placed, dict.fromkeys(placed, ""))
)


# --- changes what it is asked about


def _annotates(placed, reasons, question):
    for node in compute_nodes(question[0]):
        node.meta["target"] = placed[node.name]
    return Assignment(placed, reasons)


class SortsTargets(CapabilityPartitioner):
    def partition(self, program, targets, objective, costs):
        targets.sort(key=lambda info: info.target)
        return super().partition(program, targets, objective, costs)


class Rewrites(CapabilityPartitioner):
    """Fuses what it thinks is the same."""

    def partition(self, program, targets, objective, costs):
        answer = super().partition(program, targets, objective, costs)
        for node in compute_nodes(program):
            if node.target is torch.ops.aten.relu.default:
                node.target = torch.ops.aten.sigmoid.default
        program.graph_module.recompile()
        return answer


annotates = answering(_annotates)
sorts_targets = Provider(SortsTargets)
rewrites = Provider(Rewrites)


# --- refusals


class NeverRefuses(CapabilityPartitioner):
    def partition(self, program, targets, objective, costs):
        try:
            return super().partition(program, targets, objective, costs)
        except PlanError:
            nodes = compute_nodes(program)
            return Assignment({node.name: targets[-1].target for node in nodes} if targets else {})


class RefusesNamelessly(CapabilityPartitioner):
    def partition(self, program, targets, objective, costs):
        try:
            return super().partition(program, targets, objective, costs)
        except PlanError as error:
            raise PlanError("it is not possible") from error


class RefusesRaw(CapabilityPartitioner):
    def partition(self, program, targets, objective, costs):
        try:
            return super().partition(program, targets, objective, costs)
        except PlanError as error:
            raise StopIteration from error


never_refuses = Provider(NeverRefuses)
refuses_namelessly = Provider(RefusesNamelessly)
refuses_raw = Provider(RefusesRaw)


# --- not the same each time


class Draws(CapabilityPartitioner):
    def partition(self, program, targets, objective, costs):
        shuffled = random.sample(list(targets), len(targets))
        return super().partition(program, shuffled, objective, costs)


class Remembers(CapabilityPartitioner):
    """Spreads the load: begins with the next target each time."""

    turn = 0

    def partition(self, program, targets, objective, costs):
        Remembers.turn += 1
        at = Remembers.turn % len(targets)
        return super().partition(program, [*targets[at:], *targets[:at]], objective, costs)


class ByHash(CapabilityPartitioner):
    """Goes through a set."""

    def partition(self, program, targets, objective, costs):
        known = {str(info.target): info for info in targets}
        order = [known[name] for name in set(known)]
        return super().partition(program, order, objective, costs)


draws = Provider(Draws)
remembers = Provider(Remembers)
by_hash = Provider(ByHash)


# --- memory


class IgnoresMemory(CapabilityPartitioner):
    def partition(self, program, targets, objective, costs):
        lack, Memory.lack = Memory.lack, lambda self, node, target: ""
        try:
            return super().partition(program, targets, objective, costs)
        finally:
            Memory.lack = lack


class CountsTwice(CapabilityPartitioner):
    """Counts a weight for each node that uses it."""

    def partition(self, program, targets, objective, costs):
        of = Memory._of
        Memory._of = lambda self, node: {(key, node): size for key, size in of(self, node).items()}
        try:
            return super().partition(program, targets, objective, costs)
        finally:
            Memory._of = of


ignores_memory = Provider(IgnoresMemory)
counts_twice = Provider(CountsTwice)
