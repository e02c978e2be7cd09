"""Readers: of one file, and of a set of shards."""

from __future__ import annotations

from functools import partial

import torch

from hardpoint.storage.shards import ShardedReader, Sharding
from hardpoint.storage.source import Source
from hardpoint.storage.table import TableReader
from hardpoint_safetensors.header import LENGTH_BYTES, METADATA, header_length, parse_header
from hardpoint_safetensors.index import SUFFIX
from hardpoint_safetensors.refuse import refuse
from hardpoint_safetensors.strict_json import loads


def open_file(source: Source, device: torch.device) -> TableReader:
    """Parse the header of one file; nothing else of it is read.

    :raises WeightsError: the file cannot be read, or its header is refused.
    """
    name, size = source.name, source.size
    length = header_length(source.read(0, min(LENGTH_BYTES, size)), size, name)
    data_size = size - LENGTH_BYTES - length
    header = parse_header(source.read(LENGTH_BYTES, length), data_size, name)
    return TableReader(
        source, header.tensors, refuse=refuse, metadata=header.metadata, device=device
    )


SHARDING = Sharding(
    refuse,
    suffixes=(SUFFIX,),
    parse=partial(loads, floats=True),
    open_file=open_file,
    reserved=frozenset({METADATA}),
)


def open_index(source: Source, device: torch.device) -> ShardedReader:
    """The files that an index names, as one.

    :raises WeightsError: the index is refused.
    """
    return ShardedReader(source, device, SHARDING)
