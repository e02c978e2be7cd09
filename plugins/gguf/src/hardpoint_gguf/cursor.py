"""Reading a header forwards, of which nobody knows the length, and never past the file's end."""

from __future__ import annotations

import struct

from hardpoint import WeightsError
from hardpoint.storage.source import Source
from hardpoint_gguf.refuse import refuse, show

_WINDOW = 1 << 20
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Cursor:
    """A place in a file, and a mebibyte of what follows it."""

    def __init__(self, source: Source) -> None:
        self.file = source.name
        self._source = source
        self._window = b""
        self._base = 0  # byte of the file at which the window begins
        self._at = 0  # in the window

    @property
    def place(self) -> int:
        """Byte of the file that comes next."""
        return self._base + self._at

    @property
    def left(self) -> int:
        """Bytes of the file from here on."""
        return self._source.size - self.place

    def take(self, count: int, what: str) -> bytes:
        """The next ``count`` bytes.

        :raises WeightsError: there are fewer.
        """
        self._need(count, what)
        self._at += count
        return self._window[self._at - count : self._at]

    def skip(self, count: int, what: str) -> None:
        """Pass over ``count`` bytes, unread.

        :raises WeightsError: there are fewer.
        """
        if count > self.left:
            raise self.short(count, what)
        self._at += count

    def u32(self, what: str) -> int:
        """The next four bytes, as a whole number."""
        number: int = _U32.unpack(self.take(4, what))[0]
        return number

    def u64(self, what: str) -> int:
        """The next eight bytes, as a whole number."""
        number: int = _U64.unpack(self.take(8, what))[0]
        return number

    def text(self, what: str, most: int) -> str:
        """The next string: its length, then UTF-8.

        :raises WeightsError: it is longer than ``most`` bytes, or than the file, or not UTF-8.
        """
        length = self.u64(what)
        if length > self.left:
            raise self.short(length, what)
        if length > most:
            raise self.broken(f"{what} has {length} bytes; at most {most} are allowed")
        raw = self.take(length, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.broken(f"{what} is not UTF-8: {show(raw)}") from error

    def skip_texts(self, count: int, what: str) -> None:
        """Pass over ``count`` strings. Their number must be bounded by the caller.

        :raises WeightsError: the file has fewer.
        """
        unpack = _U64.unpack_from
        while count:
            self._need(8, what)
            window, at = self._window, self._at
            last = len(window) - 8
            # Vocabularies have hundreds of thousands: a tight loop.
            while count and at <= last:
                at += 8 + unpack(window, at)[0]
                count -= 1
            self.skip(at - self._at, what)

    def short(self, count: int, what: str) -> WeightsError:
        """The error of a file that ends before ``what``."""
        return refuse(
            self.file,
            "the file is cut short",
            f"{what} takes {count} bytes, and {self.left} follow",
        )

    def broken(self, cause: str) -> WeightsError:
        """The error of a header that breaks a rule."""
        return refuse(self.file, "the header is broken", cause)

    def _need(self, count: int, what: str) -> None:
        """Have ``count`` bytes from here on in the window."""
        if self._at + count <= len(self._window):
            return
        if count > self.left:
            raise self.short(count, what)
        self._base, self._at = self.place, 0
        self._window = self._source.read(
            self._base, max(count, min(_WINDOW, self._source.size - self._base))
        )
