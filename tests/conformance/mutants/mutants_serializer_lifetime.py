"""Serializers with one flaw each: what they hold on to, let go of too soon, or read otherwise."""

import mmap
import os
import threading
import time
from pathlib import Path

import torch
from mutants_serializer import Provider, Wrapped, reading

from hardpoint import WeightsError
from hardpoint_safetensors.serializer import SafetensorsSerializer

# --- lifetime


class Unmaps(SafetensorsSerializer):
    """Unmaps the file when the reader is closed; the tensors point to nothing."""

    def open(self, path, *, device="cpu"):
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

        class Mapped(Wrapped):
            def tensor(self, name):
                info = self.reader[name]
                dtype = getattr(torch, info.dtype)
                count = max(1, info.nbytes // dtype.itemsize)
                whole = torch.frombuffer(memory, dtype=dtype, count=count, offset=info.offset)
                return whole.reshape(info.shape)

            def close(self):
                super().close()
                memory.close()

        return Mapped(super().open(path, device=device))


class WritesThrough(SafetensorsSerializer):
    """Maps the file shared, so that a write to a tensor is one to the file."""

    def open(self, path, *, device="cpu"):
        class Mapped(Wrapped):
            def tensor(self, name):
                info = self.reader[name]
                size = path.stat().st_size
                raw = torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)
                part = raw[info.offset : info.offset + info.nbytes]
                return part.view(getattr(torch, info.dtype)).view(info.shape)

        return Mapped(super().open(path, device=device))


class LeaksDescriptors(SafetensorsSerializer):
    kept = []

    def open(self, path, *, device="cpu"):
        self.kept.append(os.open(path, os.O_RDONLY))
        return super().open(path, device=device)


class LeaksThreads(SafetensorsSerializer):
    """A thread that reads ahead for each file, and never ends."""

    def open(self, path, *, device="cpu"):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return super().open(path, device=device)


class OneReader(SafetensorsSerializer):
    """Keeps the file at hand in itself: two threads read each other's."""

    def open(self, path, *, device="cpu"):
        self.current = super().open(path, device=device)
        time.sleep(0.001)  # the others' turn
        outer = self

        class Shared(Wrapped):
            def tensor(self, name):
                return outer.current.tensor(name)

            def close(self):
                outer.current.close()

        return Shared(self.current)


unmaps = Provider(Unmaps)
writes_through = Provider(WritesThrough)
leaks_descriptors = Provider(LeaksDescriptors)
leaks_threads = Provider(LeaksThreads)
one_reader = Provider(OneReader)


# --- golden files


class OtherEndian(Wrapped):
    """Takes int64 for the other way round."""

    def tensor(self, name):
        tensor = self.reader.tensor(name)
        if tensor.dtype is torch.int64:
            raw = tensor.reshape(-1).view(torch.uint8).reshape(-1, 8).flip(1)
            return raw.contiguous().view(torch.int64).reshape(tensor.shape)
        return tensor


class ForgetsOldFiles(SafetensorsSerializer):
    def open(self, path, *, device="cpu"):
        if Path(path).read_bytes()[9:10] != b"_":
            raise WeightsError(f"{path}: this version reads files with metadata only")
        return super().open(path, device=device)


other_endian = reading(OtherEndian)
forgets_old_files = Provider(ForgetsOldFiles)
