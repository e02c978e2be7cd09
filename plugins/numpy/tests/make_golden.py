"""Make the golden and hostile files that conformance.toml names: ``python make_golden.py``.

The golden ones are written by NumPy and by Python's zipfile, and recorded from the arrays in
memory: our own code has no part in them. They are committed and not made again, so that files of
today stay readable.
"""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch

from hardpoint.testing.serializer import record_golden
from hardpoint_numpy.dtypes import BY_CODE

HERE = Path(__file__).parent


def every_bit_pattern(code):
    raw = np.arange(256, dtype=np.uint8)
    return (raw % 2).astype(bool) if code == "b1" else raw.view(f"<{code}")


def tensors(arrays):
    return {
        name: torch.from_numpy(np.ascontiguousarray(a.astype(a.dtype.newbyteorder("="))))
        .clone()
        .reshape(a.shape)
        for name, a in arrays.items()
    }


def golden(folder):
    cube = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    dtypes = {BY_CODE[code].torch_name: every_bit_pattern(code) for code in BY_CODE}
    shapes = {
        "scalar": np.array(3.5),
        "empty": np.empty((0, 3), np.float32),
        "cube": cube,
        "fortran": np.asfortranarray(cube),
        "big": cube.astype(">f4"),
        "big.fortran": np.asfortranarray(cube.astype(">c16")),
        "größe/重み": np.ones(2, np.int8),
    }
    saved = {"dtypes.npz": (np.savez, dtypes), "shapes.npz": (np.savez, shapes)}
    saved["packed.npz"] = (np.savez_compressed, {**shapes, **dtypes})
    for name, (save, arrays) in saved.items():
        save(folder / name, **arrays)
        record_golden(folder / name, tensors(arrays))
    np.save(folder / "one.npy", cube)
    record_golden(folder / "one.npy", tensors({"array": cube}))
    np.save(folder / "turned.npy", np.asfortranarray(cube))
    record_golden(folder / "turned.npy", tensors({"array": cube}))
    with zipfile.ZipFile(folder / "comment.npz", "w") as archive:
        archive.writestr("a.npy", npy(np.arange(3)))
        archive.comment = b"made by hand"
    record_golden(folder / "comment.npz", tensors({"a": np.arange(3)}), {"comment": "made by hand"})


def npy(array, **how):
    made = io.BytesIO()
    np.lib.format.write_array(made, array, **how)
    return made.getvalue()


def crafted(descr="'<f4'", shape="(2,)", data=bytes(8), order="False", version=1):
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def archive(members, comment=b""):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as zipped:
        for name, data in members:
            zipped.writestr(name, data)
        zipped.comment = comment
    return made.getvalue()


def hostile(folder):
    """The rest is in tests/test_numpy_hostile.py."""
    good = archive([("a.npy", crafted())])
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a.npy", crafted(shape="(2,)", data=bytes(1 << 20)))
    files = {
        "object.npy": npy(np.array([{}], dtype=object), allow_pickle=True),
        "pickle.npy": pickle.dumps(print),
        "expression.npy": crafted(shape="(__import__('os').getpid(),)"),
        "four-terabytes.npy": crafted(shape="(1000000000000,)"),
        "overflow.npy": crafted(shape="(4294967296, 4294967296, 4)"),
        "trailing.npy": crafted(data=bytes(9)),
        "structured.npy": npy(np.zeros(2, dtype=[("a", "<f4")])),
        "bomb.npz": bomb.getvalue(),
        "not-first.npz": b"x" + good,
        "object.npz": archive([("a.npy", npy(np.array([1, "x"], object), allow_pickle=True))]),
        "stranger.npz": archive([("a.npy", crafted()), ("data.pkl", pickle.dumps(print))]),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    for name, make in {"golden": golden, "hostile": hostile}.items():
        (HERE / name).mkdir(exist_ok=True)
        make(HERE / name)
