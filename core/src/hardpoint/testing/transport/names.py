"""Names of collectives: PyTorch 2.13 gave some a second one."""

from __future__ import annotations

from hardpoint.interfaces.transport import TransportInfo

# Who declares either has both.
ALIASES = {
    "all_gather_single": "all_gather_into_tensor",
    "reduce_scatter_single": "reduce_scatter_tensor",
}


def collectives_of(info: TransportInfo) -> set[str]:
    """The collectives that a transport declares, by all their names."""
    found = set(info.collectives)
    for new, old in ALIASES.items():
        if found & {new, old}:
            found |= {new, old}
    return found
