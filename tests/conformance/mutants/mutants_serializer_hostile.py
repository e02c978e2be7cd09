"""Serializers with one flaw each: what a damaged or hostile file does to them."""

import ctypes
import json
import pickle

from mutants_serializer import Provider

from hardpoint import WeightsError
from hardpoint_safetensors.serializer import SafetensorsSerializer


class Repairs(SafetensorsSerializer):
    """Opens another file in place of one that is refused."""

    def repaired(self, raw, error):
        """The bytes to open instead, or None."""

    def open(self, path, *, device="cpu"):
        try:
            return super().open(path, device=device)
        except WeightsError as error:
            raw = path.read_bytes() if path.is_file() else b""
            better = self.repaired(raw, str(error))
            if better is None:
                raise
            other = path.with_name(f"{path.name}.repaired.safetensors")
            other.write_bytes(better)
            return super().open(other, device=device)


class FillsUp(Repairs):
    """Takes what is missing at the end for zeros."""

    def repaired(self, raw, error):
        return raw + bytes(1) if "and 111 follow" in error else None


class IgnoresTheRest(Repairs):
    def repaired(self, raw, error):
        return raw.rstrip(b" ") if "trailing bytes" in error else None


class EmptyIsNothing(Repairs):
    """Takes an empty file for one of no tensors."""

    def repaired(self, raw, error):
        return (2).to_bytes(8, "little") + b"{}" if not raw else None


class LastKeyWins(Repairs):
    """Takes the last of several keys, as Python's parser does."""

    def repaired(self, raw, error):
        if "twice" not in error:
            return None
        length = int.from_bytes(raw[:8], "little")
        text = json.dumps(json.loads(raw[8 : 8 + length])).encode()
        return len(text).to_bytes(8, "little") + text + raw[8 + length :]


class ParsesFirst(SafetensorsSerializer):
    """Lets the parser's own errors through."""

    def open(self, path, *, device="cpu"):
        if path.is_file():
            raw = path.read_bytes()
            length = int.from_bytes(raw[:8], "little")
            if 2 <= length <= len(raw) - 8:
                json.loads(raw[8 : 8 + length])
        return super().open(path, device=device)


class Echoes(SafetensorsSerializer):
    """Quotes names in its errors as they are."""

    def open(self, path, *, device="cpu"):
        try:
            return super().open(path, device=device)
        except WeightsError as error:
            raw = path.read_bytes()
            length = int.from_bytes(raw[:8], "little")
            try:
                (name, *_) = json.loads(raw[8 : 8 + length])
            except (ValueError, RecursionError):
                raise error from None
            raise WeightsError(f"{path}: tensor {str(name)[:200]} is broken") from error


class Allocates(SafetensorsSerializer):
    """Makes room for as many bytes as the file says, before it looks."""

    def open(self, path, *, device="cpu"):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        bytes(min(length, 1 << 40))
        return super().open(path, device=device)


class Counts(SafetensorsSerializer):
    """Goes through as many entries as the file says."""

    def open(self, path, *, device="cpu"):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        for _ in range(length):
            pass
        return super().open(path, device=device)


class Jumps(SafetensorsSerializer):
    """Goes where the file says, in memory."""

    def open(self, path, *, device="cpu"):
        raw = path.read_bytes()
        kept = ctypes.create_string_buffer(raw)
        ctypes.string_at(ctypes.addressof(kept) + int.from_bytes(raw[:8], "little"), 1)
        return super().open(path, device=device)


class Waits(SafetensorsSerializer):
    """Opens whatever the path leads to."""

    def open(self, path, *, device="cpu"):
        if path.exists() and not path.is_dir():
            with path.open("rb") as file:
                file.read(1)
        return super().open(path, device=device)


class NotFound(SafetensorsSerializer):
    def open(self, path, *, device="cpu"):
        path.stat()
        return super().open(path, device=device)


class TriesPickle(SafetensorsSerializer):
    """Looks whether it is an old file, from before the format."""

    def open(self, path, *, device="cpu"):
        try:
            return super().open(path, device=device)
        except WeightsError:
            with path.open("rb") as file:
                pickle.load(file)
            raise


class Evaluates(SafetensorsSerializer):
    """Reads the header as Python: it looks like that."""

    def open(self, path, *, device="cpu"):
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        eval(raw[8 : 8 + length].decode(), {"true": True, "null": None})
        return super().open(path, device=device)


fills_up = Provider(FillsUp)
ignores_the_rest = Provider(IgnoresTheRest)
empty_is_nothing = Provider(EmptyIsNothing)
last_key_wins = Provider(LastKeyWins)
parses_first = Provider(ParsesFirst)
echoes = Provider(Echoes)
allocates = Provider(Allocates)
counts = Provider(Counts)
jumps = Provider(Jumps)
waits = Provider(Waits)
not_found = Provider(NotFound)
tries_pickle = Provider(TriesPickle)
evaluates = Provider(Evaluates)
