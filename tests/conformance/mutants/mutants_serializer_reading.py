"""Serializers with one flaw each: their readers, and what they take for a file of theirs."""

from mutants_serializer import Provider, Wrapped, reading

from hardpoint import TensorInfo, WeightsError
from hardpoint_safetensors.serializer import SafetensorsSerializer

# --- the reader


class RaisesOnGet(Wrapped):
    def __getitem__(self, name):
        if name not in self.reader:
            raise WeightsError(f"no tensor {name}")
        return self.reader[name]

    def __contains__(self, name):
        return name in self.reader


class LiesAboutDtype(Wrapped):
    def __getitem__(self, name):
        info = self.reader[name]
        return TensorInfo(info.name, info.dtype.upper(), info.shape, info.nbytes, info.file)


class ListShapes(Wrapped):
    def __getitem__(self, name):
        info = self.reader[name]
        return TensorInfo(info.name, info.dtype, list(info.shape), info.nbytes, info.file)


class NumberedMetadata(Wrapped):
    @property
    def metadata(self):
        return {"tensors": len(self.reader), **self.reader.metadata}


class Unhelpful(Wrapped):
    def tensor(self, name):
        if name not in self.reader:
            raise WeightsError(f"there is no tensor {name}")
        return self.reader.tensor(name)


class MissingIsKeyError(Wrapped):
    def slice(self, name, index):
        self.reader[name]
        return self.reader.slice(name, index)


class ClosesOnce(Wrapped):
    closed = False

    def close(self):
        if self.closed:
            raise ValueError("already closed")
        self.closed = True
        self.reader.close()


class AnyDevice(SafetensorsSerializer):
    def open(self, path, *, device="cpu"):
        return super().open(path)


class BySuffix(SafetensorsSerializer):
    def recognizes(self, path):
        return path.suffix == ".safetensors" and super().recognizes(path)


class RecognizesJson(SafetensorsSerializer):
    """Takes whatever is JSON for its own."""

    def recognizes(self, path):
        return super().recognizes(path) or (path.is_file() and path.read_bytes()[:1] == b"{")


class RecognizesLoudly(SafetensorsSerializer):
    def recognizes(self, path):
        return path.read_bytes()[8] == ord("{") and super().recognizes(path)


class RecognizesMissing(SafetensorsSerializer):
    """Expects that there is something."""

    def recognizes(self, path):
        path.stat()
        return super().recognizes(path)


class RecognizesPipes(SafetensorsSerializer):
    """Waits for a pipe's writer."""

    def recognizes(self, path):
        if path.exists() and not path.is_dir():
            with path.open("rb") as file:
                file.read(1)
        return super().recognizes(path)


raises_on_get = reading(RaisesOnGet)
lies_about_dtype = reading(LiesAboutDtype)
list_shapes = reading(ListShapes)
numbered_metadata = reading(NumberedMetadata)
unhelpful = reading(Unhelpful)
missing_is_key_error = reading(MissingIsKeyError)
closes_once = reading(ClosesOnce)
any_device = Provider(AnyDevice)
by_suffix = Provider(BySuffix)
recognizes_json = Provider(RecognizesJson)
recognizes_loudly = Provider(RecognizesLoudly)
recognizes_missing = Provider(RecognizesMissing)
recognizes_pipes = Provider(RecognizesPipes)


# --- slices


class StepsAreOne(Wrapped):
    def slice(self, name, index):
        if isinstance(index, slice) and index.step:
            index = slice(index.start, index.stop)
        return self.reader.slice(name, index)


class Clamps(Wrapped):
    """Takes the last row for one that is not there."""

    def slice(self, name, index):
        size = self.reader[name].shape[0] if self.reader[name].shape else 0
        if type(index) is int and size:
            index = max(min(index, size - 1), -size)
        return self.reader.slice(name, index)


class RawIndexError(Wrapped):
    def slice(self, name, index):
        return self.reader.tensor(name)[index]


class ReadsAll(Wrapped):
    def slice(self, name, index):
        self.reader.slice(name, index)
        return self.reader.tensor(name).clone()[index]


steps_are_one = reading(StepsAreOne)
clamps = reading(Clamps)
raw_index_error = reading(RawIndexError)
reads_all = reading(ReadsAll)
