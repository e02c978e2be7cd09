"""A real, small serializer for the core's own tests: tensors as JSON text.

Everything it returns can be bent by a test (`recognizes`, `reader`), as a broken vendor's would be.
"""

import json

import torch

from hardpoint import Probe, Reader, Serializer, SerializerInfo, TensorInfo, WeightsError, hookimpl

MAGIC = "#text-weights\n"


class TextReader(Reader):
    def __init__(self, path, device):
        top = json.loads(path.read_text().removeprefix(MAGIC))
        self.path, self.device, self.top, self.closed = path, device, top, False
        self.fetched = []

    @property
    def metadata(self):
        return self.top["metadata"]

    def __iter__(self):
        return iter(self.top["tensors"])

    def __len__(self):
        return len(self.top["tensors"])

    def __getitem__(self, name):
        entry = self.top["tensors"][name]
        dtype, shape = getattr(torch, entry["dtype"]), tuple(entry["shape"])
        nbytes = torch.Size(shape).numel() * dtype.itemsize
        return TensorInfo(
            name=name, dtype=entry["dtype"], shape=shape, nbytes=nbytes, file=str(self.path)
        )

    def tensor(self, name):
        self.fetched.append(name)
        entry = self.top["tensors"][name]
        if "damaged" in entry:
            raise WeightsError(f"tensor {name} is damaged")
        dtype = getattr(torch, entry["dtype"])
        return torch.tensor(entry["values"], dtype=dtype, device=self.device).reshape(
            entry["shape"]
        )

    def slice(self, name, index):
        return self.tensor(name)[index]

    def close(self):
        self.closed = True


class TextSerializer(Serializer):
    def __init__(self):
        self.asked, self.readers = [], []
        self.recognizing = lambda path: path.read_bytes().startswith(MAGIC.encode())
        self.reading = TextReader

    def recognizes(self, path):
        self.asked.append(path)
        return self.recognizing(path)

    def open(self, path, *, device="cpu"):
        self.readers.append(self.reading(path, device))
        return self.readers[-1]

    def save(self, tensors, path, *, metadata=None):
        entries = {
            name: {
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "shape": list(tensor.shape),
                "values": tensor.flatten().tolist(),
            }
            for name, tensor in tensors.items()
        }
        path.write_text(MAGIC + json.dumps({"metadata": dict(metadata or {}), "tensors": entries}))


class TextProvider:
    """A plugin as an object, for `registry.add`."""

    def __init__(self, suffixes=(".txt",), can_save=True):
        self.serializer = TextSerializer()
        self.suffixes, self.can_save = suffixes, can_save

    @hookimpl
    def hardpoint_serializer_info(self):
        return SerializerInfo(
            requires_api=(1, 0), summary="text", suffixes=self.suffixes, can_save=self.can_save
        )

    @hookimpl
    def hardpoint_serializer_probe(self, request):
        return Probe.ready()

    @hookimpl
    def hardpoint_serializer_open(self, config):
        return self.serializer
