"""PyTorch's switches that change what float32 and half precision mean on a GPU.

They belong to the process, and their defaults are narrower than what was asked for: convolutions
and recurrent layers round float32 to TF32 (10 bits of mantissa), and sums of half-precision
products may be rounded on their way. So each call holds the switches as its artifact says. Calls
that want the same go on side by side; one that wants another setting waits for them, and those that
come after it wait for it; the last one puts everything back.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Setting:
    """``matmul``, ``conv``, ``rnn``: "ieee", "tf32" or "none" (as PyTorch's general setting says);
    the rest: whether partial sums may be held in half precision.
    """

    matmul: str
    conv: str
    rnn: str
    fp16_sums: object = False
    bf16_sums: object = False
    fp16_accumulation: bool = False


EXACT = Setting("ieee", "ieee", "ieee")
TF32 = Setting("tf32", "tf32", "tf32")


def _cudnn() -> Any:
    """Its switches are made when it is imported, where no type checker sees them."""
    return torch.backends.cudnn


def read() -> Setting:
    """The switches as they are now."""
    matmul, cudnn = torch.backends.cuda.matmul, _cudnn()
    return Setting(
        matmul=matmul.fp32_precision,
        conv=cudnn.conv.fp32_precision,
        rnn=cudnn.rnn.fp32_precision,
        fp16_sums=matmul.allow_fp16_reduced_precision_reduction,
        bf16_sums=matmul.allow_bf16_reduced_precision_reduction,
        fp16_accumulation=matmul.allow_fp16_accumulation,
    )


def write(setting: Setting) -> None:
    """Set them all."""
    matmul, cudnn = torch.backends.cuda.matmul, _cudnn()
    matmul.fp32_precision = setting.matmul
    cudnn.conv.fp32_precision = setting.conv
    cudnn.rnn.fp32_precision = setting.rnn
    matmul.allow_fp16_reduced_precision_reduction = setting.fp16_sums
    matmul.allow_bf16_reduced_precision_reduction = setting.bf16_sums
    matmul.allow_fp16_accumulation = setting.fp16_accumulation


class _Switches:
    """Who holds them, and what they were before."""

    def __init__(self) -> None:
        self.free = threading.Condition()
        self.holders = 0
        self.waiting: deque[object] = deque()
        self.setting: Setting | None = None
        self.before: Setting | None = None


_SWITCHES = _Switches()


class Held:
    """``with Held(EXACT): ...``: the switches are so inside, whoever else computes meanwhile.

    Not for a thread that holds them already: it might wait for itself.
    """

    __slots__ = ("_wanted",)

    def __init__(self, wanted: Setting) -> None:
        self._wanted = wanted

    def __enter__(self) -> None:
        with _SWITCHES.free:
            if _SWITCHES.holders and (_SWITCHES.waiting or self._wanted != _SWITCHES.setting):
                self._queue()
            if not _SWITCHES.holders:
                before = read()
                if before != self._wanted:
                    write(self._wanted)
                _SWITCHES.before, _SWITCHES.setting = before, self._wanted
            _SWITCHES.holders += 1

    def _queue(self) -> None:
        """Wait for those who came before; the lock is held."""
        me = object()
        _SWITCHES.waiting.append(me)
        try:
            _SWITCHES.free.wait_for(
                lambda: (
                    _SWITCHES.waiting[0] is me
                    and (not _SWITCHES.holders or self._wanted == _SWITCHES.setting)
                )
            )
        finally:
            _SWITCHES.waiting.remove(me)
            _SWITCHES.free.notify_all()  # the next one may want the same

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _SWITCHES.free:
            _SWITCHES.holders -= 1
            if not _SWITCHES.holders:
                before = _SWITCHES.before
                if before is not None and before != _SWITCHES.setting:
                    write(before)
                _SWITCHES.before = _SWITCHES.setting = None
                _SWITCHES.free.notify_all()
