"""pandas and polars read every table that a command writes, as it is: one header, no index, each column of its type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog.cli import main
from tests.cli.everything import everything, remove
from tests.conftest import ROOT
from tests.packages import imported

TEXT, WHOLE, REAL = "text", "whole", "real"
TEXTS = {  # columns of tables
    "model", "strategy", "granularity", "channel", "channel_sha256", "plan_sha256", "decoding", "kind", "name",
    "tensor", "plane", "samples", "metric", "metric_sha256", "output", "providers", "python", "onnx-analog",
    "onnxruntime", "numpy", "onnx-ir", "include", "exclude", "input_mean", "input_std", "preprocess", "prune_scope",
    "data", "data_sha256", "inputs_sha256", "models", "models_sha256", "weights_sha256", "row_sha256",
}  # fmt: skip
COUNTS = {
    "cells", "cells_large", "trials", "trial", "original_weights", "stored_weights", "analog_cells", "side_cells",
    "mask_cells", "mask_bitmap_bits", "codebook_cells", "honest_cells", "class_axis", "seed", "batch", "min_size",
    "weights", "address", "index", "replica", "symbol", "polarity",
}  # fmt: skip
FILES = {  # and columns of which some values are missing
    "swept/points.csv": {"ci95_low", "large_fraction"},
    "swept/trials.csv": {"large_fraction", "metric_sha256", "preprocess"},
    "swept/trials.parquet": {"large_fraction", "metric_sha256", "preprocess"},
    "limited/points.csv": set(),
    "limited/trials.csv": {"metric_sha256", "preprocess"},
    "limited/trials.parquet": {"metric_sha256", "preprocess"},
    "harms.csv": {"name", "ci95_low", "ci95_high"},
    "cells.csv": {"symbol"},
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    yield everything()[0]
    remove()


def pandas_table(path: Path) -> Any:
    pandas = imported("pandas")
    if path.suffix == ".parquet":
        return pandas.read_parquet(path)
    return pandas.read_csv(path, comment="#") if path.name == "cells.csv" else pandas.read_csv(path)


def polars_table(path: Path) -> Any:
    polars = imported("polars")
    if path.suffix == ".parquet":
        return polars.read_parquet(path)
    whole = {"infer_schema_length": None}  # else the type of a column is that of its first 100 values
    return polars.read_csv(path, comment_prefix="#", **whole) if path.name == "cells.csv" else polars.read_csv(path)


def kinds(table: Any) -> dict[str, str]:
    """Return whether each column of a table of pandas or polars is text, whole numbers, numbers, or true and false.

    A column of pandas without values, and one of whole numbers without some, is of numbers to it.
    """
    pandas, polars = imported("pandas"), imported("polars")
    if isinstance(table, polars.DataFrame):
        of = {polars.String: TEXT, polars.Int64: WHOLE, polars.Float64: REAL, polars.Boolean: "bool"}
        return {name: of.get(kind, str(kind)) for name, kind in table.schema.items()}
    is_text = lambda column: all(isinstance(value, str) for value in column.dropna())  # noqa: E731
    found = {}
    for name, column in table.items():
        kind = column.dtype
        if pandas.api.types.is_bool_dtype(kind):
            found[name] = "bool"
        elif pandas.api.types.is_integer_dtype(kind):
            found[name] = WHOLE
        else:
            found[name] = REAL if pandas.api.types.is_float_dtype(kind) else TEXT if is_text(column) else str(kind)
    return found


def missing(table: Any) -> dict[str, int]:
    """Return how many values of each column are missing."""
    if isinstance(table, imported("polars").DataFrame):
        return {name: table[name].null_count() for name in table.columns}
    return {str(name): int(column.isna().sum()) for name, column in table.items()}


def faults(table: Any) -> list[str]:
    """Return what is wrong with the columns of a table: their types and their names."""
    found, gaps, rows = kinds(table), missing(table), len(table)
    faulty = [f"no name: {name}" for name in found if not name or name.startswith(("Unnamed", "column_", "_dup"))]
    for name, kind in found.items():
        expected = TEXT if name in TEXTS else WHOLE if name in COUNTS else REAL
        loose = not isinstance(table, imported("polars").DataFrame)  # pandas: a whole number cannot be missing
        if gaps[name] == rows and loose:
            continue
        if kind != expected and not (loose and expected == WHOLE and kind == REAL and gaps[name]):
            faulty.append(f"{name} is {kind}, not {expected}")
    return faulty


@pytest.mark.parametrize("read", [pandas_table, polars_table])
@pytest.mark.parametrize(("file", "gaps"), FILES.items())
def test_each_column_has_its_type_and_what_is_missing_is_missing(folder, file, gaps, read):
    table = read(folder / file)
    assert len(table) > 1
    assert faults(table) == []
    assert gaps <= {name for name, count in missing(table).items() if count}
    assert not {"address", "trial", "mean", "value", "weights"} & {name for name, n in missing(table).items() if n}


@pytest.mark.parametrize("file", FILES)
def test_both_read_the_same_table(folder, file):
    one, other = pandas_table(folder / file), polars_table(folder / file)
    assert list(one.columns) == other.columns
    assert one.shape == other.shape
    assert missing(one) == missing(other)
    for name in one.columns:
        if name not in TEXTS and name != "shape":
            pairs = zip(one[name].tolist(), other[name].to_list(), strict=True)
            assert all(mine == theirs or (theirs is None and mine != mine) for mine, theirs in pairs)


def test_parquet_holds_the_table_of_the_csv(folder):
    for sweep in ("swept", "limited"):
        one, other = polars_table(folder / sweep / "trials.csv"), polars_table(folder / sweep / "trials.parquet")
        assert one.columns == other.columns
        assert kinds(other) == {name: TEXT if name in TEXTS else kind for name, kind in kinds(one).items()}
        assert one.equals(other.cast(one.schema))


def test_every_csv_and_parquet_that_commands_wrote_is_read_here(folder):
    written = {str(path.relative_to(folder)) for suffix in ("csv", "parquet") for path in folder.rglob(f"*.{suffix}")}
    assert written - {"pairs.csv"} == set(FILES)  # pairs.csv is an input


@pytest.mark.parametrize("fault", ["a,b\n1,x\n", ",mean\n0,1\n", "mean\n1\nmean\n2\n", "mean\nTrue\n"])
def test_a_table_that_is_not_clean_is_found(tmp_path, fault):
    (tmp_path / "bad.csv").write_text(fault, encoding="utf-8")
    assert faults(pandas_table(tmp_path / "bad.csv"))
    assert faults(polars_table(tmp_path / "bad.csv"))


# --------------------------------------------------------------------------------------------------------------- JSON


def lists_of_rows(body: Any, place: str = "") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the lists of objects in JSON, each with its place."""
    if isinstance(body, dict):
        for name, value in body.items():
            yield from lists_of_rows(value, f"{place}/{name}")
    elif isinstance(body, list) and body and all(isinstance(entry, dict) for entry in body):
        yield place, body


