"""``torch.distributed.checkpoint`` through any serializer.

``dcp.save(state, storage_writer=Writer(path))``, ``dcp.load(state, storage_reader=Reader(path))``.

Each rank writes a file of its own through the serializer; then one rank writes the index
(:mod:`.dcp_index`), and the save is there: until then, the one before it is. A reader of any number
of ranks takes from each file only the slices it needs. Nothing is pickled.
"""

from __future__ import annotations

from hardpoint.bridges.dcp_read import Reader
from hardpoint.bridges.dcp_write import Writer

__all__ = ["Reader", "Writer"]
