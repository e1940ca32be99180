"""The option `--report` of commands: what is checked before anything is computed, and what is written in the end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from onnx_analog.errors import printable


def check(path: Path | None, read: Iterable[Path], *, force: bool, **more: Any) -> None:
    """Refuse a report that could not be written; see `onnx_analog.html.report.check`."""
    if path is not None:
        from onnx_analog.html import report

        report.check(path, read, force=force, **more)


def write(result: Any, path: Path | None, *, force: bool, **more: Any) -> None:
    """Write the report of a result, with the command line, if one was asked for."""
    if path is not None:
        from onnx_analog.html.report import report

        command = printable(shlex.join(["onnx-analog", *sys.argv[1:]]))  # a name may be no text
        report(result, path, command=command, force=force, **more)


def lines(path: Path | None) -> list[str]:
    """Return the line that names a report that was written."""
    return [] if path is None else [f"report: {printable(str(path))}"]
