"""Backends compile segments and run them on hardware."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from hardpoint.interfaces.probe import Device

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

Precision = Literal["fp32", "bf16", "fp16", "int8", "int8w", "int4w"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo:
    """What a backend is and can do; data, so that the host need not open it to know.

    :param requires_api: (major, minor) of the contract it was written for; no default on purpose.
    :param precisions: what :class:`CompileOptions` may ask for; ``fp32`` means "as the program is",
        ``int8`` computes in it, ``int8w`` and ``int4w`` hold the weights so and compute wider.
    :param options: name -> one line of help, for every backend-specific option.
    :param variants: word -> options that are worth a try beside the defaults, each a way of its
        own to run the same program: ``hardpoint bench`` and ``targets="auto"`` try them all, and
        skip what :meth:`Backend.compile` refuses at once. No word holds a comma, which stands
        between words on the command line.
    :param strided_inputs: its executables honour the strides of their inputs. Where false, the
        runtime hands it contiguous tensors only.
    :param alignment: bytes; the address of each input must be a multiple of it. A tensor elsewhere
        (a view into another) is copied by the runtime, which counts such copies.
    :param cpu_kernels: it computes with PyTorch's own CPU kernels, by design. Where false, such a
        kernel seen during a call is a silent fallback, and the conformance kit says so.
    :param unverified: why its results are not proven on real hardware, or ``""``.
    :raises ValueError: a variant's word holds a comma.
    """

    requires_api: tuple[int, int]
    summary: str
    precisions: tuple[Precision, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    strided_inputs: bool = False
    alignment: int = 1
    cpu_kernels: bool = False
    unverified: str = ""

    def __post_init__(self) -> None:
        for word in self.variants:
            if "," in word:
                raise ValueError(f"the variant {word!r} holds a comma, write 'and'")


@dataclass(frozen=True, slots=True)
class Support:
    """Which nodes of a program a backend can run.

    :param supported: names of nodes (``torch.fx.Node.name``).
    :param unsupported: name of node -> the reason, in words.
    """

    supported: frozenset[str]
    unsupported: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What the caller wants of one segment.

    :param precision: arithmetic to compute in. A backend that does not declare it refuses.
    :param example_inputs: real inputs of this segment, recorded on the caller's examples: for
        calibration, for compilers that trace, and for sizing. May be empty.
    :param backend: the backend's own options, as declared in :attr:`BackendInfo.options`.
    """

    precision: Precision = "fp32"
    example_inputs: Sequence[torch.Tensor] = ()
    backend: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a backend compiled a segment into: all that :meth:`Backend.load` needs, nothing pickled.

    :param format: the backend's own name and version of it, e.g. ``"hardpoint-cpu/eager/1"``.
    :param files: name -> bytes. In a loaded package these are read-only views of the mapped file.
    :param weights: name -> tensor. Kept out of ``files`` so that a package stores each weight once,
        whatever the number of artifacts (and of programs) that use it, and maps it when loaded.
        Shared, so never written to.
    :param metadata: JSON-serializable facts, e.g. versions and the instruction set it is for.
    :ivar intact: whether the files were compared with their hashes by who read them, as the loader
        of packages does: a backend need not hash them once more. The weights are not meant. Nobody
        can say so who makes an artifact, or a changed copy of one.
    """

    format: str
    files: Mapping[str, bytes | memoryview] = field(default_factory=dict)
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)
    intact: bool = field(default=False, init=False, compare=False)


class Executable(ABC):
    """An opened artifact, ready to be called, from any thread.

    :cvar copies_weights: the runtime has made what it needs of the artifact's files and weights,
        and seldom reads them again. They are mapped from the package: their pages are then given
        back to the system, and whoever reads them has the file's, so that nothing may be written
        into them.
    """

    copies_weights: bool = False

    @abstractmethod
    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run. Inputs were checked by the runtime. Outputs stay valid after the next call.

        It may return before the work is done, if that is ordered on the current stream of its
        device, as PyTorch's own operators are.

        :raises OutOfMemory: the call needs more memory than there is.
        :raises DeviceLost: no call on this device will work any more. ``MemoryError`` and PyTorch's
            own types for the two count as well; they are what ``fallback=`` acts on.
        """

    def facts(self) -> Mapping[str, object]:
        """What the runtime beneath says that it does, read back from it; JSON-serializable.

        ``precision``, where it tells: the narrowest arithmetic that it computes in, a
        :data:`Precision`. Narrower than what was asked for is an error: never a runtime's quiet
        choice. Others are for people: ``threads``, ``device``, ``fallback_nodes``, ...
        """
        return {}

    def to_cpu(self, tensor: torch.Tensor) -> torch.Tensor:
        """A result of this executable, for a reader on the CPU, complete when this returns.

        Called where a result, or what another segment reads, lives on the CPU and this executable's
        device is another. To be overridden where the device has a faster way than PyTorch's copy
        into pageable memory: into pinned memory, or no copy where both share their memory.

        :returns: of the same shape and dtype. It stays valid, and no later call changes it.
        """
        return tensor.to("cpu")

    def close(self) -> None:
        """Let go of device memory and handles. Safe to call twice, and on a device that is lost."""
        return


class Backend(ABC):
    """One backend, opened."""

    @abstractmethod
    def devices(self) -> Sequence[Device]:
        """The devices that can be targeted, the preferred one first."""

    @abstractmethod
    def support(self, program: ExportedProgram, device: Device) -> Support:
        """Which compute nodes of ``program`` this device can run.

        Looks at each node's arguments and dtypes, not at its operator's name alone. Every compute
        node (``hardpoint.planning.compute_nodes``) stands in exactly one of the two answers.
        """

    @abstractmethod
    def compile(
        self, program: ExportedProgram, device: Device, options: CompileOptions
    ) -> Artifact:
        """Compile a segment. Its user inputs and outputs are tensors, flat and in order.

        Buffers are constants here: mutated ones come in as inputs and leave as outputs.

        :raises CompileError: with the reason in words.
        """

    @abstractmethod
    def load(self, artifact: Artifact, device: Device) -> Executable:
        """Open an artifact that :meth:`compile` made, maybe in another process or machine.

        :raises ArtifactError: it was made for another device or version, with the reason.
        :raises OutOfMemory: its weights do not fit.
        """
