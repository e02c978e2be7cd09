"""The core trusts no provider: every wrong answer is an error that names who gave it."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import hardpoint as hp
from eager_backend import EagerBackend, Provider
from hardpoint import Artifact, Assignment, Executable, Support, Target
from hardpoint.planning import compute_nodes
from splitting import Scatter

REPORT = "report it to the plugin's author; `hardpoint check` shows the whole contract"


class Small(nn.Module):
    def forward(self, x):
        return torch.relu(x + 1).sum(0), x * 2


PROGRAM = hp.capture(Small().eval(), (torch.randn(3, 4),), registry=hp.Registry(path=[]))
NAMES = frozenset(n.name for n in compute_nodes(PROGRAM.exported))


def registry(**methods):
    """One backend, ``a``, with some of its methods replaced."""
    made = hp.Registry(path=[])
    provider = Provider("a")
    for name, method in methods.items():
        setattr(provider.backend, name, method)
    made.add("backend", "a", provider)
    return made


def planned(mounted, partitioner=None, targets="a"):
    chosen = partitioner or Scatter(0, 1, 1)
    return hp.plan(PROGRAM, targets=targets, partitioner=chosen, registry=mounted)


def fails(error_type, work):
    with pytest.raises(error_type) as error:
        work()
    return str(error.value)


# -- support --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (None, "it returned NoneType, not Support"),
        (Support(NAMES - {"relu"}), "it says nothing about 'relu'"),
        (Support(frozenset()), "it says nothing about 'add', 'mul', 'relu' and 1 more"),
        (Support(NAMES, {"relu": "no"}), "'relu' is both supported and unsupported"),
        (Support(NAMES - {"relu"}, {"relu": " "}), "it refuses 'relu' without a reason"),
        (Support(NAMES - {"relu"}, {"relu": 3}), "it refuses 'relu' without a reason"),
        (Support(None), "supported is NoneType, not a set of names"),
        (Support(NAMES, None), "unsupported is NoneType, not a mapping of names to reasons"),
    ],
)
def test_a_support_that_leaves_something_open_is_refused(answer, cause):
    mounted = registry(support=lambda program, device: answer)
    assert fails(hp.ContractViolation, lambda: planned(mounted)) == (
        "a backend's support() broke the contract\n"
        "  provider: backend:a (from this process)\n"
        f"  cause: {cause}\n"
        f"  remedy: {REPORT}"
    )


def test_a_support_that_raises_is_named():
    def raises(program, device):
        raise KeyError("relu")

    assert fails(hp.ProviderFailed, lambda: planned(registry(support=raises))) == (
        "a backend could not say what it supports\n"
        "  provider: backend:a (from this process)\n"
        "  cause: KeyError: 'relu'\n"
        "  remedy: leave it out of targets="
    )


def test_operations_that_nobody_runs_are_named_with_everybodys_reason():
    made = hp.Registry(path=[])
    for name in "ab":
        made.add("backend", name, Provider(name, claims=lambda n: n.name not in ("relu", "mul")))
    text = fails(hp.PlanError, lambda: planned(made, targets=["a", "b"]))
    assert text == (
        "no target can run 2 of the program's operations ('mul', 'relu')\n"
        "  cause: relu (aten.relu.default): a: aten.relu.default is not claimed; "
        "b: aten.relu.default is not claimed\n"
        "  remedy: add a target that runs them, e.g. targets=['...', 'cpu']"
    )


# -- partition ------------------------------------------------------------------------------------


class Answers(hp.Partitioner):
    def __init__(self, answer):
        self.answer = answer

    def partition(self, program, targets, objective, costs):
        return self.answer(targets[0].target) if callable(self.answer) else self.answer


def everything(target, **changes):
    return dict.fromkeys(NAMES, target) | changes


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (None, "it returned NoneType, not Assignment"),
        (lambda t: Assignment({}), "it leaves out 'add', 'mul', 'relu' and 1 more"),
        (lambda t: Assignment(everything(t, sqrt=t)), "it assigns 'sqrt', which are no compute nodes of the program"),
        (lambda t: Assignment(everything(t, relu=Target("b"))), "it assigns 'relu' to b, which is no candidate"),
        (lambda t: Assignment(everything(t, relu="a")), "it assigns 'relu' to a str, not a Target"),
        (lambda t: Assignment(everything(t, relu=["a"])), "it assigns 'relu' to a list, not a Target"),
        (lambda t: Assignment(None), "targets is NoneType, not a mapping of names to targets"),
        (lambda t: Assignment(everything(t), None), "reasons is NoneType, not a mapping of names to words"),
    ],
)  # fmt: skip
def test_an_assignment_that_does_not_fit_is_refused(answer, cause):
    text = fails(hp.ContractViolation, lambda: planned(registry(), Answers(answer)))
    assert text == (
        "a partitioner's assignment broke the contract\n"
        "  provider: partitioner:Answers\n"
        f"  cause: {cause}\n"
        f"  remedy: {REPORT}"
    )


def test_an_assignment_to_a_target_that_cannot_run_the_node_is_refused():
    made = hp.Registry(path=[])
    made.add("backend", "a", Provider("a", claims=lambda n: n.name != "relu"))
    made.add("backend", "b", Provider("b"))
    text = fails(hp.ContractViolation, lambda: planned(made, Answers(lambda t: Assignment(everything(t))), ["a", "b"]))  # fmt: skip
    assert "cause: it assigns 'relu' to a, which cannot run it: aten.relu.default is not claimed" in text  # fmt: skip


def test_a_partitioner_that_raises_is_named():
    def raises(target):
        raise ZeroDivisionError("costs")

    assert fails(hp.ProviderFailed, lambda: planned(registry(), Answers(raises))) == (
        "a partitioner failed\n"
        "  provider: partitioner:Answers\n"
        "  cause: ZeroDivisionError: costs\n"
        "  remedy: choose another with partitioner="
    )


# -- compile and load -----------------------------------------------------------------------------


def compiled(**methods):
    mounted = registry(**methods)
    return hp.compile(planned(mounted), registry=mounted)


@pytest.mark.parametrize(
    ("artifact", "cause"),
    [
        (b"bytes", "it returned bytes, not Artifact"),
        (Artifact(""), "the artifact has no format"),
        (Artifact("f", {"/etc/passwd": b""}), "file name '/etc/passwd' is not a plain relative name"),
        (Artifact("f", {"../up": b""}), "file name '../up' is not a plain relative name"),
        (Artifact("f", {"a/../../up": b""}), "file name 'a/../../up' is not a plain relative name"),
        (Artifact("f", {"a\\b": b""}), "file name 'a\\\\b' is not a plain relative name"),
        (Artifact("f", {"": b""}), "file name '' is not a plain relative name"),
        (Artifact("f", {3: b""}), "file name 3 is not a plain relative name"),
        (Artifact("f", {"a": "text"}), "file 'a' is str, not bytes"),
        (Artifact("f", weights={"w": [1.0]}), "weight 'w' is list, not a tensor"),
        (Artifact("f", metadata={"a": float("nan")}), "metadata is not JSON: "),
        (Artifact("f", metadata={"a": {1}}), "metadata is not JSON: "),
        (Artifact("f", None), "files is NoneType, not a mapping"),
        (Artifact("f", weights=None), "weights is NoneType, not a mapping"),
    ],
)  # fmt: skip
def test_an_artifact_that_cannot_be_packaged_is_refused(artifact, cause):
    text = fails(hp.ContractViolation, lambda: compiled(compile=lambda *_: artifact))
    assert text.startswith(
        "a backend's compile() broke the contract\n"
        "  provider: backend:a (from this process)\n"
        f"  cause: {cause}"
    )
    assert text.endswith(f"  remedy: {REPORT}")


def test_a_compiler_that_raises_is_named_with_its_segment():
    def raises(program, device, options):
        raise RuntimeError("no such instruction")

    assert fails(hp.CompileError, lambda: compiled(compile=raises)) == (
        "segment s0 (4 operations) could not be compiled for a\n"
        "  provider: backend:a (from this process)\n"
        "  cause: RuntimeError: no such instruction\n"
        "  remedy: leave that target out of targets=, or report it to the plugin's author"
    )


def test_an_error_of_the_backend_gets_its_name():
    def raises(program, device, options):
        raise hp.CompileError("relu is too large", remedy="make it smaller")

    assert fails(hp.CompileError, lambda: compiled(compile=raises)) == (
        "relu is too large\n  provider: backend:a (from this process)\n  remedy: make it smaller"
    )


def test_what_load_gives_must_be_an_executable():
    text = fails(hp.ContractViolation, lambda: compiled(load=lambda artifact, device: print))
    assert "cause: it returned builtin_function_or_method, not Executable" in text
    assert "provider: backend:a (from this process)" in text


def test_an_artifact_that_does_not_open_is_named():
    def raises(artifact, device):
        raise OSError("truncated")

    assert fails(hp.ArtifactError, lambda: compiled(load=raises)) == (
        "the artifact of segment s0 could not be opened on a\n"
        "  provider: backend:a (from this process)\n"
        "  cause: OSError: truncated\n"
        "  remedy: compile again on this machine"
    )


# -- results --------------------------------------------------------------------------------------


def spoiled(change, before=lambda inputs: None):
    """Compile with a backend whose executables do what they should not."""
    backend = EagerBackend("a", lambda node: True, lambda executable: executable)

    class Lies(Executable):
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, *inputs):
            before(inputs)
            return change(self.inner(*inputs))

    load = backend.load
    return compiled(compile=backend.compile, load=lambda a, d: Lies(load(a, d)))


def nan(outputs):
    return (outputs[0] * float("nan"), *outputs[1:])


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (list, "it returned list, not a tuple of tensors"),
        (lambda out: out[0], "it returned Tensor, not a tuple of tensors"),
        (lambda out: out[:1], "it returned 1 tensors instead of 2"),
        (lambda out: (*out, out[0]), "it returned 3 tensors instead of 2"),
        (lambda out: (out[0].numpy(), out[1]), "sum_1 is ndarray, not a tensor"),
        (lambda out: (out[0].double(), out[1]), "sum_1 has dtype float64, the program says float32"),
        (lambda out: (out[0][None], out[1]), "sum_1 has shape [1, 4], the program says [4]"),
        (lambda out: (out[0].to("meta"), out[1]), "sum_1 is on meta, the segment's device is cpu"),
        (lambda out: (out[0], out[1].to_sparse()), "mul is torch.sparse_coo, not a dense tensor"),
    ],
)  # fmt: skip
def test_results_of_another_kind_are_refused_when_compiled(change, cause):
    assert fails(hp.ContractViolation, lambda: spoiled(change)) == (
        "an executable's result broke the contract\n"
        "  provider: backend:a (from this process)\n"
        f"  cause: {cause}\n"
        f"  remedy: {REPORT}"
    )


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda out: (out[0] + 1, out[1]), r"0\.\d+|1"),
        (nan, "inf"),
        (lambda out: (out[0] * float("inf"), out[1]), "inf"),
    ],
)
def test_wrong_numbers_are_refused_with_figures(change, error):
    text = fails(hp.VerificationError, lambda: spoiled(change))
    assert re.fullmatch(
        rf"segment s0 gives wrong numbers on a: error ({error}) in sum_1, at most 0\.0001 is allowed\n"
        r"  provider: backend:a \(from this process\)\n"
        r"  cause: cosine [-\d.]+, mean error [\d.einf-]+; the segment runs aten\.add, aten\.relu, "
        r"aten\.sum, aten\.mul\n"
        r"  remedy: leave that target out of targets=, ask for another precision=, or allow more with "
        r"max_error=",
        text,
    ), text


def test_a_changed_input_is_refused():
    text = fails(hp.VerificationError, lambda: spoiled(lambda out: out, lambda inputs: inputs[0].add_(1)))  # fmt: skip
    assert text == (
        "segment s0 changes its input flat_0 on a\n"
        "  provider: backend:a (from this process)\n"
        "  remedy: leave that target out, and report it to the plugin's author"
    )


def test_an_executable_that_raises_when_it_is_verified_is_named():
    def raises(outputs):
        raise MemoryError("device memory")

    assert fails(hp.OutOfMemory, lambda: spoiled(raises)) == (
        "segment s0 on a ran out of memory\n"
        "  provider: backend:a (from this process)\n"
        "  cause: MemoryError: device memory\n"
        "  remedy: free memory, pass smaller inputs, or compile with fallback=['cpu'], which goes "
        "on elsewhere"
    )


def test_a_small_error_is_accepted_where_the_caller_allows_it_and_reported():
    backend = EagerBackend("a", lambda node: True, lambda executable: executable)

    class Rough(Executable):
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, *inputs):
            return tuple(out + 0.001 for out in self.inner(*inputs))

    load = backend.load
    mounted = registry(compile=backend.compile, load=lambda a, d: Rough(load(a, d)))
    plan = planned(mounted)
    with pytest.raises(hp.VerificationError):
        hp.compile(plan, registry=mounted)
    model = hp.compile(plan, registry=mounted, max_error=1e-2)
    assert 0 < model.verification["max_error"] < 1e-2
    assert model.verification["allowed"] == 1e-2


# -- what the caller asked for --------------------------------------------------------------------


def test_a_precision_that_the_backend_does_not_have_is_refused():
    mounted = registry()
    text = fails(hp.CompileError, lambda: hp.compile(planned(mounted), precision="bf16", registry=mounted))  # fmt: skip
    assert text == (
        "a does not compute in bf16\n"
        "  provider: backend:a (from this process)\n"
        "  remedy: choose one of fp32, or another target"
    )


def test_a_precision_that_does_not_exist_is_refused():
    mounted = registry()
    text = fails(hp.ConfigError, lambda: hp.compile(planned(mounted), precision="fp31", registry=mounted))  # fmt: skip
    assert text == "'fp31' is no precision\n  remedy: did you mean 'fp32'?"


def test_options_for_a_backend_that_is_not_in_the_plan_are_refused():
    mounted = registry()
    text = fails(hp.ConfigError, lambda: hp.compile(planned(mounted), options={"b": {}}, registry=mounted))  # fmt: skip
    assert text == "options name 'b', which is no backend of this plan\n  remedy: the plan uses: a"


@pytest.mark.parametrize(
    ("targets", "error", "text"),
    [
        ("a:9", hp.ProviderUnavailable, "target a:9 names a device that is not here\n  provider: backend:a (from this process)\n  cause: devices found: 0\n  remedy: known: 0"),
        ("a@1", hp.PlanError, "target a@1 names a rank\n  remedy: plan each rank's program in its own process"),
        ("a b", hp.ConfigError, "'a b' is not a target\n  remedy: write backend[:device][@rank], e.g. 'cpu', 'openvino:CPU' or 'cuda:0@1'"),
        ([], hp.PlanError, "targets is empty\n  remedy: name one, e.g. targets='cpu', or say 'auto'"),
        ("nope", hp.ProviderNotFound, "provides backend:nope"),
    ],
)  # fmt: skip
def test_targets_that_do_not_exist_are_refused(targets, error, text):
    assert text in fails(error, lambda: planned(registry(), targets=targets))


def test_an_objective_that_does_not_exist_is_refused():
    text = fails(hp.ConfigError, lambda: hp.plan(PROGRAM, targets="a", objective="latincy", registry=registry()))  # fmt: skip
    assert text == "'latincy' is no objective\n  remedy: did you mean 'latency'?"


def test_an_objective_that_the_partitioner_does_not_declare_is_refused():
    class Latency:
        @hp.hookimpl
        def hardpoint_partitioner_info(self):
            return hp.PartitionerInfo(requires_api=(1, 0), summary="quick", objectives=("latency",))

        @hp.hookimpl
        def hardpoint_partitioner_probe(self, request):
            return hp.Probe.ready()

        @hp.hookimpl
        def hardpoint_partitioner_open(self, config):
            raise AssertionError("it is not even opened")

    registry = hp.Registry()
    registry.add("partitioner", "quick", Latency())
    program = hp.capture(torch.nn.Linear(2, 2).eval(), (torch.ones(1, 2),), registry=registry)
    with pytest.raises(hp.ConfigError) as caught:
        hp.plan(
            program, targets=["cpu"], partitioner="quick", objective="memory", registry=registry
        )
    assert str(caught.value) == (
        "partitioner:quick does not optimise for memory\n"
        "  provider: partitioner:quick (from this process)\n"
        "  cause: it declares latency\n"
        "  remedy: choose one of those with objective=, or another partitioner="
    )
