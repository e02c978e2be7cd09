"""Partitioners that are wrong on large programs only; with limits that do not take CI a minute."""

from mutants_partitioner import Provider

from hardpoint.testing.partitioner import scales
from hardpoint_partitioners.greedy import CapabilityPartitioner

scales.SECONDS = 1
scales.GIGABYTES = 0.05


class Recursive(CapabilityPartitioner):
    """Walks to the inputs of each node by calling itself."""

    def partition(self, program, targets, objective, costs):
        seen = set()

        def visit(node):
            for used in node.all_input_nodes:
                if used not in seen:
                    seen.add(used)
                    visit(used)

        visit(program.graph.output_node())
        return super().partition(program, targets, objective, costs)


class Spins(CapabilityPartitioner):
    """Compares each node with each other, and those with each other again."""

    def partition(self, program, targets, objective, costs):
        names = [node.name for node in program.graph.nodes]
        sum(a == b == c for a in names for b in names for c in names)
        return super().partition(program, targets, objective, costs)


class Hoards(CapabilityPartitioner):
    """Makes a table of each node against each other."""

    def partition(self, program, targets, objective, costs):
        table = [b"?" * 4 * len(program.graph.nodes) for _ in program.graph.nodes]
        answer = super().partition(program, targets, objective, costs)
        assert len(table) == len(program.graph.nodes)
        return answer


recursive = Provider(Recursive)
spins = Provider(Spins)
hoards = Provider(Hoards)
