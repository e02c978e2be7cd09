"""Inputs with eager PyTorch's results, in a file. Light: what merely runs a package reads it.

``torch.export`` takes a second to import, which must not count as a package's cold start.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from hardpoint.package.archive import Archive
from hardpoint.package.tensors import TensorStore, tensor_from_ref
from hardpoint.package.writer import ArchiveWriter

JOB = "extra/hardpoint/job.json"


@dataclass(frozen=True, eq=False)
class Inputs:
    """Flat inputs of a program and what eager PyTorch gives for them.

    :param expected: empty where the program draws random numbers.
    :param names: of the results. :param samples: in one call.
    """

    inputs: tuple[torch.Tensor, ...]
    expected: tuple[torch.Tensor, ...]
    names: tuple[str, ...]
    samples: int


def write_inputs(path: Path, made: Inputs) -> None:
    """``made``, as :func:`read_inputs` takes it."""
    with ArchiveWriter(path) as writer:
        store = TensorStore(writer)
        described = {
            "inputs": [store.put(t) for t in made.inputs],
            "expected": [store.put(t) for t in made.expected],
            "names": list(made.names),
            "samples": made.samples,
        }
        writer.add(JOB, json.dumps(described).encode())


def read_inputs(path: Path) -> Inputs:
    """What :func:`write_inputs` wrote, in memory of its own."""
    archive = Archive.open(path)
    described = archive.read_json(JOB)

    def tensors(key: str) -> tuple[torch.Tensor, ...]:
        return tuple(tensor_from_ref(archive, ref).clone() for ref in described[key])

    return Inputs(
        tensors("inputs"), tensors("expected"), tuple(described["names"]), described["samples"]
    )
