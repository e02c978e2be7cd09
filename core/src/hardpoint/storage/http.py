"""A range of a file behind http(s), of which no more is taken than was asked for."""

from __future__ import annotations

import importlib
from typing import Any


def fetch_bounded(system: Any, url: str, begin: int, end: int) -> bytes:
    """Bytes ``begin`` to ``end``, or one byte more where the server sends more than that.

    fsspec's own ``cat_file`` takes all that the server sends, however much.

    :raises Exception: as aiohttp and fsspec do; a short answer is just short.
    """
    sync = importlib.import_module("fsspec.asyn").sync
    return bytes(sync(system.loop, _fetch, system, url, begin, end))


async def _fetch(system: Any, url: str, begin: int, end: int) -> bytearray:
    session = await system.set_session()
    options = dict(system.kwargs)
    options["headers"] = {
        **options.get("headers", {}),
        "Range": f"bytes={begin}-{end - 1}",
        "Accept-Encoding": "identity",  # lengths are of the file itself
    }
    data = bytearray()
    async with session.get(system.encode_url(url), **options) as answer:
        answer.raise_for_status()
        if answer.status == 200 and begin > 0:  # the whole file, from its start
            raise OSError("the server does not serve ranges")
        while len(data) <= end - begin:
            part = await answer.content.read(end - begin + 1 - len(data))
            if not part:
                break
            data += part
    return data
