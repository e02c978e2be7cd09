"""The backend's options, typed and checked, and what they and the precision need of a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from hardpoint import ConfigError, did_you_mean
from hardpoint_cuda.vendor import Need, Vendor

COMPUTE = ("bf16", "fp16", "fp32")
WEIGHTS = ("int8", "fp8")
HELP = {
    "mode": "eager (default), inductor (compiled where it is loaded; needs Triton), aot "
    "(compiled once, for one architecture) or tensorrt (needs torch-tensorrt; NVIDIA only)",
    "freezing": "inductor and aot: fold the weights into the compiled code (default false)",
    "graphs": "record the kernels of each set of sizes once and replay them (default false)",
    "graph_shapes": "with graphs: so many sets of sizes are kept, the least recent goes (8)",
    "tf32": "compute float32 products with 10 bits of mantissa (default false)",
    "compute": "precision int8w: compute in bf16 (default), fp16 or fp32",
    "pinned": "copy what goes to the CPU into pinned memory: faster, and locked for as long as it "
    "is kept (default false)",
    "weights": "precision int8w: hold weights as int8 (default) or as fp8 (float8_e4m3fn)",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What ``CompileOptions.backend`` may say; :data:`HELP` says what each means."""

    mode: str = "eager"
    freezing: bool = False
    graphs: bool = False
    graph_shapes: int = 8
    tf32: bool = False
    compute: str = "bf16"
    weights: str = "int8"
    pinned: bool = False

    @classmethod
    def parse(cls, given: Mapping[str, object], precision: str, vendor: Vendor) -> Options:
        """Read the caller's mapping.

        :raises ConfigError: an unknown option, a value that it cannot have, or one without a
            meaning beside the others.
        """
        known = {field.name: field.default for field in fields(cls)}
        choices = {"mode": vendor.modes, "compute": COMPUTE, "weights": WEIGHTS}
        for name, value in given.items():
            if name not in known:
                what = f"the {vendor.name} backend has no option {name!r}"
                raise _wrong(vendor, what, did_you_mean(name, known))
            if name in choices:
                if value not in choices[name]:
                    remedy = did_you_mean(str(value), choices[name])
                    raise _wrong(vendor, f"{name} {value!r} does not exist", remedy)
            elif name == "graph_shapes":
                if type(value) is not int or value < 1:
                    what = f"option {name} is {value!r}"
                    raise _wrong(vendor, what, "give a whole number, 1 or more")
            elif not isinstance(value, bool):
                raise _wrong(vendor, f"option {name} is {value!r}", "give true or false")
        wanted: dict[str, Any] = dict(given)
        options = cls(**wanted)
        options._check(frozenset(given), precision, vendor)
        return options

    def _check(self, given: frozenset[str], precision: str, vendor: Vendor) -> None:
        """What has no meaning is a mistake, not a wish to be ignored."""
        if self.freezing and self.mode not in ("inductor", "aot"):
            what = f"option freezing has no meaning in mode {self.mode!r}"
            raise _wrong(vendor, what, "ask for mode 'inductor' or 'aot', or leave freezing out")
        if self.graphs and self.mode == "tensorrt":
            what = "option graphs has no meaning in mode 'tensorrt'"
            raise _wrong(vendor, what, "leave graphs out, or ask for another mode")
        if "graph_shapes" in given and not self.graphs:
            raise _wrong(vendor, "option graph_shapes has no meaning without graphs", "add graphs")
        for name in ("compute", "weights"):
            if name in given and precision != "int8w":
                what = f"option {name} has no meaning with precision {precision!r}"
                raise _wrong(vendor, what, "ask for precision 'int8w', or leave it out")
        if self.mode == "tensorrt" and precision == "int8w":
            what = "mode 'tensorrt' takes no weights held in eight bits"
            raise _wrong(vendor, what, "ask for precision 'fp16' or 'bf16', or for another mode")
        if self.tf32 and self.arithmetic(precision) != "fp32":
            what = f"option tf32 has no meaning: nothing is computed in fp32 with {precision!r}"
            raise _wrong(vendor, what, "leave tf32 out, or ask for precision 'fp32'")

    def arithmetic(self, precision: str) -> str:
        """What is computed in: ``fp32``, ``bf16`` or ``fp16``."""
        return self.compute if precision == "int8w" else precision

    def needs(self, precision: str) -> tuple[Need, ...]:
        """What a device must be able to do for this, beside float32."""
        found: list[Need] = []
        if self.mode in ("inductor", "aot"):
            found.append("triton")
        computed = self.arithmetic(precision)
        if computed == "bf16":
            found.append("bf16")
        elif computed == "fp16":
            found.append("fp16")
        if self.tf32:
            found.append("tf32")
        if precision == "int8w" and self.weights == "fp8" and "triton" in found:
            found.append("fp8")
        return tuple(found)


def _wrong(vendor: Vendor, what: str, remedy: str) -> ConfigError:
    return ConfigError(what, provider=vendor.provider, origin=vendor.origin, remedy=remedy)
