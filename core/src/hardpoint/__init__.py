"""hardpoint: one neutral mount between PyTorch models and every piece of hardware.

Every public name is imported on first use (PEP 562), so that ``import hardpoint`` costs
milliseconds and imports neither torch nor a plugin.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Where each public name lives. The static block below says the same to type checkers; a test
# holds the two together.
_WHERE = {
    "hardpoint.api": "bench capture compile default_registry init_process_group load plan",
    "hardpoint.api_weights": (
        "from_pretrained load_weights open_weights save_in_background save_weights"
    ),
    "hardpoint.benching.benchmark": "Benchmark",
    "hardpoint.benching.row": "BenchRow",
    "hardpoint.choosing.budget": "Budget",
    "hardpoint.choosing.choice": "Choice",
    "hardpoint.errors": (
        "ArtifactError CaptureError CompileError ConfigError ContractViolation DeviceLost "
        "DuplicateProvider HardpointError HardpointWarning InputError LockMismatch OutOfMemory "
        "PackageError PlanError PolicyWarning ProviderDenied ProviderError ProviderFailed "
        "ProviderIncompatible ProviderNotFound ProviderSkipped ProviderUnavailable RuntimeFault "
        "TransportError VerificationError WeightsError WeightsMismatch did_you_mean"
    ),
    "hardpoint.events": "Event",
    "hardpoint.hookspecs": "hookimpl",
    "hardpoint.interfaces.backend": (
        "Artifact Backend BackendInfo CompileOptions Executable Precision Support"
    ),
    "hardpoint.interfaces.kinds": "Kind Target",
    "hardpoint.interfaces.partitioner": (
        "Assignment Costs Objective Partitioner PartitionerInfo TargetInfo"
    ),
    "hardpoint.interfaces.probe": "Device Probe ProbeRequest",
    "hardpoint.interfaces.serializer": "Index Reader Serializer SerializerInfo TensorInfo",
    "hardpoint.interfaces.transport": "Transport TransportInfo",
    "hardpoint.planning.plan": "Plan",
    "hardpoint.program.program": "Program",
    "hardpoint.registry.policy": "Policy",
    "hardpoint.registry.record": "Record",
    "hardpoint.registry.registry": "Registry",
    "hardpoint.runtime.model": "CompiledModel",
}

if TYPE_CHECKING:
    from hardpoint.api import (
        bench as bench,
        capture as capture,
        compile as compile,
        default_registry as default_registry,
        init_process_group as init_process_group,
        load as load,
        plan as plan,
    )
    from hardpoint.api_weights import (
        from_pretrained as from_pretrained,
        load_weights as load_weights,
        open_weights as open_weights,
        save_in_background as save_in_background,
        save_weights as save_weights,
    )
    from hardpoint.benching.benchmark import (
        Benchmark as Benchmark,
    )
    from hardpoint.benching.row import (
        BenchRow as BenchRow,
    )
    from hardpoint.choosing.budget import (
        Budget as Budget,
    )
    from hardpoint.choosing.choice import (
        Choice as Choice,
    )
    from hardpoint.errors import (
        ArtifactError as ArtifactError,
        CaptureError as CaptureError,
        CompileError as CompileError,
        ConfigError as ConfigError,
        ContractViolation as ContractViolation,
        DeviceLost as DeviceLost,
        DuplicateProvider as DuplicateProvider,
        HardpointError as HardpointError,
        HardpointWarning as HardpointWarning,
        InputError as InputError,
        LockMismatch as LockMismatch,
        OutOfMemory as OutOfMemory,
        PackageError as PackageError,
        PlanError as PlanError,
        PolicyWarning as PolicyWarning,
        ProviderDenied as ProviderDenied,
        ProviderError as ProviderError,
        ProviderFailed as ProviderFailed,
        ProviderIncompatible as ProviderIncompatible,
        ProviderNotFound as ProviderNotFound,
        ProviderSkipped as ProviderSkipped,
        ProviderUnavailable as ProviderUnavailable,
        RuntimeFault as RuntimeFault,
        TransportError as TransportError,
        VerificationError as VerificationError,
        WeightsError as WeightsError,
        WeightsMismatch as WeightsMismatch,
        did_you_mean as did_you_mean,
    )
    from hardpoint.events import (
        Event as Event,
    )
    from hardpoint.hookspecs import (
        hookimpl as hookimpl,
    )
    from hardpoint.interfaces.backend import (
        Artifact as Artifact,
        Backend as Backend,
        BackendInfo as BackendInfo,
        CompileOptions as CompileOptions,
        Executable as Executable,
        Precision as Precision,
        Support as Support,
    )
    from hardpoint.interfaces.kinds import (
        Kind as Kind,
        Target as Target,
    )
    from hardpoint.interfaces.partitioner import (
        Assignment as Assignment,
        Costs as Costs,
        Objective as Objective,
        Partitioner as Partitioner,
        PartitionerInfo as PartitionerInfo,
        TargetInfo as TargetInfo,
    )
    from hardpoint.interfaces.probe import (
        Device as Device,
        Probe as Probe,
        ProbeRequest as ProbeRequest,
    )
    from hardpoint.interfaces.serializer import (
        Index as Index,
        Reader as Reader,
        Serializer as Serializer,
        SerializerInfo as SerializerInfo,
        TensorInfo as TensorInfo,
    )
    from hardpoint.interfaces.transport import (
        Transport as Transport,
        TransportInfo as TransportInfo,
    )
    from hardpoint.planning.plan import (
        Plan as Plan,
    )
    from hardpoint.program.program import (
        Program as Program,
    )
    from hardpoint.registry.policy import (
        Policy as Policy,
    )
    from hardpoint.registry.record import (
        Record as Record,
    )
    from hardpoint.registry.registry import (
        Registry as Registry,
    )
    from hardpoint.runtime.model import (
        CompiledModel as CompiledModel,
    )

_HOME = {name: module for module, names in _WHERE.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> object:
    """Import the public name ``name`` on first use."""
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module 'hardpoint' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
