"""Checkpoints made by hand, byte by byte: whatever a writer would never write."""

import struct
import zlib


def zipped(members, *, edit=None, tail=b"", local=None, central=None, gap=b""):
    """A zip archive of stored members ``[(name, data)]``.

    ``local`` and ``central`` change the fields of a header: ``f(name, fields)``; ``gap`` goes
    before each header but the first.
    """
    out, directory = bytearray(), bytearray()
    for name, data in members:
        if out:
            out += gap
        at, raw = len(out), name.encode()
        fields = {
            "flags": 0, "method": 0, "crc": zlib.crc32(data), "packed": len(data),
            "size": len(data), "name": raw, "extra": b"", "at": at,
            "attributes": 0,
        }  # fmt: skip
        here = {**fields, **(local(name, fields) if local else {})}
        there = {**fields, **(central(name, fields) if central else {})}
        out += struct.pack(
            "<4s5H3I2H", b"PK\x03\x04", 0, here["flags"], here["method"], 0, 0, here["crc"],
            here["packed"], here["size"], len(here["name"]), len(here["extra"]),
        ) + here["name"] + here["extra"] + data  # fmt: skip
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 0, 0, there["flags"], there["method"], 0, 0,
            there["crc"], there["packed"], there["size"], len(there["name"]),
            len(there["extra"]), 0, 0, 0, there["attributes"], there["at"],
        ) + there["name"] + there["extra"]  # fmt: skip
    end = {"count": len(members), "size": len(directory), "at": len(out), "comment": 0}
    end.update(edit or {})
    return bytes(out + directory) + struct.pack(
        "<4s4H2IH", b"PK\x05\x06", 0, 0, end["count"], end["count"], end["size"], end["at"],
        end["comment"],
    ) + tail  # fmt: skip


def text(value):
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + raw


def tup(*parts):
    return b"(" + b"".join(parts) + b"t"


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def storage(key="0", count=4, kind="FloatStorage", place="cpu"):
    module = "torch.storage" if kind == "UntypedStorage" else "torch"
    parts = [text("storage"), name(module, kind), text(key), text(place), number(count)]
    return tup(*parts) + b"Q"


def tensor(size=(2, 2), stride=(2, 1), offset=0, within=None, more=b""):
    return (
        name("torch._utils", "_rebuild_tensor_v2")
        + tup(
            within if within is not None else storage(),
            number(offset),
            tup(*map(number, size)),
            tup(*map(number, stride)),
            b"\x89",
            name("collections", "OrderedDict") + b")R",
            more,
        )
        + b"R"
    )


def dictionary(**values):
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def pickled(body, protocol=2):
    return b"\x80" + bytes([protocol]) + body + b"."


DATA = struct.pack("<4f", 1, 2, 3, 4)


def members(body, data=None, *, order=b"little", version=b"3\n"):
    """The usual members of an archive whose pickle is ``body``."""
    found = [("a/data.pkl", body)]
    if order is not None:
        found.append(("a/byteorder", order))
    found += [(f"a/data/{key}", raw) for key, raw in (data or {"0": DATA}).items()]
    return [*found, ("a/version", version)]


def checkpoint(body, data=None, **how):
    return zipped(members(pickled(body), data), **how)
