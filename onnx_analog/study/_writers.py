"""Writers of a sweep's tables: CSV, and Parquet where pyarrow is installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from onnx_analog.disk import writing
from onnx_analog.study._lines import CHECKSUM, Row, Written, line_of, word_of

NO_PARQUET = "no Parquet: pyarrow is not installed (pip install 'onnx-analog[parquet]')"
_GROUP = 2**16  # rows that Parquet keeps together


_IF_MISSING = {  # the type of a column without values; of all others it is text
    **dict.fromkeys(("large_fraction", "sqnr_db", "original", "stored", "honest_cells_per_original_weight"), "float64"),
    **dict.fromkeys(("cells", "cells_large", "honest_cells", "class_axis"), "int64"),
}


def can_parquet() -> bool:
    """Return whether pyarrow is installed."""
    return find_spec("pyarrow") is not None


def trials_writer(rows: Iterable[Row], constants: Row) -> writing.Writer:
    """Return what writes trials.csv."""

    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            written = None
            for row in rows:
                if written is None:
                    columns = [*row, *constants]
                    written = Written(columns, constants)
                    file.write(line_of([*columns, CHECKSUM]))
                file.write(written.line(row))

    return write


def csv_writer(rows: Iterable[Row]) -> writing.Writer:
    """Return what writes rows as a CSV without checksums."""

    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            for number, row in enumerate(rows):
                if not number:
                    file.write(line_of(row))
                file.write(line_of(word_of(value) for value in row.values()))

    return write


def rows_of(path: Path) -> int | None:
    """Return how many rows a Parquet file has; None if it is damaged."""
    from pyarrow import ArrowException, parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (OSError, ArrowException):
        return None


def _column(name: str, values: Sequence[Any]) -> Any:
    """Return a column for Parquet; its type does not depend on whether a part of the rows has values."""
    import pyarrow

    column = pyarrow.array(values)
    return column if column.null_count < len(column) else column.cast(_IF_MISSING.get(name, "string"))


def parquet_writer(rows: Iterable[Row], constants: Row) -> writing.Writer:
    """Return what writes trials.parquet."""

    def write(path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        writer, written, left = None, None, iter(rows)
        while part := list(islice(left, _GROUP)):
            written = written or Written([*part[0], *constants], constants)
            columns = {name: _column(name, [word_of(row[name]) for row in part]) for name in part[0]}
            same = {name: _column(name, [word_of(value)] * len(part)) for name, value in constants.items()}
            checksums = {CHECKSUM: pyarrow.array([written.parts(row)[1] for row in part])}
            table = pyarrow.table({**columns, **same, **checksums}, schema=None if writer is None else writer.schema)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()

    return write
