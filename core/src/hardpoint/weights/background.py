"""Saving a training state while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from hardpoint.errors import WeightsError
from hardpoint.weights.convert import save_weights

if TYPE_CHECKING:
    import torch

    from hardpoint.registry.registry import Registry

_ALIGNMENT = 64


class BackgroundSaver:
    """Saves copies of tensors in a thread: :meth:`save` takes no longer than copying them.

    The copies are in one buffer that is kept for the next save (pinned where tensors come from
    CUDA), so memory for one copy of the state is needed, and at most one save is under way: the
    next waits for it. Use it as a context manager, or call :meth:`close`: an error of a save is
    raised by the next call, or there.

    :param format: the serializer; by default the one of the path's suffix.
    """

    def __init__(self, *, format: str | None = None, registry: Registry) -> None:  # noqa: A002
        self._format = format
        self._registry = registry
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hardpoint-save")
        self._running: Future[None] | None = None
        self._path: Path | None = None
        self._buffer: torch.Tensor | None = None
        self._closed = False

    def save(
        self,
        tensors: Mapping[str, torch.Tensor],
        path: str | Path,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> Future[None]:
        """Copy ``tensors`` now, and write ``path`` atomically in the background.

        When this returns they may be changed. The future is done when the file is durable.

        :raises WeightsError: the save before this one failed, or the saver is closed.
        """
        if self._closed:
            raise WeightsError(
                f"{path} cannot be saved",
                cause="the saver is closed",
                remedy="make another, or close it later",
            )
        self.wait()
        copies = self._copy(tensors)
        self._path = Path(path)
        self._running = self._pool.submit(
            save_weights,
            copies,
            self._path,
            registry=self._registry,
            format=self._format,
            metadata=dict(metadata or {}),
            progress=False,  # the terminal belongs to the training
        )
        return self._running

    def wait(self) -> None:
        """Until what is under way is written.

        :raises WeightsError: it failed; what was there before is unchanged.
        """
        if self._running is None:
            return
        try:
            self._running.result()
        finally:
            # Not where waiting was interrupted: its thread still reads the buffer.
            if self._running.done():
                self._running = None

    def close(self) -> None:
        """Wait, and let go of the memory. Safe to call twice.

        :raises WeightsError: the last save failed.
        """
        self._closed = True
        try:
            self.wait()
        finally:
            self._pool.shutdown()
            self._buffer = None

    def __enter__(self) -> BackgroundSaver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Two errors at once: the one of the body is the one to see, and names this as its context.
        self.close()

    def _copy(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Copies in the buffer, complete when this returns."""
        import torch

        from hardpoint.storage.typed import TensorsOver

        plain: dict[str, torch.Tensor] = {}
        places, free = {}, 0
        for name, tensor in tensors.items():
            if not _is_plain(tensor):
                plain[name] = tensor  # the serializer says what it thinks of it
                continue
            places[name] = free
            free += -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT
        on_cuda = any(tensors[name].is_cuda for name in places)
        buffer = self._room(free, pinned=on_cuda)
        over, first = TensorsOver(buffer.untyped_storage()), int(buffer.storage_offset())
        with torch.no_grad():
            for name, at in places.items():
                tensor = tensors[name]
                copy = over(first + at, tensor.dtype, tuple(tensor.shape))
                plain[name] = copy.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        for device in {tensors[name].device for name in places if tensors[name].is_cuda}:
            torch.cuda.current_stream(device).synchronize()
        return {name: plain[name] for name in tensors}

    def _room(self, nbytes: int, *, pinned: bool) -> torch.Tensor:
        import torch

        from hardpoint.storage.buffers import allocate

        if self._buffer is None or self._buffer.numel() < nbytes:
            self._buffer = None  # the old one goes first
            self._buffer = (
                torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
                if pinned
                else allocate(nbytes)
            )
        return self._buffer


def _is_plain(tensor: object) -> bool:
    import torch

    from hardpoint.storage.memory import why_not_plain

    return (
        isinstance(tensor, torch.Tensor)
        and not torch.nn.parameter.is_lazy(tensor)
        and not tensor.is_quantized
        and not why_not_plain(tensor)
    )
