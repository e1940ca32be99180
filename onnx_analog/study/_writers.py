"""Writers of a sweep's tables: CSV, and Parquet where pyarrow is installed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from onnx_analog.disk import writing
from onnx_analog.study._lines import CHECKSUM, Row, Written, line_of, word_of

NO_PARQUET = "no Parquet: pyarrow is not installed (pip install 'onnx-analog[parquet]')"
_GROUP = 2**16  # rows that Parquet keeps together


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


def parquet_writer(rows: Iterable[Row], constants: Row) -> writing.Writer:
    """Return what writes trials.parquet."""

    def write(path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        writer, written, left = None, None, iter(rows)
        while part := list(islice(left, _GROUP)):
            written = written or Written([*part[0], *constants], constants)
            text = pyarrow.string()  # a whole part of the rows may have none of these
            types = {"large_fraction": pyarrow.float64(), "channel": text, "channel_sha256": text}
            columns = {name: pyarrow.array([word_of(row[name]) for row in part], types.get(name)) for name in part[0]}
            same = {
                name: pyarrow.repeat(pyarrow.scalar(word_of(value)), len(part)) for name, value in constants.items()
            }
            checksums = {CHECKSUM: pyarrow.array([written.parts(row)[1] for row in part])}
            table = pyarrow.table({**columns, **same, **checksums}, schema=None if writer is None else writer.schema)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()

    return write
