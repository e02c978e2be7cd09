"""The backend's options, typed and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from hardpoint import did_you_mean
from hardpoint_openvino.origin import config_error

Hint = Literal["latency", "throughput"]
ModelType = Literal["auto", "transformer", "plain"]
Preset = Literal["mixed", "performance"]
_CHOICES: dict[str, tuple[str, ...]] = {
    "hint": get_args(Hint),
    "model_type": get_args(ModelType),
    "preset": get_args(Preset),
}
_COUNTS = {"threads": 1, "streams": 1, "group_size": 1, "dynamic_quantization": 0}


@dataclass(frozen=True, slots=True)
class Options:
    """What ``CompileOptions.backend`` may say; see the plugin's info for the words."""

    hint: Hint = "latency"
    threads: int | None = None
    streams: int | None = None
    pinning: bool | None = None
    blob: bool = False
    dynamic_quantization: int = 0
    group_size: int = 64
    model_type: ModelType = "auto"
    preset: Preset = "mixed"

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> Options:
        """Read the caller's mapping.

        :raises ConfigError: an unknown option, or a value that it cannot have.
        """
        known = [field.name for field in fields(cls)]
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                raise config_error(
                    f"the openvino backend has no option {name!r}",
                    remedy=did_you_mean(name, known),
                )
            values[name] = _checked(name, value)
        return cls(**values)

    def settings(self, precision: str) -> dict[str, object]:
        """OpenVINO's properties for a compilation that computes in ``precision``.

        Each quiet choice that OpenVINO would make by itself is made here: its own are bfloat16
        arithmetic and activations quantized to int8 where weights are compressed.
        """
        found: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": {"bf16": "bf16", "fp16": "f16"}.get(precision, "f32"),
            "PERFORMANCE_HINT": self.hint.upper(),
            "EXECUTION_MODE_HINT": "PERFORMANCE",
        }
        if self.threads is not None:
            found["INFERENCE_NUM_THREADS"] = self.threads
        if self.streams is not None:
            found["NUM_STREAMS"] = self.streams
        elif self.hint == "latency":
            found["NUM_STREAMS"] = 1
        return found


def _checked(name: str, value: object) -> object:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise config_error(
                f"option {name} is {value!r}", remedy=did_you_mean(str(value), _CHOICES[name])
            )
        return value
    if name in _COUNTS:
        least = _COUNTS[name]
        if type(value) is not int or value < least:
            raise config_error(
                f"option {name} is {value!r}", remedy=f"give a whole number from {least} on"
            )
        return value
    if not isinstance(value, bool):
        raise config_error(f"option {name} is {value!r}", remedy="give true or false")
    return value
