"""Outputs: checked before anything is done, and written whole or not at all.

A link is never written to or replaced, nor is a device, a pipe, a socket or a folder: only regular files are.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from onnx_analog.disk import transactions
from onnx_analog.errors import OptionError, OutputError

logger = logging.getLogger(__name__)

Writer = Callable[[Path], None]


def write_text(text: str) -> Writer:
    """Return a writer of `text`."""

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


def write_bytes(data: bytes) -> Writer:
    """Return a writer of `data`."""

    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def data_beside(model: Path) -> Path:
    """Return the file that the tensors of a model at this path go to, if they do not fit into it."""
    return model.parent / f"{model.name}.data"


# ------------------------------------------------------------------------------------------------------ checking


def check_outputs(
    outputs: Iterable[Path],
    inputs: Iterable[Path] = (),
    *,
    force: bool,
    perhaps: Iterable[Path] = (),
    new_folder: bool = False,
) -> None:
    """Check all that a command writes against all that it reads, against each other and against what is there.

    Parameters
    ----------
    outputs : paths
        Files that will be written.
    inputs : paths
        Files that are read. They are asked for only if one of the outputs is there, so they may be costly to tell.
    force : bool
        Whether a regular file that is there may be replaced.
    perhaps : paths
        Files that may be written, too: they must be no input and no other output, and may be there.
    new_folder : bool
        Whether the folder of the outputs may be missing, and will be made.

    Raises
    ------
    OptionError
        If two outputs are one file. Paths are one file if they lead to one, by links or by second names.
    OutputError
        If an output is an input, one is there already and `force` is not given, one is no regular file, or its folder
        cannot be written to.
    """
    sure, perhaps = list(outputs), list(perhaps)
    everything = [*sure, *perhaps]
    _check_named(everything)
    for folder in dict.fromkeys(path.parent for path in everything):
        _check_folder(folder, new=new_folder)
    there = {path for path in sure if _kind(path) is not None} | {path for path in perhaps if os.path.lexists(path)}
    _check_apart(everything)
    if there:
        _check_not_read(there, inputs)
    for path in sure:
        _check_free(path, force=force)


def _check_named(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.name in ("", ".."):  # ".", "/" and what leads up
            raise _folder_given(path)


def _folder_given(path: Path) -> OutputError:
    """Return the error about a folder where a file is needed: as of an input, the command line is at fault."""
    error = OutputError(f"{str(path)!r} is a folder; a file is needed. Choose another name")
    error.exit_code = OptionError.exit_code
    return error


def _kind(path: Path) -> int | None:
    """Return the mode of what is at `path`, links not followed; None if nothing is."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise OutputError(f"cannot write {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error


def _check_folder(folder: Path, *, new: bool) -> None:
    where = f"cannot write in the folder {str(folder)!r}"  # of which the nearest that is there is to be looked at
    try:
        while new and not folder.exists():
            folder = folder.parent
        mode = folder.stat().st_mode
    except FileNotFoundError:
        raise OutputError(f"{where}: it does not exist. Create it first") from None
    except (OSError, ValueError) as error:
        raise OutputError(f"{where}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISDIR(mode):
        raise OutputError(f"{where}: {str(folder)!r} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{where}: no permission to write in {str(folder)!r}")
    transactions.recover([folder])


def _names(path: Path) -> set[object]:
    """Return what tells a file from all others: its path without links, and its inode if it is there."""
    names: set[object] = {os.path.realpath(path)}
    with suppress(OSError, ValueError):
        status = path.stat()
        names.add((status.st_dev, status.st_ino))
    return names


def _check_apart(paths: Iterable[Path]) -> None:
    seen: dict[object, Path] = {}
    for path in paths:
        for name in _names(path):
            other = seen.setdefault(name, path)
            if other is not path:
                both = "two outputs" if str(other) == str(path) else f"{str(other)!r} and {str(path)!r}"
                raise OptionError(f"{both} would be the same file, {str(path)!r}. Give each output its own name")
    for folder in {Path(os.path.realpath(path.parent)) for path in seen.values()}:
        for name in map(str, (folder, *folder.parents)):
            if name in seen:
                raise OptionError(f"{str(seen[name])!r} would be a file and a folder. Give each output its own name")


def _check_not_read(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    read = {name: path for path in inputs for name in _names(path)}
    for path in outputs:
        if other := next((read[name] for name in _names(path) if name in read), None):
            also = "" if other == path else f", {str(other)!r}"
            raise OutputError(f"{str(path)!r} is an input{also}, and is not replaced. Choose another output")


def _check_free(path: Path, *, force: bool) -> None:
    mode = _kind(path)
    if mode is None:
        return
    if stat.S_ISDIR(mode):
        raise _folder_given(path)
    if stat.S_ISLNK(mode):
        raise OutputError(
            f"{str(path)!r} is a link, and links are not replaced. Give the path of the file it points to"
        )
    if not stat.S_ISREG(mode):
        raise OutputError(
            f"{str(path)!r} is a device, a pipe or a socket, and only files are replaced. Choose another name"
        )
    if not force:
        raise transactions.already(path)


# ------------------------------------------------------------------------------------------------------- writing


def write_all(writers: Mapping[Path, Writer], *, force: bool = False) -> None:
    """Call each writer, and put what it wrote at its path: all of them, or none.

    Writers write into a scratch folder beside their target; whole files are then moved into place, as
    `onnx_analog.disk.transactions` says. SIGTERM and SIGHUP remove the scratch before they end the process.

    Parameters
    ----------
    writers : mapping of path to function
        Each function is called with a path of the target's name, and may write more files beside it.
    force : bool
        Replace regular files that are there already.

    Raises
    ------
    OutputError
        If a target is there and `force` is not given, is no regular file, or cannot be written. Nothing was changed.
    """
    if not writers:
        return
    check_outputs(writers, force=force)
    target = next(iter(writers))
    try:
        with transactions.tidy_ends(), transactions.Transaction({path.parent for path in writers}) as transaction:
            for target, write in writers.items():
                scratch = transaction.scratch(target)
                if _kind(scratch) is not None:  # where upper and lower case are one, or a writer wrote both
                    raise OutputError(
                        f"{str(target)!r} and another output would be the same file. Give each its own name"
                    )
                write(scratch)
            for target in transaction.targets():
                _check_free(target, force=force)
            transaction.commit(force=force)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        why = os.strerror(error.errno) if error.errno else error
        raise OutputError(f"cannot write {str(target)!r}: {why}. Nothing was changed") from error
    for target in writers:
        logger.info("wrote %r", str(target))


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make `folder`, and those around it, if they are not there; take away what is left empty if the body fails.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    missing: list[Path] = []
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]  # the innermost first
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        _take_away(missing)
        why = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot make the folder {str(folder)!r}: {why}") from error
    try:
        yield
    except BaseException:
        _take_away(missing)
        raise


def _take_away(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # it is not empty, or was never made
            folder.rmdir()
