"""A real backend of a vendor with a bad day in each of its variants, to install in a FakeSite.

It runs chains of relu, neg and mul by two: a list of names is its artifact. What goes wrong is an
option, and a variant tries it; one of them may be what it does unasked. Installed as
``backend:vendor``.
"""

VENDOR = """
import json, os, signal, time
from hardpoint import (
    Artifact, ArtifactError, Backend, BackendInfo, CompileError, Device, Executable, Probe, Support,
    hookimpl,
)

NAMES = {"aten.relu.default": "relu", "aten.neg.default": "neg"}
VARIANTS = {VARIANTS}

def crash():
    os.kill(os.getpid(), signal.SIGSEGV)

def eat():
    eaten = []
    for _ in range(60):  # 6 GB at most, were nobody to stop it
        eaten.append(bytearray(b"x") * (100 << 20))
        time.sleep(0.1)
    return eaten

class Chain(Executable):
    def __init__(self, how, names):
        self.how, self.names, self.calls = how, names, 0

    def __call__(self, value):
        import torch
        self.calls += 1
        if self.how == "slow":
            time.sleep(0.05)
        if self.how == "crash in call" or (self.how == "crash later" and self.calls > 4):
            crash()
        if self.how == "hang in call":
            time.sleep(600)
        for name in self.names:
            value = getattr(torch, name)(value)
        if self.how == "wrong":
            value = value + 0.5
        return (value,)

    def facts(self):
        return {"precision": "bf16"} if self.how == "narrow" else {}

class Vendor(Backend):
    def devices(self):
        return [Device("0", "vendor's chip")]

    def support(self, program, device):
        from hardpoint.planning import compute_nodes
        nodes = {n.name: str(n.target) for n in compute_nodes(program)}
        good = frozenset(name for name, target in nodes.items() if target in NAMES)
        return Support(good, {n: f"no {t} here" for n, t in nodes.items() if n not in good})

    def compile(self, program, device, options):
        from hardpoint.planning import compute_nodes
        how = options.backend.get("how", {DEFAULT})
        if "VENDOR_NOTES" in os.environ:
            with open(os.environ["VENDOR_NOTES"], "a") as notes:
                notes.write(f"{how or 'default'} {options.precision}\\n")
        if how == "crash in compile":
            crash()
        if how == "hang in compile":
            time.sleep(600)
        if how == "eat memory":
            eat()
        if how == "no memory":
            raise MemoryError("not a byte is left")
        if how == "refuse":
            raise CompileError("this chip has no adders", remedy="use another")
        if how == "raise":
            raise RuntimeError("the tiler lost its tiles")
        names = [NAMES[str(n.target)] for n in compute_nodes(program)]
        files = {"ballast": bytes(1 << 20)} if how == "big" else {}
        return Artifact("vendor/1", files, metadata={"how": how, "names": names, "process": os.getpid()})

    def load(self, artifact, device):
        how = artifact.metadata["how"]
        if how == "raise on load" and artifact.metadata["process"] != os.getpid():
            raise ArtifactError("the driver knows this process only", remedy="compile again")
        return Chain(how, artifact.metadata["names"])

@hookimpl
def hardpoint_backend_info():
    return BackendInfo(
        requires_api=(1, 0), summary="a vendor's", precisions=PRECISIONS,
        options={"how": "what goes wrong"}, cpu_kernels=True,
        variants={how: {"how": how} for how in VARIANTS},
    )

@hookimpl
def hardpoint_backend_probe(request):
    return Probe.ready(Device("0", "vendor's chip"))

@hookimpl
def hardpoint_backend_open(config):
    return Vendor()
"""


def vendor(*variants: str, default: str = "", precisions: tuple[str, ...] = ("fp32",)) -> str:
    """The module's source, with these variants; ``default`` goes wrong where none is asked for."""
    source = VENDOR.replace("{VARIANTS}", repr(variants)).replace("{DEFAULT}", repr(default))
    return source.replace("=PRECISIONS", f"={precisions!r}")
