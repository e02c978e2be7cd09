"""The whole models that the kit runs on a backend: small, with fixed weights, of every family."""

from __future__ import annotations

from collections.abc import Mapping

from hardpoint.testing.models.case import Case
from hardpoint.testing.models.pretrained import ENCODER, MIXTURE, SENTENCES
from hardpoint.testing.models.sequences import DECODER, RECURRENT
from hardpoint.testing.models.vision import CONVOLUTIONAL, DIFFUSION

MODELS: Mapping[str, Case] = {
    case.name: case
    for case in (CONVOLUTIONAL, ENCODER, DECODER, MIXTURE, DIFFUSION, RECURRENT, SENTENCES)
}
