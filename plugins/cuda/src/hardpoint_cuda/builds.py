"""What the installed PyTorch was built for, told without importing it."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path


def torch_version() -> dict[str, str]:
    """``version``, and ``cuda``, ``hip`` where it was built for them; empty: no torch is installed.

    They stand as literals in ``torch/version.py``; importing torch takes a second.
    """
    if "torch" in sys.modules:
        import torch

        told = {"version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip}
        return {name: str(value) for name, value in told.items() if value}
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    path = Path(spec.origin).with_name("version.py")
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        value = statement.value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            found |= {t.id: value.value for t in targets if isinstance(t, ast.Name)}
    names = {"__version__": "version", "cuda": "cuda", "hip": "hip"}
    return {names[name]: value for name, value in found.items() if name in names}
