"""Backends with one flaw each in what they claim, and in what they make of whole models."""

from dataclasses import replace

import torch
from mutants_backend import Flawed, Provider, Wrapped, flawed

from hardpoint import CompileError, Support
from hardpoint.planning import compute_nodes


class Scales(Flawed):
    """Some results are a half too large."""

    def spoil(self, inputs, results):
        return tuple(r * 1.5 if r.is_floating_point() else r for r in results)


class FrozenState(Flawed):
    """Keeps the larger inputs of its first call: a cache that never changes."""

    first = None

    def __call__(self, *inputs):
        if self.first is None:
            self.first = [t.clone() for t in inputs]
        kept = [f if t.dim() == 4 else t for f, t in zip(self.first, inputs, strict=True)]
        return self.correct(*kept)


class Marks(Wrapped):
    """Spoils the segments that `marked` picks out."""

    spoiled = Scales

    def marked(self, program):
        raise NotImplementedError

    def compile(self, program, device, options):
        made = super().compile(program, device, options)
        return replace(made, metadata={**made.metadata, "marked": self.marked(program)})

    def load(self, artifact, device):
        made = super().load(artifact, device)
        return self.spoiled(made) if artifact.metadata["marked"] else made


def wrong_with(*operators):
    """A provider that is wrong where a segment has all these operators."""

    class Mutant(Marks):
        def marked(self, program):
            names = {str(n.target) for n in compute_nodes(program)}
            return all(any(operator in name for name in names) for operator in operators)

    return Provider(Mutant)


class WrongWithManyWeights(Marks):
    def marked(self, program):
        return sum(t.numel() for t in program.state_dict.values()) > 1_000_000


class WrongInPieces(Marks):
    """Right as long as it gets the whole program that it was asked about."""

    whole = 0

    def support(self, program, device):
        type(self).whole = len(compute_nodes(program))
        return super().support(program, device)

    def marked(self, program):
        return len(compute_nodes(program)) < self.whole


class ChangesItsMind(Wrapped):
    """Leaves out other nodes whenever it is asked."""

    asked = 0

    def support(self, program, device):
        type(self).asked += 1
        names = [n.name for n in compute_nodes(program)]
        claimed = frozenset(names[self.asked :])
        return Support(claimed, {n: "not this time" for n in names if n not in claimed})


class GivesNoReason(Wrapped):
    def support(self, program, device):
        names = [n.name for n in compute_nodes(program)]
        return Support(frozenset(names[1:]), {names[0]: " "})


class ForgetsNodes(Wrapped):
    def support(self, program, device):
        names = [n.name for n in compute_nodes(program)]
        return Support(frozenset(names[:-1]))


class RewritesPrograms(Wrapped):
    """Puts operators of its own into the program that it is asked about."""

    def support(self, program, device):
        relu, tanh = torch.ops.aten.relu.default, torch.ops.aten.tanh.default
        for node in program.graph.nodes:
            if node.target in (relu, tanh):
                node.target = tanh if node.target is relu else relu
        return super().support(program, device)


class CompilesNoSingles(Wrapped):
    """Claims all, and compiles nothing that is a node alone."""

    def compile(self, program, device, options):
        if len(compute_nodes(program)) == 1:
            raise CompileError("a single node is too small for it")
        return super().compile(program, device, options)


class ReturnsElsewhere(Flawed):
    def spoil(self, inputs, results):
        return tuple(r.to("meta") for r in results)


wrong_convolution = wrong_with("max_pool2d")
wrong_encoder = wrong_with("embedding", "gelu")
wrong_mixture = wrong_with("topk")
wrong_diffusion = wrong_with("group_norm")
wrong_recurrent = wrong_with("lstm")
wrong_sentences = Provider(WrongWithManyWeights)
frozen_state = flawed(FrozenState)
wrong_in_pieces = Provider(WrongInPieces)
changes_its_mind = Provider(ChangesItsMind)
gives_no_reason = Provider(GivesNoReason)
rewrites_programs = Provider(RewritesPrograms)
forgets_nodes = Provider(ForgetsNodes)
compiles_no_singles = Provider(CompilesNoSingles)
returns_elsewhere = flawed(ReturnsElsewhere)
silent_fallback = Provider(Wrapped, cpu_kernels=False)
