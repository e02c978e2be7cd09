"""Putting a new plugin on disk: wholly, or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from hardpoint.errors import ConfigError
from hardpoint.scaffold.contents import NewFile


def write(files: Sequence[NewFile], folder: Path) -> None:
    """Write ``files`` to ``folder``, which must be new or empty.

    They go to a folder beside it, which is then renamed: nothing half-written is ever there.

    :raises ConfigError: something is at ``folder``, or the system cannot write there.
    """
    _check_free(folder)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        try:
            for file in files:
                path = temporary / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(file.text, "utf-8", newline="\n")
            if folder.exists():
                folder.rmdir()
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise ConfigError(
            f"the plugin cannot be written to {folder}",
            cause=str(error),
            remedy="name a folder that is there and writable: --output DIR",
        ) from error


def _check_free(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise _taken(folder, "it is no folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise _taken(folder, "it holds files, and none is ever overwritten")


def _taken(folder: Path, cause: str) -> ConfigError:
    return ConfigError(
        f"there is something at {folder} already",
        cause=cause,
        remedy="move it away, or choose another place: --output DIR",
    )
