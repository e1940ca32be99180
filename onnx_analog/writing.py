"""Outputs: written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from onnx_analog.errors import OutputError

Writer = Callable[[Path], None]


def write_text(text: str) -> Writer:
    """Return a writer of `text`."""

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


def write_all(writers: Mapping[Path, Writer], *, force: bool = False) -> None:
    """Call each writer, and put what it wrote at its path: all of them, or none.

    Writers write into a scratch folder beside their target, whole files are then moved into place.

    Parameters
    ----------
    writers : mapping of path to function
        Each function is called with a path of the target's name, and may write more files beside it.
    force : bool
        Replace files that are there already.

    Raises
    ------
    OutputError
        If a target is there and `force` is not given, or cannot be written.
    """
    refuse_existing(writers, force=force)
    folders = {target.parent for target in writers}
    scratch: dict[Path, Path] = {}
    target = Path()
    try:
        for folder in sorted(folders):
            target = folder
            scratch[folder] = Path(tempfile.mkdtemp(prefix=".onnx-analog-", dir=folder))
        for target, write in writers.items():
            write(scratch[target.parent] / target.name)
        _move(scratch, force=force)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {str(target)!r}: {error.strerror or error}. Nothing was changed.") from error
    finally:
        for folder in scratch.values():
            shutil.rmtree(folder, ignore_errors=True)


def refuse_existing(paths: Mapping[Path, object] | list[Path], *, force: bool) -> None:
    """Raise `OutputError` if one of `paths` is there already."""
    for path in paths:
        if path.is_dir():
            raise OutputError(f"{str(path)!r} is a folder, where a file is to be written. Name another.")
        if path.exists() and not force:
            raise OutputError(f"{str(path)!r} is there already. Use --force to replace it, or name another.")


def _move(scratch: Mapping[Path, Path], *, force: bool) -> None:
    moves = [(file, folder / file.name) for folder, inside in scratch.items() for file in sorted(inside.iterdir())]
    refuse_existing([final for _, final in moves], force=force)
    done: list[tuple[Path, Path]] = []
    try:
        for file, final in sorted(
            moves, key=lambda move: move[0].suffix != ".data"
        ):  # what others refer to comes first
            aside = file.with_name(f"{file.name}.aside")
            if final.exists():
                final.replace(aside)
            done.append((aside, final))
            file.replace(final)
    except OSError:
        for aside, final in reversed(done):
            final.unlink(missing_ok=True)
            if aside.exists():
                aside.replace(final)
        raise


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make `folder`, and those around it, if they are not there; take away what is left empty if the body fails."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]  # the innermost first
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {str(folder)!r}: {error.strerror or error}") from error
    try:
        yield
    except BaseException:
        for made in missing:
            with suppress(OSError):  # it is not empty
                made.rmdir()
        raise
