"""Writes the report of a result: one HTML page, complete in itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from onnx_analog._inputs import AnyChannel, AnyModel, channel_of, load_model
from onnx_analog.arguments import DEFAULTS, check_type, checked
from onnx_analog.channels import Channel
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.disk import writing
from onnx_analog.errors import OptionError, OutputError, require_path
from onnx_analog.graph import files
from onnx_analog.graph.correction import Cost
from onnx_analog.graph.protected import ProtectedModel, open_protected
from onnx_analog.graph.stored import is_protected, read_back
from onnx_analog.html.contents import page_of
from onnx_analog.html.page import render
from onnx_analog.html.stored import Memory
from onnx_analog.results import Paths, Swept
from onnx_analog.run.evaluation import Evaluation
from onnx_analog.tuning.checked import Checked, with_option
from onnx_analog.tuning.harm import Harms
from onnx_analog.tuning.result import Tuned

NEEDED = ("matplotlib", "jinja2")


def check(
    path: Path,
    read: Iterable[Path] = (),
    *,
    force: bool,
    perhaps: Iterable[Path] = (),
    new_folder: bool = False,
) -> None:
    """Raise `OutputError` or `OptionError` if no report can be written to a path: before anything is computed.

    Parameters
    ----------
    path : Path
    read, perhaps : paths
        Files that are read, and others that may be written.
    force : bool
        Whether a file that is there may be replaced.
    new_folder : bool
        Whether the folder may be missing, and will be made.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise OutputError(
            f"no report: {' and '.join(missing)} {verb} not installed (pip install 'onnx-analog[report]')"
        )
    writing.check_outputs([path], read, force=force, perhaps=perhaps, new_folder=new_folder)
    if path.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"report is {str(path)!r}, and a report is an HTML page: give it the suffix .html")


def report(
    result: Evaluation | Swept | Tuned | Checked | Harms,
    path: Paths,
    *,
    model: AnyModel | None = None,
    channel: AnyChannel | None = None,
    modifiers: Modifiers = NONE,
    counting: str = DEFAULTS.counting,
    command: str | None = None,
    force: bool = DEFAULTS.force,
) -> None:
    """Write a result as one HTML page, which needs no other file, no script and no network.

    It says the answer first, then what it costs and what it loses. The same result gives the same bytes.

    Parameters
    ----------
    result : Evaluation, Swept, Tuned, Checked or Harms
    path : path
        Of the page.
    model : model, optional
        The protected model that an evaluation is of, which the result does not hold: the page then also has its cells,
        tensors, weights and levels. Results of `tune`, `check` and `sensitivity` hold it.
    channel, modifiers
        As they were given to `evaluate`.
    counting : {"memory", "paper"}
        Cells by which the points of a sweep are compared.
    command : str, optional
        What made the result, shown as it is.
    force : bool
        Replace a file that is there.

    Raises
    ------
    OptionError
        If an argument is of another type, or `model` is given and the result holds its own.
    OutputError
        If the file is there already or cannot be written, or matplotlib or Jinja2 is not installed.

    Examples
    --------
    >>> import onnx_analog as oa
    >>> from onnx_analog import demo
    >>> stored = oa.protect(demo.MODEL)
    >>> evaluation = oa.evaluate(stored, demo.IMAGES, trials=2, samples=64, mean=0.1307, std=0.3081)
    >>> oa.report(evaluation, "report.html", model=stored)  # doctest: +SKIP
    """
    check_type(
        "result",
        result,
        Evaluation | Swept | Tuned | Checked | Harms,
        "what evaluate, sweep, tune, check or sensitivity returned",
    )
    check_type("modifiers", modifiers, Modifiers, "Modifiers")
    check_type("command", command, str | None, "text or None")
    given = checked(counting=counting, force=force)
    target = require_path("path", path)
    check(target, _read(model, channel), force=given["force"])
    if not isinstance(result, Evaluation) and (model is not None or channel is not None or modifiers != NONE):
        raise OptionError("model, channel and modifiers are of the report of an evaluation: leave them out")
    memory = _memory(result, model, channel_of(channel), modifiers)
    page = replace(page_of(result, memory, given["counting"]), command=command)
    if command is not None and isinstance(result, Checked):
        page = replace(page, verdict=with_option(page.verdict))
    writing.write_all({target: writing.write_text(render(page))}, force=given["force"])


def _read(model: Any, channel: Any) -> Iterator[Path]:
    """Yield the files that a model and a channel are read from."""
    if isinstance(model, str | os.PathLike):
        yield from files.files_of(Path(model))
    if isinstance(channel, str | os.PathLike) and Path(channel).is_file():
        yield Path(channel)


def _memory(result: Any, model: AnyModel | None, channel: str | Channel | None, modifiers: Modifiers) -> Memory | None:
    """Return the protected model of a result, as it was read; None where it is not known or nothing is protected."""
    if isinstance(result, Tuned):
        added = {result.counting: result.correction_cells / result.weights} if result.correction_numbers else {}
        return Memory(
            protected=result.protected, seed=result.seed or 0, limit=result.limit, counting=result.counting,
            of_correction=added,
        )  # fmt: skip
    if isinstance(result, Checked | Harms):
        if result.protected is None:
            return None
        added = _of_correction(result.protected, result.correction)
        return Memory(protected=result.protected, seed=result.seed, of_correction=added)
    if not isinstance(result, Evaluation) or model is None:
        return None
    loaded = load_model(model)
    if not is_protected(loaded) or read_back(loaded) is not None:
        return None
    protected = open_protected(loaded)
    read = protected.through(channel, modifiers)
    added = _of_correction(read, result.correction)
    return Memory(protected=read, seed=result.seed, limit=result.limit, of_correction=added)


def _of_correction(protected: ProtectedModel, correction: Cost | None) -> dict[str, float]:
    """Return the cells per original weight of a correction, by counting; empty without one."""
    return {} if correction is None else protected.counted.of_correction(correction.numbers)
