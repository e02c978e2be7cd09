"""Small programs for the tests of the backend."""

import warnings
from pathlib import Path

import torch


class Calls(torch.nn.Module):
    """A model that is one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def exported(model, *inputs, dynamic=None):
    """A program as a backend gets it: flat, functional."""
    if not isinstance(model, torch.nn.Module):
        model = Calls(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(model.eval(), inputs, dynamic_shapes=dynamic, strict=False)


def resident_of(path):
    """Bytes of a file's mappings that are in this process's memory."""
    found, counting = 0, False
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            counting = line.endswith(str(path))
        elif counting and first == "Rss:":
            found += int(line.split()[1]) * 1024
    return found
