"""Models split between the backend and the kit's host."""

from __future__ import annotations

from typing import Any

from hardpoint.testing.backend.bench import bench_of
from hardpoint.testing.backend.chosen import choose, run
from hardpoint.testing.backend.split import FirstFit, alternate
from hardpoint.testing.check import check, skip_unless
from hardpoint.testing.subject import Subject

# About how many pieces of an alternating split fall to the backend: each is compiled.
PIECES = 12


class PartsChecks:
    """What it claims of each model runs there, the rest on the host; then only half of that."""

    @check("partitions")
    def test_parts_of_convolutional(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A convolutional network, split two ways between it and a host, is right."""
        _parts(subject, figures, "convolutional")

    @check("partitions")
    def test_parts_of_encoder(self, subject: Subject, figures: dict[str, Any]) -> None:
        """An encoder (BERT), split two ways between it and a host, is right."""
        _parts(subject, figures, "encoder")

    @check("partitions")
    def test_parts_of_decoder(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A decoder with a key-value cache, split two ways between it and a host, is right."""
        _parts(subject, figures, "decoder")

    @check("partitions")
    def test_parts_of_mixture(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A mixture of experts (Mixtral), split two ways between it and a host, is right."""
        _parts(subject, figures, "mixture")

    @check("partitions")
    def test_parts_of_diffusion(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A block of a diffusion model, split two ways between it and a host, is right."""
        _parts(subject, figures, "diffusion")

    @check("partitions")
    def test_parts_of_recurrent(self, subject: Subject, figures: dict[str, Any]) -> None:
        """An LSTM, split two ways between it and a host, is right."""
        _parts(subject, figures, "recurrent")

    @check("partitions")
    def test_parts_of_sentences(self, subject: Subject, figures: dict[str, Any]) -> None:
        """The trained all-MiniLM-L6-v2, split two ways between it and a host, is right."""
        _parts(subject, figures, "sentences")


def _parts(subject: Subject, figures: dict[str, Any], name: str) -> None:
    bench = bench_of(subject)
    chosen = choose(bench, name, figures)
    skip_unless(chosen.claimed, f"it claims nothing of it: {bench.refusal(chosen.program)}")
    for split, partitioner in (
        ("all_claimed", FirstFit()),
        ("every_second", FirstFit(alternate(PIECES))),
    ):
        figures[split] = {}
        run(bench, chosen, partitioner, figures[split])
