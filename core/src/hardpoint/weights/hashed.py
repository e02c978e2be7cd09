"""What model-signing asks for digests: its own hashing, over the files that we name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hardpoint.weights.covered import Covered
from hardpoint.weights.progress import Progress, ticker
from hardpoint.weights.signers import library
from hardpoint.weights.statement import Statement


class Hashed:
    """Stands where model-signing expects a ``model_signing.hashing.Config``.

    :param files: what to hash; if it takes a signature's word for it, a function, which is called
        once the signature is found to be good.
    :param how: as a signature says; ``None``: SHA-256 of each file.
    :ivar began: whether model-signing came so far as to ask for digests.
    :ivar digests: what it was given, by name; ``None`` before.
    :ivar nbytes: bytes of the files.
    """

    def __init__(
        self,
        files: Covered | Callable[[], Covered],
        *,
        how: Statement | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._files = files
        self._how = how
        self._progress = progress
        self.began = False
        self.digests: dict[str, str] | None = None
        self.nbytes = 0

    @property
    def what(self) -> Covered:
        """What was hashed."""
        assert isinstance(self._files, Covered)
        return self._files

    def hash(self, model_path: Path, *, files_to_hash: Iterable[Path] | None = None) -> Any:
        """The manifest of the files; those that model-signing would find itself do not matter."""
        del files_to_hash
        self.began = True
        if not isinstance(self._files, Covered):
            self._files = self._files()
        what = self._files
        self.nbytes = sum(file.stat().st_size for file in what.files)
        config = self._config(ticker(self._progress, self.nbytes))
        manifest = config.hash(model_path, files_to_hash=what.files)
        self.digests = {
            each.identifier: each.digest.digest_hex for each in manifest.resource_descriptors()
        }
        return manifest

    def add_ignored_paths(self, *, model_path: object, paths: Iterable[object]) -> None:
        """What the signature says that it leaves out: our list of files is already without it."""
        del model_path, paths

    def _config(self, tick: Callable[[int], None] | None) -> Any:
        config = library("hashing").Config()
        # Where a bar is drawn, each hasher tells what it took. If a later model-signing makes its
        # hashers elsewhere, the bar stands still, and nothing else changes.
        make = getattr(config, "_build_stream_hasher", None)
        if tick is not None and make is not None:
            config._build_stream_hasher = lambda *given, **named: _told(make(*given, **named), tick)
        links = any(file.is_symlink() for file in self.what.files)
        if self._how is not None and self._how.method == "shards":
            config.use_shard_serialization(
                hashing_algorithm=self._how.hash_type, shard_size=self._how.piece
            )
        else:
            name = "sha256" if self._how is None else self._how.hash_type
            config.use_file_serialization(hashing_algorithm=name)
        config.set_allow_symlinks(links)
        # They go into the signature, so that others leave them out too.
        rules = self.what.rules if self._how is None else ()
        config.set_ignored_paths(paths=rules, ignore_git_paths=False)
        return config


def _told(hasher: Any, tick: Callable[[int], None]) -> Any:
    take = hasher.update

    def update(data: bytes) -> None:
        take(data)
        tick(len(data))

    hasher.update = update
    return hasher
