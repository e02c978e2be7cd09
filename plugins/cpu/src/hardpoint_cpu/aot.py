"""Mode ``aot``: compiled once by AOTInductor into a shared library; loading needs no compiler.

The library goes into the artifact without the weights: they are handed to it where they lie, by
reference; those, too, that ``freezing`` made of them. For other devices than the CPU ``freezing``
leaves them inside the library.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, cast

import torch

from hardpoint import Artifact, ArtifactError, Executable
from hardpoint_cpu import constants, eager, executed, forks, host
from hardpoint_cpu.constants import Made
from hardpoint_cpu.formats import AOT
from hardpoint_cpu.library import CALLS, LIBRARY, PACKAGE, Library, files
from hardpoint_cpu.origin import artifact_error, compile_error, in_words
from hardpoint_cpu.recipe import CPU
from hardpoint_cpu.segment import Segment
from hardpoint_cpu.tuning import Tuning

# What Inductor turns into code of its own.
_NAMESPACES = ("aten", "prims", "quantized_decomposed")
_AGAIN = "compile the segment again on a machine like this one, or use mode 'eager'"


def compile_segment(
    segment: Segment,
    described: Mapping[str, Any],
    tuning: Tuning,
    device: torch.device = CPU,
    kind: str = AOT,
) -> Artifact:
    """Compile into a library for ``device``, where the segment's weights are.

    :raises CompileError: no compiler, a custom operator, or AOTInductor's reason.
    """
    _refuse_custom(segment)
    for attribute, (name, tensor) in segment.weights.items():
        # The library is compiled for the layout that it sees: let it be the one that is certain.
        segment.weights[attribute] = (name, tensor.contiguous())
    contents, facts, made = _compile(segment, described, tuning, device)
    library = Library(contents, device)
    inside = _inside(tuning.freezing, device)
    needed, layouts = ({}, {}) if inside else constants.keep(library.constants, segment, made)
    tensors = {name: tensor for name, tensor in segment.weights.values() if name in needed.values()}
    return Artifact(
        format=kind,
        files=contents,
        weights=tensors,
        metadata={
            "torch": torch.__version__,
            "platform": facts["AOTI_PLATFORM"],
            "machine": facts["AOTI_MACHINE"],
            "isa": facts["AOTI_CPU_ISA"].split(),
            "sha256": {name: _sha256(data) for name, data in contents.items()},
            "constants": needed,
            "layouts": layouts,
            "freezing": tuning.freezing,
            executed.KEY: segment.executed.to_json(),
        },
    )


def _refuse_custom(segment: Segment) -> None:
    for node in segment.graph.nodes:
        target = node.target
        if isinstance(target, torch._ops.OpOverload) and target.namespace not in _NAMESPACES:
            raise compile_error(
                f"node {node.name!r} cannot be compiled ahead of time",
                cause=f"{target} is a custom operator, which the library would have to find "
                "wherever it is loaded",
                remedy="use mode 'eager' or 'inductor' for this segment",
            )


def _compile(
    segment: Segment, described: Mapping[str, Any], tuning: Tuning, device: torch.device
) -> tuple[dict[str, bytes], Mapping[str, str], Made]:
    """See :func:`hardpoint_cpu.library.files`; and the constants that are left to be given."""
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_aot

    from hardpoint_cpu.inductor import compiling, observed  # loading needs no compiler
    from hardpoint_cpu.lowered import Lowered

    lowered = Lowered()
    patches: dict[str, Any] = {
        "aot_inductor.package": True,
        "aot_inductor.package_constants_in_so": _inside(tuning.freezing, device),
    }
    if device.type != "cpu" and not tuning.freezing:
        # Of a package they are asked for by the program's names; nothing is pickled here.
        patches["aot_inductor.package_constants_on_disk_format"] = "pickle_weights"
    with (
        compiling(described, device) as (_, inputs),
        observed(tuning, segment.executed),
        config.patch("_post_fusion_custom_pass", lowered),  # of its patches it takes copies
    ):
        made = compile_fx_aot(segment.module(), inputs, config_patches=patches)
    parts = [made] if isinstance(made, str) else list(cast("list[Any]", made))
    contents, facts = files([part for part in parts if isinstance(part, str)], device)
    if device.type == "cpu":
        return contents, facts, lowered.constants()
    held = {name: (name, t) for p in parts if isinstance(p, dict) for name, (t, _) in p.items()}
    return contents, facts, held


def _inside(freezing: object, device: torch.device) -> bool:
    """Whether the library holds its constants itself: a package's, which PyTorch unpacks."""
    return bool(freezing) and device.type != "cpu"


