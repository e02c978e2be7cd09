"""Finds what a PT2 archive would have to unpickle, without torch and before anything is read."""

from __future__ import annotations

from hardpoint.package.archive import Archive
from hardpoint.package.refusal import MalformedError, refusing

WEIGHTS = "data/weights/"
CONSTANTS = "data/constants/"
MODELS = "models/"
SAMPLES = "data/sample_inputs/"
_CONFIGS = ("_weights_config.json", "_constants_config.json")
_CONFIG_LIMIT = 64 << 20


def programs(archive: Archive) -> tuple[str, ...]:
    """Names of the programs in the archive."""
    return tuple(
        name.removeprefix(MODELS).removesuffix(".json")
        for name in archive.entries
        if name.startswith(MODELS) and name.endswith(".json")
    )


def pickled(archive: Archive) -> tuple[str, ...]:
    """Weights and constants that are pickles. PyTorch's own reader would run them.

    :raises PackageError: a description of weights that is not valid JSON.
    """
    found = []
    for name in archive.entries:
        if not name.startswith((WEIGHTS, CONSTANTS)):
            continue
        file = name.rpartition("/")[2]
        if file.startswith(("custom_obj_", "opaque_obj_")) or file.endswith(".pt"):
            found.append(name)
        elif file.endswith(_CONFIGS):
            found.extend(_pickled_payloads(archive, name))
    return tuple(found)


def _pickled_payloads(archive: Archive, name: str) -> list[str]:
    described = archive.read_json(name, _CONFIG_LIMIT)
    config = described.get("config") if isinstance(described, dict) else None
    with refusing(archive.path):
        if not isinstance(config, dict):
            raise MalformedError(f"entry {name!r} does not describe weights")
        return [
            f"{key} (in {name})"
            for key, payload in config.items()
            # Only a plain false is safe: what a reader takes for true is not ours to guess.
            if not isinstance(payload, dict) or payload.get("use_pickle") is not False
        ]


def sample_inputs(archive: Archive) -> tuple[str, ...]:
    """Pickled example inputs, which ``torch.export.save`` writes; hardpoint never reads them."""
    return tuple(n for n, e in archive.entries.items() if n.startswith(SAMPLES) and e.size)


def refuse_pickles(archive: Archive) -> None:
    """:raises PackageError: a weight or a constant of the archive is a pickle."""
    names = pickled(archive)
    with refusing(archive.path):
        if names:
            raise MalformedError(
                f"it holds pickles, which can run any code when read: {', '.join(names[:3])}"
                + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
                remedy="replace custom objects and tensor subclasses in the model by plain "
                "tensors, and save it again",
            )
