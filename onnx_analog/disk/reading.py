"""Inputs: regular files of a bounded size, read with one clear line on failure.

A pipe or a device may have no end, so neither is opened. A bound keeps the cost of a mistake, or of somebody's malice,
small: docs/security.md lists the bounds.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from onnx_analog.disk import kinds
from onnx_analog.errors import AnalogError, of_content, require_path

MIB = 2**20
_ZIP = b"PK\x03\x04"  # how a zip archive begins, as an npz file is


def size_of(path: str | os.PathLike[str], *, error: type[AnalogError]) -> int:
    """Return the size of a regular file, in bytes.

    Raises
    ------
    OptionError
        If `path` is no path.
    error
        If there is no such file, it cannot be looked at, or it is a folder, a pipe, a socket or a device.
    """
    text = str(require_path("path", path))
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise error(f"there is no file {text!r}") from None
    except (OSError, ValueError) as cause:  # ValueError: a zero byte in the name
        raise error(f"cannot read {text!r}: {getattr(cause, 'strerror', None) or cause}") from cause
    if stat.S_ISDIR(status.st_mode):
        raise error(f"{text!r} is a folder; a file is needed")
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{text!r} is not a regular file, and pipes and devices are not read. Write it to a file first.")
    return status.st_size


def incomplete(npz: Path) -> str | None:
    """Return what to say of an npz file that cannot be opened, if it begins as one: its end is missing."""
    with npz.open("rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            return None
    return f"{str(npz)!r} is a damaged npz file, of which a part is missing: copy or write it again"


def read_bytes(path: str | os.PathLike[str], *, limit: int, error: type[AnalogError]) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes.

    Raises
    ------
    error
        As `size_of` does, or if the file is larger.
    """
    size = size_of(path, error=error)
    if size > limit:
        raise of_content(error(f"{os.fspath(path)!r} has {size:,} bytes, more than the {limit:,} that are read"))
    try:
        with Path(path).open("rb") as file:
            return file.read(limit)
    except OSError as cause:
        raise error(f"cannot read {os.fspath(path)!r}: {cause.strerror or cause}") from cause


def read_text(path: str | os.PathLike[str], *, limit: int, error: type[AnalogError], kind: str | None = None) -> str:
    """Return the UTF-8 text of a regular file of at most `limit` bytes; raises as `read_bytes` does.

    A file that is plainly not of the given kind is refused as what it is: see `onnx_analog.disk.kinds`.
    """
    if kind is not None:
        size_of(path, error=error)
        kinds.check(path, kind, error)
    data = read_bytes(path, limit=limit, error=error)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        wrong = f"byte {cause.start:,} is 0x{data[cause.start]:02x}"
        raise of_content(error(f"{os.fspath(path)!r} is not UTF-8 text: {wrong}")) from cause
