"""AMD's devices, as the modules of hardpoint-cuda need them described; data, and light."""

from __future__ import annotations

from hardpoint_cuda.vendor import Hardware, Need, Vendor

# Families (beginnings of the architecture's name) that do it in hardware. Sources: AMD's
# "Precision support" table of ROCm; torch.cuda.is_tf32_supported; Triton's list of AMD targets.
_DOES: dict[Need, tuple[tuple[str, ...], str]] = {
    "fp16": (("gfx9", "gfx10", "gfx11", "gfx12"), "arithmetic in float16"),
    "bf16": (("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12"), "arithmetic in bfloat16"),
    "triton": (
        ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx103", "gfx11", "gfx12"),
        "code that Triton compiles (modes inductor and aot)",
    ),
    "tf32": (("gfx94", "gfx95"), "TF32"),
    "fp8": (("gfx95", "gfx12"), "conversions from float8 in compiled code"),
}


def lacks(hardware: Hardware, need: Need) -> str:
    """Why an AMD device does not do what is needed; ``""`` where it does."""
    families, what = _DOES[need]
    # OCP's float8_e4m3fn came with gfx950; MI300 (gfx942) has a format of its own instead.
    if need == "fp8" and hardware.arch.startswith("gfx94"):
        return f"{hardware.name} ({hardware.arch}) has float8_e4m3fnuz, not float8_e4m3fn"
    if hardware.arch.startswith(families):
        return ""
    named = ", ".join(f"{family}*" for family in families)
    return f"{what} needs one of {named}, and {hardware.name} is a {hardware.arch}"


ROCM = Vendor(
    name="rocm",
    brand="ROCm",
    built="hip",
    hiding=("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    lacks=lacks,
    modes=("eager", "inductor", "aot"),
)

UNVERIFIED = (
    "written against PyTorch 2.13's API and exercised without a device only: no result of it has "
    "been seen on real hardware (tests/bench/cuda.py is for whoever has some)"
)
