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
Floats = Literal["fp32", "bf16", "fp16"]
_CHOICES: dict[str, tuple[str, ...]] = {
    "hint": get_args(Hint),
    "model_type": get_args(ModelType),
    "preset": get_args(Preset),
    "floats": get_args(Floats),
}
_MEANT_FOR = {
    "floats": ("int8", "int8w", "int4w"),
    "dynamic_quantization": ("int8w", "int4w"),
    "fold": ("fp32", "bf16", "fp16"),
    "group_size": ("int4w",),
    "model_type": ("int8",),
    "preset": ("int8",),
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
    floats: Floats = "fp32"
    fold: bool = True
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

    def check(self, precision: str) -> None:
        """Refuse what has no meaning in ``precision``: it would change nothing, in silence.

        :raises ConfigError: with the option and where it has a meaning.
        """
        for name, where in _MEANT_FOR.items():
            field = next(f for f in fields(self) if f.name == name)
            if getattr(self, name) != field.default and precision not in where:
                raise config_error(
                    f"option {name} has no meaning in {precision}",
                    remedy=f"ask for {' or '.join(where)}, or leave the option out",
                )

    def settings(self, precision: str, settable: frozenset[str]) -> dict[str, object]:
        """OpenVINO's properties for a compilation that computes in ``precision``.

        Each quiet choice that OpenVINO would make by itself is made here: its own are bfloat16
        arithmetic, and activations quantized to int8 where weights are compressed.

        :param settable: the properties that the device has.
        :raises ConfigError: an option was given that the device has no property for.
        """
        narrow = precision if precision in ("bf16", "fp16") else self.floats
        hint = {"bf16": "bf16", "fp16": "f16"}.get(narrow, "f32")
        wanted: dict[str, tuple[object, bool]] = {
            "INFERENCE_PRECISION_HINT": (hint, True),
            "PERFORMANCE_HINT": (self.hint.upper(), True),
            "EXECUTION_MODE_HINT": ("PERFORMANCE", False),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": (
                self.dynamic_quantization,
                self.dynamic_quantization > 0,
            ),
        }
        if self.threads is not None:
            wanted["INFERENCE_NUM_THREADS"] = (self.threads, True)
        if self.pinning is not None:
            wanted["ENABLE_CPU_PINNING"] = (self.pinning, True)
        if self.streams is not None or self.hint == "latency":
            wanted["NUM_STREAMS"] = (self.streams or 1, self.streams is not None)
        lacking = [name for name, (_, asked) in wanted.items() if asked and name not in settable]
        if lacking:
            raise config_error(
                f"the device has no setting {', '.join(lacking)}",
                remedy="leave the option out for this device",
            )
        return {name: value for name, (value, _) in wanted.items() if name in settable}


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
