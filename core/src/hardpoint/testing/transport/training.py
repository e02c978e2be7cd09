"""Checks that PyTorch's ways of training in parallel work over it."""

from __future__ import annotations

from hardpoint.testing.check import check, skip_unless
from hardpoint.testing.subject import Subject
from hardpoint.testing.transport.launcher import Launcher, Ranked
from hardpoint.testing.transport.messages import need


class Training(Ranked):
    """A step of each, equal to that of one process alone."""

    @check("trains")
    def test_ddp_trains(self, ranks: Launcher, subject: Subject) -> None:
        """DistributedDataParallel: two steps as one process alone would make them."""
        _train(ranks, subject, "ddp", "all_reduce", "all_gather", "broadcast")

    @check("trains")
    def test_fsdp2_trains(self, ranks: Launcher, subject: Subject) -> None:
        """FSDP2 (fully_shard): a step as one process alone would make it."""
        _train(ranks, subject, "fsdp2", "all_gather_into_tensor", "reduce_scatter_tensor")

    @check("trains")
    def test_tensor_parallel_trains(self, ranks: Launcher, subject: Subject) -> None:
        """DTensor's tensor parallelism: a step as one process alone would make it."""
        names = ("all_reduce", "broadcast", "scatter", "all_gather_into_tensor")
        _train(ranks, subject, "tensor_parallel", *names)

    @check("trains")
    def test_pipelining_trains(self, ranks: Launcher, subject: Subject) -> None:
        """Pipelining: the gradients of a step as one process alone would make them."""
        _train(ranks, subject, "pipeline", "send", "recv")


def _train(ranks: Launcher, subject: Subject, part: str, *collectives: str) -> None:
    need(subject, *collectives)
    dtypes, reductions = subject.info.dtypes, subject.info.reductions
    skip_unless(not dtypes or "float32" in dtypes, "it does not declare float32")
    skip_unless(not reductions or "SUM" in reductions, "it does not declare SUM")
    ranks.run(f"training:{part}", 2).judge()
