"""What both formats give: names, and where the bytes of each storage begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hardpoint import WeightsError
from hardpoint_checkpoint.refuse import DAMAGED, NEEDS_MORE, refuse
from hardpoint_checkpoint.standins import Refused
from hardpoint_checkpoint.tree import Content


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An understood file.

    :param places: byte of the file at which the data of each storage begins.
    """

    content: Content
    places: Mapping[str, int]


def refuse_pickle(file: str, where: str, error: Refused) -> WeightsError:
    """The error about a pickle in a file."""
    if error.remedy == NEEDS_MORE:
        what = "the checkpoint asks for more than tensors and plain data"
    else:
        what = "the checkpoint is broken"
    cause = f"byte {error.at} of its pickle ({where}): {error}"
    return refuse(file, what, cause, error.remedy or DAMAGED)
