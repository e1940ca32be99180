"""Files that are put in place together: all of them are the new ones, or all are as they were, whenever a process ends.

New files are written into a scratch folder beside their targets, `.onnx-analog-*`:

    lock     held by the process that writes; it says which scratch folders belong together
    new/     the new files
    old/     second names of the files that they replace
    journal  what is to be moved where; once it is there, the new files count
    undo     the journal, renamed, once a move has failed; the old files count again

A file is replaced by one rename, so its target is never missing. Whoever writes next into a folder, or reads a model
there, looks for scratch whose process is gone: with a journal the moves are finished, or undone; without one, nothing
had been changed. The target's folder is locked in the meantime, so that two writers follow each other. Where a file
system has no locks (some network file systems), there is neither that order nor that look. A reader who may not finish
the moves is refused the files that they are about.

A journal is followed only within its own folder, by plain names, and only if it stands in the very folder (by inode)
that it was written in: scratch that came with a download or a copy is left alone. The folder around it may have been
renamed or moved since, if all files were to go there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

try:
    import fcntl
except ImportError:  # Windows has none: no order among writers, no look for scratch
    fcntl = None  # type: ignore[assignment]

from onnx_analog.disk import reading
from onnx_analog.errors import AnalogError, OutputError

PREFIX = ".onnx-analog-"
WAIT_S = 60.0  # for another writer to put its files in place
_LARGEST = 64 * reading.MIB  # bytes of a journal


class _Move(NamedTuple):
    """One file on its way: from `scratch`/new to the folder around `scratch`."""

    scratch: Path
    name: str
    inode: int  # of the new file, wherever it is now
    replaces: bool

    @property
    def new(self) -> Path:
        return self.scratch / "new" / self.name

    @property
    def old(self) -> Path:
        return self.scratch / "old" / self.name

    @property
    def final(self) -> Path:
        return self.scratch.parent / self.name

    @property
    def done(self) -> bool:
        return _inode(self.final) == self.inode


class Transaction:
    """New files in some folders; a context manager.

    Parameters
    ----------
    folders : set of Path
        They are there.

    Raises
    ------
    OSError
        If scratch cannot be made in one of them.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = sorted({Path(os.path.realpath(folder)) for folder in folders})
        self._scratch: dict[Path, Path] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        try:
            recover(self._folders)
            with locked(self._folders):
                for folder in self._folders:
                    self._make(folder)
        except BaseException:
            self._remove()
            raise
        return self

    def _make(self, folder: Path) -> None:
        try:
            scratch = self._scratch[folder] = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
        except OSError as error:
            raise OutputError(
                f"cannot write in the folder {str(folder)!r}: {error.strerror}. Nothing was changed"
            ) from error
        for name in ("new", "old"):
            (scratch / name).mkdir()
        file = self._open.enter_context((scratch / "lock").open("w", encoding="utf-8"))
        lock(file.fileno())
        file.write(json.dumps({"inode": _inode(scratch), "primary": str(self._primary)}))
        file.flush()

    @property
    def _primary(self) -> Path:
        return self._scratch[self._folders[0]]

    def scratch(self, target: Path) -> Path:
        """Return where the new file for `target` is to be written."""
        return self._scratch[Path(os.path.realpath(target.parent))] / "new" / target.name

    def targets(self) -> list[Path]:
        """Return the paths that all new files are to have."""
        return [folder / file.name for folder, scratch in self._scratch.items() for file in (scratch / "new").iterdir()]

    def commit(self, *, force: bool) -> None:
        """Put the new files in place: all of them, or none.

        Raises
        ------
        OSError
            If one cannot be moved, or is there already without `force`. All is as it was then.
        """
        with locked(self._folders):
            moves = [_move(scratch, file) for scratch in self._scratch.values() for file in (scratch / "new").iterdir()]
            moves.sort(key=lambda move: (move.final.suffix != ".data", move.final))  # what others refer to comes first
            for move in moves:
                if move.replaces and not force:
                    raise already(move.final)
                if move.replaces:
                    _second_name(move.final, move.old)
            with _quiet():
                _write_journal(self._primary, moves, force=force)
                _finish(self._primary, moves, force=force)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        with _quiet():
            # A journal that is still there could not be followed either way; whoever writes next tries again.
            if not self._scratch or not _journal_of(self._primary):
                for scratch in self._scratch.values():
                    _remove(scratch)
            self._open.close()


def already(path: Path) -> OutputError:
    """Return the error of a file that is there, and must not be replaced."""
    return OutputError(f"{str(path)!r} already exists: replace it with force=True, or choose another name")


def _move(scratch: Path, file: Path) -> _Move:
    return _Move(scratch, file.name, file.lstat().st_ino, os.path.lexists(scratch.parent / file.name))


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except OSError:
        return None


