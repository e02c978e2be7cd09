"""The backend's options, typed and checked. Light: the plugin's hooks read the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

from hardpoint import did_you_mean
from hardpoint_onnxruntime.origin import config_error

Execution = Literal["sequential", "parallel"]
Optimization = Literal["disabled", "basic", "extended", "all"]
Quantizer = Literal["auto", "static", "dynamic"]
Activations = Literal["fp32", "int8"]

HELP: Mapping[str, str] = {
    "threads": "threads of one call; 0 (default): as many as torch.set_num_threads says on loading",
    "spinning": "threads wait for work spinning (default false): faster alone, and slower for "
    "whatever else runs in the process",
    "optimization": "graph optimization: disabled, basic, extended or all (default)",
    "execution": "sequential (default), or parallel: branches of the graph at the same time",
    "cpu_nodes": "on an accelerator: allow nodes that its provider lacks to run on the CPU "
    "(default false: refused); those are reported",
    "quantizer": "precision int8: static (QDQ, calibrated), dynamic, or auto (default): static "
    "where there are convolutions",
    "activations": "precisions int8w and int4w: fp32 (default), or int8: round them too, faster",
    "block": "precisions int8w and int4w: numbers that share a scale: 16, 32 (default), 64, 128 "
    "or 256",
}
# Worth a try beside the defaults, in the order of trying; what has no meaning in a precision is
# refused at once.
VARIANTS: Mapping[str, Mapping[str, object]] = {
    "activations in int8 by 128 and spinning": {
        "activations": "int8",
        "block": 128,
        "spinning": True,
    },
    "activations in int8 by 256 and spinning": {
        "activations": "int8",
        "block": 256,
        "spinning": True,
    },
    "spinning": {"spinning": True},
    "activations in int8": {"activations": "int8"},
}
_CHOICES: Mapping[str, tuple[object, ...]] = {
    "optimization": ("disabled", "basic", "extended", "all"),
    "execution": ("sequential", "parallel"),
    "quantizer": ("auto", "static", "dynamic"),
    "activations": ("fp32", "int8"),
    "block": (16, 32, 64, 128, 256),
}
_FLAGS = ("spinning", "cpu_nodes")


@dataclass(frozen=True, slots=True)
class Options:
    """What ``CompileOptions.backend`` may say; see :data:`HELP`."""

    threads: int = 0
    spinning: bool = False
    optimization: Optimization = "all"
    execution: Execution = "sequential"
    cpu_nodes: bool = False
    quantizer: Quantizer = "auto"
    activations: Activations = "fp32"
    block: int = 32

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> Options:
        """Read the caller's mapping.

        :raises ConfigError: an unknown option, or a value that it cannot have.
        """
        known = [field.name for field in fields(cls)]
        for name, value in given.items():
            if name not in known:
                raise config_error(
                    f"the onnxruntime backend has no option {name!r}", did_you_mean(name, known)
                )
            _check(name, value)
        return cls(**given)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, object]:
        """For an artifact's metadata."""
        return asdict(self)


def _check(name: str, value: object) -> None:
    if name in _FLAGS and not isinstance(value, bool):
        raise config_error(f"option {name} is {value!r}", "give true or false")
    if name == "threads" and (type(value) is not int or not 0 <= value <= 1024):
        raise config_error(f"option threads is {value!r}", "give a whole number from 0 to 1024")
    choices = _CHOICES.get(name)
    if choices is not None and (isinstance(value, bool) or value not in choices):
        raise config_error(
            f"option {name} is {value!r}",
            did_you_mean(value, [str(c) for c in choices])
            if isinstance(value, str)
            else f"choose one of {', '.join(map(str, choices))}",
        )
