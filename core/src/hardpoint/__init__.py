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
    "hardpoint.api": (
        "capture",
        "compile",
        "default_registry",
        "init_process_group",
        "load",
        "load_weights",
        "open_weights",
        "plan",
        "save_weights",
    ),
    "hardpoint.errors": (
        "ArtifactError",
        "CaptureError",
        "CompileError",
        "ConfigError",
        "ContractViolation",
        "DuplicateProvider",
        "HardpointError",
        "HardpointWarning",
        "InputError",
        "LockMismatch",
        "PackageError",
        "PlanError",
        "PolicyWarning",
        "ProviderDenied",
        "ProviderError",
        "ProviderFailed",
        "ProviderIncompatible",
        "ProviderNotFound",
        "ProviderSkipped",
        "ProviderUnavailable",
        "TransportError",
        "VerificationError",
        "WeightsError",
    ),
    "hardpoint.events": ("Event",),
    "hardpoint.hookspecs": ("hookimpl",),
    "hardpoint.interfaces.backend": (
        "Artifact",
        "Backend",
        "BackendInfo",
        "CompileOptions",
        "Executable",
        "Precision",
        "Support",
    ),
    "hardpoint.interfaces.kinds": (
        "Kind",
        "Target",
    ),
    "hardpoint.interfaces.partitioner": (
        "Assignment",
        "Costs",
        "Objective",
        "Partitioner",
        "PartitionerInfo",
        "TargetInfo",
    ),
    "hardpoint.interfaces.probe": (
        "Device",
        "Probe",
        "ProbeRequest",
    ),
    "hardpoint.interfaces.serializer": (
        "Reader",
        "Serializer",
        "SerializerInfo",
        "TensorInfo",
    ),
    "hardpoint.interfaces.transport": (
        "Transport",
        "TransportInfo",
    ),
    "hardpoint.planning.plan": ("Plan",),
    "hardpoint.program.program": ("Program",),
    "hardpoint.registry.policy": ("Policy",),
    "hardpoint.registry.record": ("Record",),
    "hardpoint.registry.registry": ("Registry",),
    "hardpoint.runtime.model": ("CompiledModel",),
}

if TYPE_CHECKING:
    from hardpoint.api import (
        capture as capture,
    )
    from hardpoint.api import (
        compile as compile,
    )
    from hardpoint.api import (
        default_registry as default_registry,
    )
    from hardpoint.api import (
        init_process_group as init_process_group,
    )
    from hardpoint.api import (
        load as load,
    )
    from hardpoint.api import (
        load_weights as load_weights,
    )
    from hardpoint.api import (
        open_weights as open_weights,
    )
    from hardpoint.api import (
        plan as plan,
    )
    from hardpoint.api import (
        save_weights as save_weights,
    )
    from hardpoint.errors import (
        ArtifactError as ArtifactError,
    )
    from hardpoint.errors import (
        CaptureError as CaptureError,
    )
    from hardpoint.errors import (
        CompileError as CompileError,
    )
    from hardpoint.errors import (
        ConfigError as ConfigError,
    )
    from hardpoint.errors import (
        ContractViolation as ContractViolation,
    )
    from hardpoint.errors import (
        DuplicateProvider as DuplicateProvider,
    )
    from hardpoint.errors import (
        HardpointError as HardpointError,
    )
    from hardpoint.errors import (
        HardpointWarning as HardpointWarning,
    )
    from hardpoint.errors import (
        InputError as InputError,
    )
    from hardpoint.errors import (
        LockMismatch as LockMismatch,
    )
    from hardpoint.errors import (
        PackageError as PackageError,
    )
    from hardpoint.errors import (
        PlanError as PlanError,
    )
    from hardpoint.errors import (
        PolicyWarning as PolicyWarning,
    )
    from hardpoint.errors import (
        ProviderDenied as ProviderDenied,
    )
    from hardpoint.errors import (
        ProviderError as ProviderError,
    )
    from hardpoint.errors import (
        ProviderFailed as ProviderFailed,
    )
    from hardpoint.errors import (
        ProviderIncompatible as ProviderIncompatible,
    )
    from hardpoint.errors import (
        ProviderNotFound as ProviderNotFound,
    )
    from hardpoint.errors import (
        ProviderSkipped as ProviderSkipped,
    )
    from hardpoint.errors import (
        ProviderUnavailable as ProviderUnavailable,
    )
    from hardpoint.errors import (
        TransportError as TransportError,
    )
    from hardpoint.errors import (
        VerificationError as VerificationError,
    )
    from hardpoint.errors import (
        WeightsError as WeightsError,
    )
    from hardpoint.events import (
        Event as Event,
    )
    from hardpoint.hookspecs import (
        hookimpl as hookimpl,
    )
    from hardpoint.interfaces.backend import (
        Artifact as Artifact,
    )
    from hardpoint.interfaces.backend import (
        Backend as Backend,
    )
    from hardpoint.interfaces.backend import (
        BackendInfo as BackendInfo,
    )
    from hardpoint.interfaces.backend import (
        CompileOptions as CompileOptions,
    )
    from hardpoint.interfaces.backend import (
        Executable as Executable,
    )
    from hardpoint.interfaces.backend import (
        Precision as Precision,
    )
    from hardpoint.interfaces.backend import (
        Support as Support,
    )
    from hardpoint.interfaces.kinds import (
        Kind as Kind,
    )
    from hardpoint.interfaces.kinds import (
        Target as Target,
    )
    from hardpoint.interfaces.partitioner import (
        Assignment as Assignment,
    )
    from hardpoint.interfaces.partitioner import (
        Costs as Costs,
    )
    from hardpoint.interfaces.partitioner import (
        Objective as Objective,
    )
    from hardpoint.interfaces.partitioner import (
        Partitioner as Partitioner,
    )
    from hardpoint.interfaces.partitioner import (
        PartitionerInfo as PartitionerInfo,
    )
    from hardpoint.interfaces.partitioner import (
        TargetInfo as TargetInfo,
    )
    from hardpoint.interfaces.probe import (
        Device as Device,
    )
    from hardpoint.interfaces.probe import (
        Probe as Probe,
    )
    from hardpoint.interfaces.probe import (
        ProbeRequest as ProbeRequest,
    )
    from hardpoint.interfaces.serializer import (
        Reader as Reader,
    )
    from hardpoint.interfaces.serializer import (
        Serializer as Serializer,
    )
    from hardpoint.interfaces.serializer import (
        SerializerInfo as SerializerInfo,
    )
    from hardpoint.interfaces.serializer import (
        TensorInfo as TensorInfo,
    )
    from hardpoint.interfaces.transport import (
        Transport as Transport,
    )
    from hardpoint.interfaces.transport import (
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

_HOME = {name: module for module, names in _WHERE.items() for name in names}

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
