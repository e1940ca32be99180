"""One command line, run in this process in a folder: what it printed, how it ended, and what it left in the folder."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Files = Mapping[str, str]  # of each file under a folder, what it holds: a digest


@dataclass(frozen=True)
class Ran:
    """What one command did.

    Attributes
    ----------
    arguments : tuple of str
    code : int
        The exit code that a shell would see.
    out, err : str
    before, after : mapping
        What lay in the folder.
    cpu_s : float
    """

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str
    before: Files
    after: Files
    cpu_s: float

    @property
    def command(self) -> str:
        """The command's name, as "channel show"."""
        return " ".join(self.arguments[: 2 if self.arguments[0] == "channel" else 1])


def invoke(arguments: Sequence[str], folder: Path, main: Callable[..., Any]) -> Ran:
    """Run `main` as the command line `onnx-analog` with these arguments, in `folder`."""
    before, start = contents(folder), time.process_time()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with chdir(folder), _redirected(out.fileno(), err.fileno()), _argv(arguments):
            code = _code(main, arguments)
        printed, errors = _text(out), _text(err)
    return Ran(tuple(arguments), code, printed, errors, before, contents(folder), time.process_time() - start)


def _code(main: Callable[..., Any], arguments: Sequence[str]) -> int:
    try:
        main(args=list(arguments), prog_name="onnx-analog", standalone_mode=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _text(file: Any) -> str:
    file.seek(0)
    text: bytes = file.read(10 * 2**20)
    return text.decode("utf-8", "backslashreplace")


@contextmanager
def _redirected(out: int, err: int) -> Iterator[None]:
    """Send what this process prints, and what C++ in it prints, to two files."""
    streams = sys.stdout, sys.stderr
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", encoding="utf-8") for number in (1, 2))
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.close()
        sys.stdout, sys.stderr = streams
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)


@contextmanager
def _argv(arguments: Sequence[str]) -> Iterator[None]:
    """Let the process look as one of its own: its arguments, where modules are looked for, and no log handlers."""
    argv, path, handlers = sys.argv, list(sys.path), list(logging.root.handlers)
    sys.argv, logging.root.handlers[:] = ["onnx-analog", *arguments], []
    try:
        yield
    finally:
        sys.argv, sys.path[:], logging.root.handlers[:] = argv, path, handlers


def contents(folder: Path) -> dict[str, str]:
    """Return what lies under `folder`: of each file the digest of its bytes, of others what they are."""
    entries: dict[str, str] = {}
    for path in folder.rglob("*"):  # it follows no links
        key = str(path.relative_to(folder))
        if path.is_symlink():
            entries[key] = f"link to {path.readlink()}"
        elif path.is_dir():
            entries[key] = "folder"
        elif path.is_file():
            with path.open("rb") as file:
                entries[key] = hashlib.file_digest(file, "sha256").hexdigest()
        else:
            entries[key] = "special"
    return entries
