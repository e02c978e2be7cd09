"""Where a command may write: never over the model it reads, nor over a file that is not its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import rich_click as click

from hardpoint.errors import PackageError
from hardpoint.package.archive import Archive

F = TypeVar("F", bound=Callable[..., object])


def writable_file(_ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a file that cannot be made, before minutes are spent on its content."""
    if value is not None and (value.is_dir() or not value.absolute().parent.is_dir()):
        cause = "it is a folder" if value.is_dir() else f"there is no folder {value.parent}"
        raise click.BadParameter(f"{value} cannot be written: {cause}", param=param)
    return value


def existing_file(_ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a file that is not there."""
    if value is not None and not value.exists():
        raise click.BadParameter(f"there is no file {value}", param=param)
    return value


def force_option(command: F) -> F:
    """Add ``--force``, passed to the command as ``force: bool``."""
    option = click.option("--force", is_flag=True, help="Replace any file that is in the way.")
    return option(command)


def check_replaceable(
    path: Path, what: str, ours: Callable[[Path], bool], *, force: bool, option: str
) -> None:
    """Refuse to replace a file, unless ``ours`` knows it as one, it is empty, or ``--force``.

    :param what: what ``ours`` knows, in words, e.g. ``"a package"``.
    :raises click.BadParameter: naming the file and ``--force``.
    """
    if force or not path.exists() or (path.is_file() and not path.stat().st_size) or ours(path):
        return
    why = f"is there already, and is not {what}" if what else "is there already"
    raise _refused(f"{path} {why}; name another file, or replace it with --force", option)


def check_not_read(path: Path, read: Path | None, option: str) -> None:
    """Refuse to write over a file that the same command reads.

    :raises click.BadParameter: it is the same file.
    """
    if read is not None and path.exists() and read.exists() and path.samefile(read):
        raise _refused(f"{path} is read by this command; name another file", option)


def check_not_the_model(path: Path, model: str, option: str) -> None:
    """Refuse to write over the model's own file, or into its directory; ``--force`` or not.

    :param model: as on the command line.
    :raises click.BadParameter: ``path`` is the model's.
    """
    if Path(model).is_dir():
        if path.resolve().is_relative_to(Path(model).resolve()):
            raise _refused(f"{path} lies in the model's directory; name a file elsewhere", option)
        return
    for source in _sources(model):
        if source.exists() and path.exists() and source.samefile(path):
            raise _refused(f"{path} is the model's own file; name another file", option)


def _sources(model: str) -> list[Path]:
    """The files that ``model`` may be made of. A module is looked for, not imported."""
    where = model.rpartition(":")[0] or model
    parts = where.split(".")
    found = [Path(model), Path(where)]
    if all(part.isidentifier() for part in parts):
        for folder in sys.path:
            base = Path(folder, *parts)
            found += [base.with_name(f"{base.name}.py"), base / "__init__.py"]
    return found


def is_package(path: Path) -> bool:
    """Whether ``path`` is a PT2 archive."""
    try:
        with Archive.open(path):
            return True
    except PackageError:
        return False


def is_page(path: Path) -> bool:
    """Whether ``path`` is called like a web page."""
    return path.suffix.lower() in (".html", ".htm")


def never(_path: Path) -> bool:
    """For results: a file of tensors may as well be somebody's weights."""
    return False


def _refused(message: str, option: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint=f"'{option}'")
