"""From the command line: a plan over two backends, each in its own precision."""

import json
import subprocess
import sys

MODEL = """
import torch
def small():
    torch.manual_seed(0)
    layers = torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, 4)
    return torch.nn.Sequential(*layers).eval(), (torch.randn(3, 8),)
"""


def test_a_model_is_compiled_for_both_and_runs(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)

    def hardpoint(*words):
        command = [sys.executable, "-m", "hardpoint.cli", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = hardpoint(
        "compile", "model.py:small", "-t", "simnpu", "-t", "cpu", "--precision", "simnpu=fp16",
        "-o", "m.pt2", "--json",
    )  # fmt: skip
    facts = json.loads(said)
    assert {s["target"] for s in facts["plan"]["segments"]} == {"simnpu", "cpu"}
    assert facts["verification"]["precision"] == "simnpu fp16, cpu fp32"
    assert float(facts["verification"]["max_error"]) < 1e-2
    hardpoint("run", "m.pt2", "--json")