def _second_name(file: Path, name: Path) -> None:
    """Give a file that is to be replaced a second name; a copy, where the file system has no second names."""
    if not stat.S_ISREG(file.lstat().st_mode):
        raise OutputError(f"{str(file)!r} is not a regular file, and is not replaced. Choose another name")
    try:
        os.link(file, name, follow_symlinks=False)
    except OSError:
        shutil.copy2(file, name, follow_symlinks=False)


def _put(move: _Move, *, force: bool) -> None:
    """Put one new file in place."""
    if force:
        move.new.replace(move.final)
        return
    try:
        os.link(move.new, move.final, follow_symlinks=False)  # fails if a file came there meanwhile
    except FileExistsError:
        raise already(move.final) from None
    except OSError:  # a file system without second names
        if os.path.lexists(move.final):
            raise already(move.final) from None
        move.new.rename(move.final)


# ------------------------------------------------------------------------------------------------------- journal


def _write_journal(primary: Path, moves: list[_Move], *, force: bool) -> None:
    entries = [{**move._asdict(), "scratch": str(move.scratch)} for move in moves]
    half = primary / "half"
    half.write_text(json.dumps({"force": force, "moves": entries}), encoding="utf-8")
    half.replace(primary / "journal")


def _finish(primary: Path, moves: list[_Move], *, force: bool) -> None:
    """Follow the journal to its end, or undo what was done of it and raise."""
    try:
        for move in moves:
            if not move.done:
                _put(move, force=force)
    except BaseException:
        (primary / "journal").replace(primary / "undo")
        _undo(primary, moves)
        raise
    (primary / "journal").unlink()


def _undo(primary: Path, moves: list[_Move]) -> None:
    for move in reversed(moves):
        if move.done and move.replaces:
            move.old.replace(move.final)
        elif move.done:
            move.final.unlink()
    (primary / "undo").unlink()


def _journal_of(primary: Path) -> Path | None:
    return next((primary / name for name in ("undo", "journal") if (primary / name).is_file()), None)


def _read_journal(journal: Path, primary: Path) -> tuple[list[_Move], bool]:
    """Return what a journal says.

    Raises
    ------
    ValueError, TypeError, KeyError, OutputError
        If no transaction wrote it, here.
    """
    body = json.loads(reading.read_text(journal, limit=_LARGEST, error=OutputError))
    moves = [_Move(**{**move, "scratch": _where_now(Path(move["scratch"]), primary)}) for move in body["moves"]]
    for move in moves:
        belongs = _primary_of(move.scratch) == primary
        plain = Path(move.name).name == move.name not in ("", ".", "..") and "\0" not in move.name
        if not belongs or not plain:
            raise ValueError("it names other places")
    return moves, body["force"] is True


def _primary_of(scratch: Path) -> Path:
    """Return the scratch folder that holds the journal, as that of `scratch` says."""
    return _where_now(Path(_marker(scratch)["primary"]), scratch)


def _where_now(recorded: Path, here: Path) -> Path:
    """Return where a scratch folder is, by what was written about it in `here`: the folder around may have moved."""
    return here if recorded.name == here.name else recorded


def _marker(scratch: Path) -> dict[str, Any]:
    """Return what the lock of a scratch folder says, if it is one of this user's that was made where it stands."""
    status = scratch.lstat()
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "geteuid") and status.st_uid != os.geteuid()):
        raise ValueError("it is not this user's")
    body: dict[str, Any] = json.loads(reading.read_text(scratch / "lock", limit=reading.MIB, error=OutputError))
    if body["inode"] != status.st_ino or not Path(body["primary"]).name.startswith(PREFIX):
        raise ValueError("it was made elsewhere")
    return body


# ------------------------------------------------------------------------------------------------------ recovery


def recover(folders: Iterable[Path]) -> None:
    """Finish or undo what processes that are gone left in these folders, and remove their scratch.

    Raises
    ------
    OutputError
        If another writer holds a folder for long.
    """
    for folder in sorted({Path(os.path.realpath(folder)) for folder in folders}):
        if _scratch_in(folder):
            with locked([folder]) as orderly:
                for scratch in _scratch_in(folder) if orderly else []:
                    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):  # it is none of ours
                        _settle(scratch)


def check_whole(path: Path, *, error: type[AnalogError]) -> None:
    """See to it that a file that will be read is whole, with those that were written with it.

    Raises
    ------
    error
        If a process was killed while it put the file and others in place, and that cannot be finished here.
    """
    real = Path(os.path.realpath(path))
    if not _scratch_in(real.parent):
        return
    recover([real.parent])
    for scratch in _scratch_in(real.parent):
        if real in _unfinished(scratch):
            raise error(
                f"{str(path)!r}: writing it, with other files, was interrupted. Write them again, or read it once with "
                "permission to write in its folder"
            )


