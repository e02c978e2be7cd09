"""Whole models on the backend alone."""

from __future__ import annotations

from typing import Any

from hardpoint.testing.backend.bench import bench_of
from hardpoint.testing.backend.chosen import choose, run
from hardpoint.testing.check import check, skip_unless
from hardpoint.testing.subject import Subject


class ModelChecks:
    """Models that it claims whole: one check for each family."""

    @check("computes")
    def test_model_convolutional(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A residual convolutional network, if it claims it whole, is right."""
        _whole(subject, figures, "convolutional")

    @check("computes")
    def test_model_encoder(self, subject: Subject, figures: dict[str, Any]) -> None:
        """An encoder (BERT), if it claims it whole, is right."""
        _whole(subject, figures, "encoder")

    @check("computes")
    def test_model_decoder(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A decoder with a key-value cache, if it claims it whole, is right step after step."""
        _whole(subject, figures, "decoder")

    @check("computes")
    def test_model_mixture(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A mixture of experts (Mixtral), if it claims it whole, is right."""
        _whole(subject, figures, "mixture")

    @check("computes")
    def test_model_diffusion(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A block of a diffusion model, if it claims it whole, is right."""
        _whole(subject, figures, "diffusion")

    @check("computes")
    def test_model_recurrent(self, subject: Subject, figures: dict[str, Any]) -> None:
        """An LSTM, if it claims it whole, is right."""
        _whole(subject, figures, "recurrent")

    @check("computes")
    def test_model_sentences(self, subject: Subject, figures: dict[str, Any]) -> None:
        """The trained all-MiniLM-L6-v2, if it claims it whole, is right."""
        _whole(subject, figures, "sentences")


def _whole(subject: Subject, figures: dict[str, Any], name: str) -> None:
    bench = bench_of(subject)
    chosen = choose(bench, name, figures)
    refusal = bench.refusal(chosen.program)
    skip_unless(not refusal, f"it does not claim all of it; unclaimed are {refusal}")
    run(bench, chosen, None, figures)
