"""Serializers with one flaw each: what they write is not what they were given.

They derive from the first-party one, which is correct: what a class here does differently is all
that is wrong with it.
"""

import torch

from hardpoint import Probe, Reader, SerializerInfo, WeightsError, hookimpl
from hardpoint_safetensors.serializer import SafetensorsSerializer


class Provider:
    """The hooks."""

    def __init__(self, serializer, **facts):
        self.serializer = serializer
        self.facts = {"suffixes": (".safetensors",), "summary": "a mutant", **facts}

    @hookimpl
    def hardpoint_serializer_info(self):
        return SerializerInfo(requires_api=(1, 0), **self.facts)

    @hookimpl
    def hardpoint_serializer_probe(self, request):
        return Probe.ready()

    @hookimpl
    def hardpoint_serializer_open(self, config):
        return self.serializer()


class Wrapped(Reader):
    """A correct reader, to be spoiled in one method."""

    def __init__(self, reader):
        self.reader = reader

    def __getitem__(self, name):
        return self.reader[name]

    def __iter__(self):
        return iter(self.reader)

    def __len__(self):
        return len(self.reader)

    def __contains__(self, name):
        return name in self.reader

    @property
    def metadata(self):
        return self.reader.metadata

    def tensor(self, name):
        return self.reader.tensor(name)

    def slice(self, name, index):
        return self.reader.slice(name, index)

    def close(self):
        self.reader.close()


def reading(cls):
    """A provider whose readers are wrapped in `cls`."""

    class Serializer(SafetensorsSerializer):
        def open(self, path, *, device="cpu"):
            return cls(super().open(path, device=device))

    return Provider(Serializer)


def saving(change):
    """A provider that saves what `change(tensors, metadata)` gives instead."""

    class Serializer(SafetensorsSerializer):
        def save(self, tensors, path, *, metadata=None):
            tensors, metadata = change(tensors, metadata)
            super().save(tensors, path, metadata=metadata)

    return Provider(Serializer)


# --- round trips


def _widened(tensors, metadata):
    wide = {torch.float8_e5m2: torch.float16, torch.bfloat16: torch.float32}
    return {n: t.to(wide.get(t.dtype, t.dtype)) for n, t in tensors.items()}, metadata


def _quiet_nans(tensors, metadata):
    return {
        n: torch.nan_to_num(t) if t.dtype is torch.float32 else t for n, t in tensors.items()
    }, metadata


widens_bfloat16 = saving(_widened)
loses_nan_payloads = saving(_quiet_nans)
makes_scalars_vectors = saving(
    lambda tensors, metadata: (
        {n: t.reshape(1) if t.dim() == 0 else t for n, t in tensors.items()},
        metadata,
    )
)
cuts_names = saving(
    lambda tensors, metadata: ({name[:255]: t for name, t in tensors.items()}, metadata)
)
drops_metadata = saving(lambda tensors, metadata: (tensors, None))


class RefusesWithoutName(SafetensorsSerializer):
    def save(self, tensors, path, *, metadata=None):
        if any(t.dtype is torch.int16 for t in tensors.values()):
            raise WeightsError("there is a dtype in it that will not do")
        super().save(tensors, path, metadata=metadata)


class RefusesRaw(SafetensorsSerializer):
    def save(self, tensors, path, *, metadata=None):
        codes = {torch.float32: 0, torch.float16: 1}
        for tensor in tensors.values():
            codes[tensor.dtype]
        super().save(tensors, path, metadata=metadata)


class IgnoresStrides(SafetensorsSerializer):
    """Writes the memory as it lies."""

    def save(self, tensors, path, *, metadata=None):
        flat = {
            n: torch.as_strided(t.detach().resolve_conj().resolve_neg(), t.shape, _plain(t.shape))
            if t.untyped_storage().nbytes() >= t.numel() * t.element_size()
            else t
            for n, t in tensors.items()
        }
        super().save(flat, path, metadata=metadata)


def _plain(shape):
    strides = []
    step = 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= max(size, 1)
    return strides


class SplitsLarge(SafetensorsSerializer):
    """Forgets the tensors after the thousandth."""

    def save(self, tensors, path, *, metadata=None):
        super().save(dict(list(tensors.items())[:1000]), path, metadata=metadata)


refuses_without_name = Provider(RefusesWithoutName)
refuses_raw = Provider(RefusesRaw)
ignores_strides = Provider(IgnoresStrides)
splits_large = Provider(SplitsLarge)