def _unfinished(scratch: Path) -> list[Path]:
    """Return the files that a journal is about; none if there is no journal, or it was not written here."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        primary = _primary_of(scratch)
        if journal := _journal_of(primary):
            return [move.final for move in _read_journal(journal, primary)[0]]
    return []


def _scratch_in(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(folder / name for name in os.listdir(folder) if name.startswith(PREFIX))  # noqa: PTH208 - names
    return []


def _settle(scratch: Path) -> None:
    if not os.listdir(scratch):  # noqa: PTH208 - its process ended before it said more
        scratch.rmdir()
        return
    if (scratch / "lock").exists() and _alive(scratch):
        return
    if not (scratch / "lock").exists() or not (scratch / "lock").stat().st_size:
        _remove_begun(scratch)
        return
    primary = _primary_of(scratch)
    journal = _journal_of(primary)
    if journal is None:
        if not primary.parent.is_dir():  # the folder was moved: its journal is where nobody knows
            return
        _remove(scratch)
        return
    _marker(primary)
    moves, force = _read_journal(journal, primary)
    others = {move.scratch.parent for move in moves} - {scratch.parent}
    with locked(others, wait_s=1):
        if journal.name == "undo":
            _undo(primary, moves)
        else:
            with suppress(OSError):  # all is as it was then
                _finish(primary, moves, force=force)
    for folder in {move.scratch for move in moves} | {primary}:
        if _journal_of(primary) is None:
            _remove(folder)


def _remove(scratch: Path) -> None:
    """Remove a scratch folder; its lock last, for that tells whose it is."""
    for name in ("new", "old"):
        shutil.rmtree(scratch / name, ignore_errors=True)
    for file in (scratch / "half", scratch / "lock"):
        with suppress(OSError):
            file.unlink()
    with suppress(OSError):
        scratch.rmdir()


def _remove_begun(scratch: Path) -> None:
    """Remove a scratch folder whose process ended while it made it; only what is empty."""
    (scratch / "lock").unlink(missing_ok=True)
    for name in ("new", "old"):
        with suppress(FileNotFoundError):
            (scratch / name).rmdir()
    scratch.rmdir()


# --------------------------------------------------------------------------------------------------------- locks


def lock(file: int) -> bool:
    """Lock an open file or folder for this process; return whether it has the lock. A process's end frees it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (AttributeError, OSError):  # there are no locks here
        return True
    return True


def _alive(scratch: Path) -> bool:
    file = os.open(scratch / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return not lock(file)
    finally:
        os.close(file)


@contextmanager
def locked(folders: Iterable[Path], *, wait_s: float | None = None) -> Iterator[bool]:
    """Hold folders against other writers; yield whether there are such locks here.

    Raises
    ------
    OutputError
        If another process holds one for longer than `wait_s`, by default WAIT_S.
    """
    with ExitStack() as stack:
        orderly = [_hold(folder, WAIT_S if wait_s is None else wait_s, stack) for folder in sorted(folders)]
        yield all(orderly)


def _hold(folder: Path, wait_s: float, stack: ExitStack) -> bool:
    try:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (AttributeError, OSError):  # it may be written, and not read; or folders cannot be opened at all
        return False
    stack.callback(os.close, file)
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise OutputError(
                    f"another process writes to the folder {str(folder)!r}, for {wait_s:g} s so far. Try again later"
                ) from None
            time.sleep(0.01)
        except (AttributeError, OSError):  # there are no locks here
            return False
        else:
            return True


# ------------------------------------------------------------------------------------------------------- signals


class _Ended(BaseException):
    """The system asks this process to end."""


_tidying = threading.Lock()
_busy: list[None] = []  # not empty while nothing may be unwound


@contextmanager
def _quiet() -> Iterator[None]:
    """Let the body, which is short, come to its end before a signal that `tidy_ends` waits for ends the process."""
    _busy.append(None)
    try:
        yield
    finally:
        _busy.pop()


@contextmanager
def tidy_ends() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the body before they end the process, as they do by default.

    Only in the main thread, and only where nobody has other plans for them.
    """
    if threading.current_thread() is not threading.main_thread() or not _tidying.acquire(blocking=False):
        yield
        return
    received: list[int] = []
    body = True

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler takes both
        received.append(number)
        if body and not _busy and len(received) == 1:
            raise _Ended

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    mine = [
        number for number in (getattr(signal, name) for name in names) if signal.getsignal(number) is signal.SIG_DFL
    ]
    try:
        for number in mine:
            signal.signal(number, handle)
        yield
    except _Ended:
        pass
    finally:
        body = False
        for number in mine:
            signal.signal(number, signal.SIG_DFL)
        _tidying.release()
        if received:
            os.kill(os.getpid(), received[0])
