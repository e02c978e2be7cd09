"""Around each call: the device, the switches of arithmetic, errors in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from hardpoint import Executable
from hardpoint_cuda.arithmetic import Held, Setting, read
from hardpoint_cuda.faults import translated
from hardpoint_cuda.pinned import to_pinned
from hardpoint_cuda.vendor import Hardware, Vendor


class GpuExecutable(Executable):
    """An executable of any mode, run on its device and on the caller's current stream there.

    Whoever uses the results on that stream, or copies them away by PyTorch, sees them whole.

    :param inner: runs with inputs that are on the device.
    :param facts: gives what is known of the artifact; :meth:`facts` adds what is read back.
    :param pinned: results that go to the CPU are copied into pinned memory.
    """

    def __init__(
        self,
        inner: Executable,
        hardware: Hardware,
        vendor: Vendor,
        setting: Setting,
        facts: Callable[[], Mapping[str, object]],
        pinned: bool = False,
    ) -> None:
        self._inner = inner
        self._hardware = hardware
        self._vendor = vendor
        self._setting = setting
        self._facts = facts
        self._pinned = pinned

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run.

        :raises OutOfMemory: the device's memory ran out.
        :raises DeviceLost: no call of this process can use the device any more.
        """
        try:
            with torch.cuda.device(self._hardware.index), Held(self._setting):
                return self._inner(*inputs)
        except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
            failure = translated(error, self._hardware, self._vendor)
            if failure is None:
                raise
            raise failure from error

    def facts(self) -> Mapping[str, object]:
        """The artifact's facts, the device's, and the switches as a call really finds them."""
        with Held(self._setting):
            now = read()
        tf32 = sorted(
            name
            for name, value in (("matmul", now.matmul), ("conv", now.conv), ("rnn", now.rnn))
            if value == "tf32"
        )
        hardware = self._hardware
        return {
            **self._facts(),
            "device": hardware.name,
            "arch": hardware.arch,
            "tf32": tf32,
            "pinned": self._pinned,
        }

    def to_cpu(self, tensor: torch.Tensor) -> torch.Tensor:
        """A result on the CPU, pinned if that was asked for.

        :raises OutOfMemory: the CPU's memory could not be pinned.
        """
        if not self._pinned:
            return super().to_cpu(tensor)
        return to_pinned(tensor, self._hardware, self._vendor)

    def close(self) -> None:
        """Let go of the device's memory."""
        self._inner.close()