PRINTED = {
    "inspect model.onnx": {"/stored"},
    "manifest model.protected.onnx": {"/tensors", "/honest", "/baselines"},
    "plan show model.plan.json": set(),
    "evaluate model.protected.onnx --data test.npz --trials 2": set(),
    "check model.onnx --data test.npz --max-drop 30": set(),
    "sensitivity model.onnx --data test.npz --trials 2": {"/parts"},
    "compare measured.json simulated.json": {"/groups"},
    "channel list": {""},
    "sweep model.onnx --data test.npz --strategy raw --cells 1 --trials 2 --engine serial --out again": {"/points"},
    "tune model.onnx --data test.npz --max-drop 20 --trials 2 --out again.json": {"/tensors"},
}


@pytest.mark.parametrize(("command", "places"), PRINTED.items())
def test_lists_in_json_are_tables(folder, command, places, monkeypatch):
    monkeypatch.chdir(folder)
    ended = CliRunner().invoke(main, [*command.split(), "--json"])
    assert ended.exit_code in (0, 4), ended.output
    found = dict(lists_of_rows(json.loads(ended.stdout)))
    assert places <= set(found)
    for rows in found.values():
        one, other = imported("pandas").DataFrame(rows), imported("polars").DataFrame(rows)
        for name in one:
            values = [row.get(name) for row in rows if row.get(name) is not None]
            numeric = values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
            if numeric:
                assert kinds(one[[name]])[name] in (WHOLE, REAL)
                assert other[name].dtype.is_numeric()
            if values and all(isinstance(value, bool) for value in values):
                assert kinds(other.select(name))[name] == "bool"


# -------------------------------------------------------------------------------------------------------------- Python


def test_results_in_python_become_data_frames(folder, monkeypatch):
    monkeypatch.chdir(folder)
    imported("pandas")
    evaluation = oa.evaluate("model.protected.onnx", "test.npz", trials=3).to_dataframe()
    assert kinds(evaluation) == {"trial": WHOLE, "value": REAL, "sqnr_db": REAL}
    assert evaluation["trial"].tolist() == [0, 1, 2]
    inspection = oa.inspect("model.onnx").to_dataframe()
    assert inspection["weights"].dtype.kind == "i"
    assert inspection["reason"].isna().sum() == len(oa.inspect("model.onnx").stored)
    harms = oa.sensitivity("model.onnx", "test.npz", trials=2).to_dataframe()
    assert {name for name, kind in kinds(harms).items() if kind == TEXT} == {"kind", "name", "tensor"}
    swept = oa.sweep("model.onnx", "test.npz", strategy=["raw"], cells=[1, 2], trials=2).to_dataframe()
    assert faults(swept) == []
    assert list(swept.columns) == list(pandas_table(folder / "swept" / "points.csv").columns)
    for table in (evaluation, inspection, harms, swept):
        assert table.index.tolist() == list(range(len(table)))


def test_the_example_of_the_page_reads_tables(folder, monkeypatch):
    monkeypatch.chdir(folder)
    page = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(import pandas.*?)```", page, re.DOTALL)
    found: dict[str, Any] = {}
    exec(example.replace("results/", "swept/"), found)
    assert (len(found["points"]), len(found["trials"])) == (16, 32)
    assert faults(found["cells"]) == []
