"""Small programs for the tests of the backend."""

import warnings

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