def load(artifact: Artifact, device: torch.device = CPU) -> AotExecutable:
    """Open the library on ``device`` and hand it the weights.

    :raises ArtifactError: damaged, for another torch, platform or processor, or without weights.
    """
    contents = _contents(artifact, device)
    facts = artifact.metadata
    _check_host(facts)
    told = executed.read(facts)
    needed, layouts = facts.get("constants"), facts.get("layouts", {})
    if not isinstance(needed, Mapping) or not isinstance(layouts, Mapping):
        raise artifact_error("the artifact does not name its constants", remedy=_AGAIN)
    names = {str(constant): str(name) for constant, name in needed.items()}
    found = eager.weights(artifact, tuple(names.values()), device)
    try:
        tensors = {
            constant: constants.restore(constant, found[name], layouts.get(constant))
            for constant, name in names.items()
        }
        library = Library(contents, device)
        # One without its constants crashes the process when it is called.
        wanted = set() if _inside(facts.get("freezing"), device) else library.constants
        if wanted != set(tensors):
            raise artifact_error(
                "the library and its list of weights do not belong together", remedy=_AGAIN
            )
        if tensors:
            library.give(tensors)
    except ArtifactError:
        raise
    except Exception as error:
        raise artifact_error(
            "the library cannot be loaded", cause=in_words(error), remedy=_AGAIN
        ) from error
    return AotExecutable(library, [*tensors.values(), *found.values()], told)


def _contents(artifact: Artifact, device: torch.device) -> dict[str, bytes | memoryview]:
    """The library's files.

    :raises ArtifactError: one is missing, or not what was compiled.
    """
    recorded = artifact.metadata.get("sha256")
    # Of packages, those for other devices than the CPU, once the hash of the only file.
    hashes = recorded if isinstance(recorded, Mapping) else {PACKAGE: recorded}
    main = LIBRARY if device.type == "cpu" else PACKAGE
    found = {name: eager.file(artifact, name) for name in (main, *({CALLS} & hashes.keys()))}
    for name, data in found.items():
        if not (artifact.intact and name in hashes) and _sha256(data) != hashes.get(name):
            raise artifact_error(
                f"{name} is damaged",
                cause="its SHA-256 is not the one that was recorded when it was compiled",
                remedy="copy the package again, or compile the segment again",
            )
    return found


def _sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_host(facts: Mapping[str, object]) -> None:
    """Refuse what was built for something else, before any of it is loaded."""
    built, here = str(facts.get("torch")), str(torch.__version__)
    if built != here:
        raise artifact_error(
            "the artifact was compiled for another version of PyTorch",
            cause=f"it was compiled with torch {built}, this is torch {here}",
            remedy=_AGAIN,
        )
    place = f"{facts.get('platform')} on {facts.get('machine')}"
    if place != f"{host.system()} on {host.machine()}":
        raise artifact_error(
            "the artifact was compiled for another platform",
            cause=f"it was compiled for {place}, this is {host.system()} on {host.machine()}",
            remedy=_AGAIN,
        )
    listed = facts.get("isa")
    needed = (
        {str(name).upper() for name in listed} if isinstance(listed, list) else {"(none named)"}
    )
    lacking = sorted(needed - host.isa())
    if lacking:
        raise artifact_error(
            "the artifact was compiled for another processor",
            cause=f"it needs {', '.join(lacking)}; this processor ({host.device().name}) has "
            f"{', '.join(sorted(host.isa())) or 'none that is known'}",
            remedy=_AGAIN,
        )


def _empty(tensors: Sequence[torch.Tensor]) -> None:
    """Let go of their memory. The library, once it is gone, still holds on to the tensors."""
    with torch.inference_mode():
        for tensor in tensors:
            if not tensor.is_mkldnn:  # those have none of their own
                tensor.set_(torch.UntypedStorage())  # type: ignore[no-untyped-call]


def _closed(_: object) -> NoReturn:
    raise RuntimeError("the executable was closed")


class AotExecutable(Executable):
    """A library and the weights that it was given. It runs one call at a time, others wait.

    :param weights: tensors that nobody else has; they may share memory with others.
    """

    def __init__(
        self, library: Library, weights: Sequence[torch.Tensor], told: Mapping[str, object]
    ) -> None:
        self._told = told
        self._run: Callable[[list[torch.Tensor]], Any] = library.run
        # After the last call that runs: the library has nothing but pointers into their memory.
        weakref.finalize(library.owner, _empty, list(weights)).atexit = False

    def facts(self) -> Mapping[str, object]:
        """What the library was compiled to, and what this process runs it with."""
        return executed.facts(self._told, "aot")

    def close(self) -> None:
        """Let go of the library and the weights, as soon as no call runs any more."""
        self._run = _closed

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run. The library checks nothing: strides are made right here, the rest by the runtime."""
        if forks.state.forked is not None and forks.here():
            return forks.elsewhere(self, inputs)
        return tuple(self._run([tensor.contiguous() for tensor in inputs]))
