"""The channel of a CSV file of measured pairs."""

from __future__ import annotations

import os

import numpy as np

from onnx_analog.channels.base import Source
from onnx_analog.channels.estimate import Pairs
from onnx_analog.channels.outliers import outlying
from onnx_analog.channels.pairs_csv import read_columns, read_labels
from onnx_analog.channels.table import TableChannel
from onnx_analog.display import counted
from onnx_analog.errors import require_path


def measured(
    *,
    csv: str,
    input: str,  # noqa: A002 - what the command line calls it
    output: str,
    log: bool = False,
    neighbours: int = 1,
    group: str = "",
) -> TableChannel:
    """Return the channel of a CSV file of pairs.

    Parameters
    ----------
    csv : str
        A file with a header line; lines that start with # are passed over.
    input, output : str
        Names of the two columns.
    log : bool
        Scale log10 of the output.
    neighbours : int
        k of the mean; see `from_pairs`.
    group : str, optional
        Name of the column that says which device a pair was measured on.
    """
    pairs, source, _ = read_pairs(require_path("csv", csv), input=input, output=output, log=log, group=group or None)
    return pairs.channel(neighbours, source=source)


def columns_of(*columns: str | None) -> list[str]:
    """Return the columns in which a row must have a value, each once."""
    return list(dict.fromkeys(name for name in columns if name))


def read_pairs(
    path: str | os.PathLike[str],
    *,
    input: str,  # noqa: A002 - likewise
    output: str,
    log: bool,
    group: str | None,
    skip_missing: bool = False,
    skip_outliers: bool = False,
) -> tuple[Pairs, Source, int]:
    """Return the pairs of a CSV file on the scale of -1 to 1, where they come from, and how many outliers are left out.

    Raises
    ------
    OptionError
        If `path` is no path.
    ChannelError
        If the file is not such a file, or its pairs describe no channel.
    """
    path = require_path("path", path)
    needed = columns_of(input, output, group) if skip_missing else []
    inputs, outputs = read_columns(path, (input, output), positive=output if log else None, unless=needed)
    devices = read_labels(path, group, unless=needed) if group else None
    kept, number = np.ones(inputs.size, bool), 0
    if skip_outliers:
        kept = ~outlying(inputs, np.log10(outputs) if log else outputs)
        number = int(np.count_nonzero(~kept))
    devices = None if devices is None else devices[kept]
    pairs = Pairs.of(inputs[kept], outputs[kept], devices=devices, name=path.stem, units=(input, output), log=log)
    text = f"{path.name}: {output} against {input}, {pairs.inputs.size:,} pairs"
    return pairs, Source(citation=f"{text}, {counted(number, 'outlier')} left out" if number else text), number
