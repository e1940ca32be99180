import csv
import errno
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from onnx_analog.errors import OutputError
from onnx_analog.study import _writers, run_folder
from onnx_analog.study.run_folder import CHECKSUM, CONFIG, CONSTANTS, LOCK, PARQUET, PLOT, POINTS, TRIALS, Folder, Row
from tests.conftest import ROOT

SAME = {"samples": [100, 50], "metric": "top1", "providers": ["CPUExecutionProvider"], "note": None}
ROWS: list[Row] = [{"model": f"net{place // 3}", "trial": place % 3, "value": place / 7} for place in range(6)]
POINT_ROWS: list[Row] = [
    {"model": "net0", "mean": 1 / 7, "ci95_low": None},
    {"model": "net1", "mean": 4 / 7, "ci95_low": 0.5},
]

words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12)  # of one line
kinds = st.sampled_from([st.floats(), st.integers(-(2**63), 2**63 - 1), words, st.none()])
tables = st.dictionaries(words.filter(bool), kinds, min_size=1, max_size=3).flatmap(
    lambda columns: st.lists(
        st.tuples(*columns.values()).map(lambda row: dict(zip(columns, row, strict=True))), min_size=1, max_size=4
    )
)
constants = st.dictionaries(words, st.one_of(st.floats(allow_nan=False), words, st.lists(words)), max_size=3)


def same(value: Any, text: str) -> bool:
    """Return whether a cell of a CSV stands for `value`, with all its bits."""
    if value is None:
        return text == ""
    if isinstance(value, float) and math.isnan(value):
        return math.isnan(float(text))
    if isinstance(value, float):
        return float(text) == value and math.copysign(1, float(text)) == math.copysign(1, value)
    return text == str(value)


def assert_read(found: Sequence[Row], rows: Sequence[Row]) -> None:
    """Fail unless `found` are `rows`, as text."""
    assert len(found) == len(rows), f"{len(found)} rows, not {len(rows)}"
    for one, other in zip(found, rows, strict=True):
        assert list(one) == list(other), "other columns"
        wrong = [name for name in other if not same(other[name], one[name])]
        assert not wrong, f"{wrong[0]} is {one[wrong[0]]!r}, not {other[wrong[0]]!r}"


def append(path: Path, rows: Sequence[Row], at_once: int = 2) -> None:
    """Write rows as a sweep does, some at a time."""
    with Folder(path, SAME) as folder:
        for start in range(0, len(rows), at_once):
            folder.append(rows[start : start + at_once])


def checksum(header: str, row: str) -> str:
    """Return the checksum of a row as docs/sweeps.md has it: both lines as they stand, up to the last comma."""
    return hashlib.sha256(f"{header}\n{row}\n".encode()).hexdigest()[:16]


def read(path: Path) -> list[Row]:
    with Folder(path, SAME) as folder:
        return folder.read()


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------------------------------------- there and back


def test_a_new_folder_holds_no_rows(tmp_path):
    assert read(tmp_path / "some" / "where") == []


def test_rows_that_were_appended_are_read(tmp_path):
    append(tmp_path, ROWS[:4])
    append(tmp_path, ROWS[4:])
    assert_read(read(tmp_path), ROWS)
    header, *lines = (tmp_path / TRIALS).read_text().splitlines()
    assert header == "model,trial,value,samples,metric,providers,note,row_sha256"
    row = 'net0,0,0.0,"[100, 50]",top1,"[""CPUExecutionProvider""]",'
    assert lines[0] == f"{row},{checksum('model,trial,value,samples,metric,providers,note', row)}"
    assert len(lines) == 6


@given(tables, constants)
def test_any_numbers_and_words_are_read_as_they_were_written(rows, shared):
    shared = {f"shared {name}": value for name, value in shared.items()}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        for part in filter(None, (rows[:2], rows[2:])):
            with Folder(path, shared) as folder:
                folder.read()
                folder.append(part)
        with Folder(path, shared) as folder:
            assert_read(folder.read(), rows)
            folder.finish(rows, rows)
        with Folder(path, shared) as folder:
            assert_read(folder.read(), rows)
        written = {
            name: json.dumps(value, ensure_ascii=False) for name, value in shared.items() if isinstance(value, list)
        }
        there = table(path / TRIALS)
        sums = [row.pop(CHECKSUM) for row in there]
        assert len({(*row.values(),) for row in there}) == len(set(sums))
        assert_read(there, [{**row, **shared, **written} for row in rows])
        assert_read(table(path / POINTS), rows)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_a_name_of_two_lines_becomes_one_line(end, tmp_path):
    append(tmp_path, [{"model": f"a{end}b", "value": 0.5}])
    assert_read(read(tmp_path), [{"model": "a b", "value": 0.5}])


def test_a_column_that_all_rows_share_stands_once(tmp_path):
    with Folder(tmp_path, {"seed": 3}) as folder:
        folder.append([{"seed": 3, "value": 0.5}])
    assert (tmp_path / TRIALS).read_text() == (f"seed,value,row_sha256\n3,0.5,{checksum('seed,value', '3,0.5')}\n")


# ------------------------------------------------------------------------------------------------------- half a row


@pytest.mark.parametrize("lost", range(1, 70, 3))
def test_half_a_row_is_cut_off_and_what_comes_next_is_whole(lost, tmp_path):
    append(tmp_path, ROWS[:4])
    path = tmp_path / TRIALS
    text = path.read_bytes()
    path.write_bytes(text[:-lost])
    left = max(text[:-lost].count(b"\n") - 1, 0)
    with Folder(tmp_path, SAME) as folder:
        assert_read(folder.read(), ROWS[:left])
        folder.append(ROWS[left:])
    assert_read(read(tmp_path), ROWS)
    assert path.read_bytes().startswith(text)


@pytest.mark.parametrize("piece", [1, 7, 64])
@pytest.mark.parametrize("lost", [0, 1, 30, 150, 250])
def test_half_a_row_is_cut_off_however_much_is_looked_at_at_once(lost, piece, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_PIECE", piece)
    append(tmp_path, ROWS)
    text = (tmp_path / TRIALS).read_bytes()
    (tmp_path / TRIALS).write_bytes(text[: len(text) - lost])
    whole = text[: len(text) - lost].rpartition(b"\n")[0].count(b"\n")
    assert_read(read(tmp_path), ROWS[:whole])
    assert (tmp_path / TRIALS).read_bytes() == text[: len(text) - lost], "who only reads changes nothing"
    append(tmp_path, ROWS[whole:])
    assert (tmp_path / TRIALS).read_bytes() == text


def test_half_a_header_is_cut_off(tmp_path):
    append(tmp_path, ROWS)
    text = (tmp_path / TRIALS).read_bytes()
    (tmp_path / TRIALS).write_bytes(text[:10])
    append(tmp_path, ROWS)
    assert (tmp_path / TRIALS).read_bytes() == text


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], lines[1][: len(lines[1]) // 2], *lines[2:]],
        lambda lines: [lines[0], f"{lines[1]},more", *lines[2:]],
        lambda lines: [b"\xff" * 20, *lines[1:]],
    ],
    ids=["half a row within", "too long a row", "no text"],
)
def test_a_file_that_is_damaged_is_refused_with_one_line(damage, tmp_path):
    append(tmp_path, ROWS)
    lines = [line if isinstance(line, bytes) else line.encode() for line in damage(lines_of(tmp_path))]
    (tmp_path / TRIALS).write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(OutputError, match=r"^[^\n]*trials\.csv[^\n]*$"):
        read(tmp_path)


def lines_of(path: Path) -> list[str]:
    return (path / TRIALS).read_text().splitlines()


# ------------------------------------------------------------------------------------------------------ one at a time


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    with Folder(tmp_path, SAME), pytest.raises(OutputError) as raised, Folder(tmp_path, SAME):
        pass
    assert "another sweep writes to" in str(raised.value)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)
    append(tmp_path, ROWS)  # it is free again


def test_a_folder_is_held_against_other_processes(tmp_path):
    script = (
        "import sys; from pathlib import Path; from onnx_analog.study.run_folder import Folder\n"
        "try:\n    Folder(Path(sys.argv[1]), {}).__enter__()\nexcept OSError as error:\n    print(error)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with Folder(tmp_path, {}):
        found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "another sweep writes to" in found.stdout


@pytest.mark.parametrize("error", [KeyboardInterrupt, OutputError, ValueError])
def test_a_folder_is_free_after_a_failure(error, tmp_path):
    def fail() -> None:
        with Folder(tmp_path, SAME) as folder:
            folder.append(ROWS[:2])
            raise error("odd")

    with pytest.raises(error):
        fail()
    assert_read(read(tmp_path), ROWS[:2])


def test_a_folder_that_was_refused_is_free(tmp_path):
    append(tmp_path, ROWS)
    refused = Folder(tmp_path, {**SAME, "metric": "other"})  # which lives on
    with pytest.raises(OutputError, match="metric"):
        refused.__enter__()
    assert_read(read(tmp_path), ROWS)


# ---------------------------------------------------------------------------------------------- what is of another


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"metric": "sqnr_db"}, ["metric", "'top1'", "'sqnr_db'"]),
        ({"samples": [100]}, ["samples", "is 100, and", "it is 100,50 in"]),
        ({"note": "x"}, ["note is 'x', but the sweep in", "has none"]),
        ({"seed": 3}, ["seed is 3, but the sweep in", "has none"]),
        ({"providers": ["CUDAExecutionProvider"]}, ["providers", "CPUExecutionProvider", "CUDAExecutionProvider"]),
    ],
)
def test_a_folder_of_another_sweep_is_refused_and_what_differs_is_named(change, named, tmp_path):
    append(tmp_path, ROWS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError) as raised, Folder(tmp_path, {**SAME, **change}):
        pass
    assert all(word in str(raised.value) for word in [*named, "choose another folder"])
    assert "\n" not in str(raised.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("value", "other"), [(0, False), (True, 1), (1, 1.0)])
def test_constants_of_other_types_differ_although_python_takes_them_for_equal(value, other, tmp_path):
    assert value == other
    append(tmp_path, ROWS)
    (tmp_path / CONSTANTS).write_text(json.dumps({**SAME, "samples": value}), encoding="utf-8")
    with pytest.raises(OutputError, match=f"samples is {json.dumps(other)}, and it is {json.dumps(value)} in"):
        Folder(tmp_path, {**SAME, "samples": other}).__enter__()


@pytest.mark.parametrize(
    ("mine", "there", "said"),
    [
        ({"data": "t.npz"}, {"data": None}, "data is 't.npz', but the sweep in .* has none: choose another folder"),
        ({}, {"correct_samples": [9], "correct_sha256": [64 * "a"]}, "correct is not given, as it is in the sweep of"),
        ({"correct_sha256": [64 * "a"]}, {}, "correct is given, but the sweep in .* has none: choose"),
        ({"samples": [100]}, {"samples": []}, "samples is 100, and it is none in the sweep of .*: choose"),
        ({"correct_samples": [9]}, {"correct_samples": [8]}, "correct_samples is 9, and it is 8 in the sweep of"),
    ],
)
def test_what_only_one_sweep_has_is_named_without_digests(mine, there, said, tmp_path):
    append(tmp_path, ROWS)
    (tmp_path / CONSTANTS).write_text(json.dumps({**SAME, **there}), encoding="utf-8")
    with pytest.raises(OutputError, match=f"^{said}") as raised:
        Folder(tmp_path, {**SAME, **mine}).__enter__()
    assert 9 * "a" not in str(raised.value)


def test_a_constant_that_is_gone_is_named_too(tmp_path):
    append(tmp_path, ROWS)
    with pytest.raises(OutputError, match="metric is not 'top1', as it is in the sweep of"):
        Folder(tmp_path, {name: value for name, value in SAME.items() if name != "metric"}).__enter__()


def test_tuples_are_lists_in_a_file(tmp_path):
    append(tmp_path, ROWS)
    with Folder(tmp_path, {**SAME, "samples": (100, 50)}) as folder:
        assert_read(folder.read(), ROWS)


def test_rows_that_no_sweep_wrote_are_refused_and_kept(tmp_path):
    (tmp_path / TRIALS).write_text("mine\n")
    with pytest.raises(OutputError, match=r"trials\.csv' was not written by a sweep: choose another folder"):
        Folder(tmp_path, SAME).__enter__()
    assert (tmp_path / TRIALS).read_text() == "mine\n"
    assert not (tmp_path / CONSTANTS).exists()


@pytest.mark.parametrize("name", [POINTS, PARQUET])
def test_other_files_that_no_sweep_wrote_are_not_replaced(name, tmp_path):
    (tmp_path / name).write_text("mine\n")
    with pytest.raises(OutputError):
        finished(tmp_path)
    assert (tmp_path / name).read_text() == "mine\n"


@pytest.mark.parametrize(
    "text",
    ["", "{", "\xff", "[1]", "[" * 200_000],
    ids=["empty", "half", "no text", "a list", "deep"],
)
def test_constants_that_cannot_be_read_are_refused_with_one_line(text, tmp_path):
    append(tmp_path, ROWS)
    (tmp_path / CONSTANTS).write_text(text, encoding="latin-1")
    with pytest.raises(OutputError, match=r"^[^\n]*sweep\.json[^\n]*$"):
        Folder(tmp_path, SAME).__enter__()
    assert_whole(tmp_path, ROWS)


def test_constants_can_be_read_by_people(tmp_path):
    with Folder(tmp_path, {**SAME, "note": "σ"}) as folder:
        folder.append(ROWS)
    text = (tmp_path / CONSTANTS).read_text(encoding="utf-8")
    assert '\n  "note": "σ"\n' in text
    assert json.loads(text) == {**SAME, "note": "σ"}


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere/at/all")])
def test_a_path_that_can_be_no_folder_is_refused_with_one_line(make, tmp_path):
    make(tmp_path / "out")
    with pytest.raises(OutputError, match=r"^cannot make the folder [^\n]*out[^\n]*$"):
        Folder(tmp_path / "out", SAME).__enter__()


# ----------------------------------------------------------------------------------- what is trusted no more than it is


@pytest.mark.parametrize("name", [TRIALS, CONSTANTS, POINTS, PARQUET, LOCK, CONFIG, PLOT])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_what_is_no_regular_file_is_refused_and_left(kind, name, tmp_path):
    append(tmp_path / "out", ROWS)
    odd, foreign = tmp_path / "out" / name, tmp_path / "foreign"
    foreign.write_text("not a line that ends")
    odd.unlink(missing_ok=True)
    make = {
        "link": lambda: odd.symlink_to(foreign),
        "dangling link": lambda: odd.symlink_to(tmp_path / "nowhere"),
        "pipe": lambda: os.mkfifo(odd),
        "folder": odd.mkdir,
    }
    make[kind]()
    with pytest.raises(OutputError, match=f"{name}' is a link, a folder or a device"):
        read(tmp_path / "out")
    assert os.path.lexists(odd)
    assert foreign.read_text() == "not a line that ends"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda line: line.replace("top1", "top5"), "metric is 'top5', and in sweep.json 'top1'"),
        (
            lambda line: line.replace("[100, 50]", "[100, 51]"),
            re.escape("samples is '[100, 51]', and in sweep.json '[100, 50]'"),
        ),
        (lambda line: f"{line}x", "it was changed after it was written: it does not match its row_sha256"),
        (lambda line: line.replace(",,", ",x,"), "note is 'x', and in sweep.json ''"),
        (lambda line: f"{line},", "it has 9 entries, and there are 8 columns"),
        (lambda line: line.replace("net", "n" * 2**18), "field larger than field limit"),
        (lambda line: line.replace("net", "net" * 2**19), "it is longer than 1,048,576 characters"),
        (lambda line: f'"{line}', "'.' expected after"),
    ],
)
@pytest.mark.parametrize("place", [1, 3, 6])
def test_a_row_of_another_sweep_is_named_by_its_line(place, change, said, tmp_path):
    append(tmp_path, ROWS)
    lines = lines_of(tmp_path)
    lines[place] = change(lines[place])
    (tmp_path / TRIALS).write_text("\n".join(lines) + "\n")
    with pytest.raises(
        OutputError, match=rf"^line {place + 1} of '.*trials\.csv' is not a row of this sweep: ({said})"
    ) as found:
        read(tmp_path)
    assert "Delete the line, or choose another folder" in str(found.value)
    assert len(str(found.value)) <= 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("model,trial,value,samples,metric,note,value", "there are two columns 'value'"),
        ("model,trial,value,samples,metric,providers,notes", "there is no column 'note'"),
        ("x", "there is no column 'samples'"),
    ],
)
def test_a_header_of_another_sweep_is_refused(header, said, tmp_path):
    append(tmp_path, ROWS)
    lines = lines_of(tmp_path)
    (tmp_path / TRIALS).write_text("\n".join([header, *lines[1:]]) + "\n")
    with pytest.raises(OutputError, match=rf"line 1 of .*: {said}"):
        read(tmp_path)


def test_rows_of_other_columns_are_not_appended(tmp_path):
    append(tmp_path, ROWS)
    before = (tmp_path / TRIALS).read_bytes()
    with Folder(tmp_path, SAME) as folder, pytest.raises(OutputError, match="has other columns than this sweep"):
        folder.append([{**ROWS[0], "more": 1}])
    assert (tmp_path / TRIALS).read_bytes() == before


def test_a_file_of_one_long_line_is_refused_without_being_read(tmp_path):
    append(tmp_path, ROWS)
    with (tmp_path / TRIALS).open("ab") as file:
        file.truncate(2**32)  # zeros, which take no room on the disk
    with (tmp_path / TRIALS).open("r+b") as file:
        file.seek(2**32)
        file.write(b"\n")
    tracemalloc.start()
    with pytest.raises(OutputError, match=r"line 8 .* it is longer than 1,048,576 characters"):
        read(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_constants_that_are_too_large_are_refused(tmp_path):
    append(tmp_path, ROWS)
    os.truncate(tmp_path / CONSTANTS, 2**30)
    with pytest.raises(OutputError, match=r"has 1,073,741,824 bytes, more than the 16,777,216"):
        read(tmp_path)


@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_left_where_nothing_was_computed(there, tmp_path):
    out = tmp_path / "some" / "where"
    if there:
        out.mkdir(parents=True)
    with pytest.raises(ZeroDivisionError), Folder(out, SAME):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == (["some", "where"] if there else [])


def test_a_name_that_is_no_text_is_refused_before_anything_is_computed(tmp_path):
    assert run_folder.is_text("σ")
    with pytest.raises(OutputError, match=r"a name is not UTF-8, and sweep\.json cannot hold it"):
        Folder(tmp_path / "out", {**SAME, "models": [os.fsdecode(b"\xff")]}).__enter__()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [CONFIG, PLOT])
def test_options_and_a_plot_that_no_sweep_wrote_are_kept(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="was not written by a sweep"):
        append(tmp_path, ROWS)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


# ------------------------------------------------------------------------------------------------------------ the end


def finished(path: Path, rows: Sequence[Row] = ROWS, points: Sequence[Row] = POINT_ROWS) -> dict[str, bytes]:
    """Return all files of a folder whose sweep ended."""
    with Folder(path, SAME) as folder:
        folder.read()
        folder.finish(rows, points)
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != LOCK}


def test_the_end_writes_whole_files_in_order_however_rows_came(tmp_path):
    append(tmp_path / "one", ROWS, at_once=6)
    append(tmp_path / "other", ROWS[::-1], at_once=1)
    found = finished(tmp_path / "one")
    assert set(found) == {TRIALS, PARQUET, POINTS, CONSTANTS}
    assert found == finished(tmp_path / "other") == finished(tmp_path / "third")
    assert_read(read(tmp_path / "one"), ROWS)
    assert_read(table(tmp_path / "one" / POINTS), POINT_ROWS)


def test_rows_can_be_appended_after_an_end(tmp_path):
    finished(tmp_path, ROWS[:2])
    append(tmp_path, ROWS[2:])
    assert_read(read(tmp_path), ROWS)


def test_every_row_says_what_all_share(tmp_path):
    finished(tmp_path)
    for line in table(tmp_path / TRIALS):
        assert json.loads(line["samples"]) == [100, 50]
        assert (line["metric"], line["note"]) == ("top1", "")


def test_parquet_holds_what_the_csv_does(tmp_path):
    rows = [*ROWS, {"model": "a,b\n", "trial": 7, "value": math.nan}, {"model": "", "trial": 8, "value": -math.inf}]
    finished(tmp_path, rows)
    found = parquet.read_table(tmp_path / PARQUET)
    lines = table(tmp_path / TRIALS)
    assert found.column_names == list(lines[0])
    for row, line in zip(found.to_pylist(), lines, strict=True):
        assert all(same(row[name], line[name]) for name in line)
    assert {str(field.type) for field in found.select(["trial"]).schema} == {"int64"}
    assert {str(field.type) for field in found.select(["value"]).schema} == {"double"}


@pytest.mark.parametrize("group", [1, 2, 6])
def test_parquet_is_written_in_groups_of_rows(group, tmp_path, monkeypatch):
    monkeypatch.setattr(_writers, "_GROUP", group)
    finished(tmp_path)
    found = parquet.ParquetFile(tmp_path / PARQUET)
    assert found.num_row_groups == 6 // group
    assert [row["value"] for row in found.read().to_pylist()] == [row["value"] for row in ROWS]


def test_without_pyarrow_there_is_no_parquet_and_all_else(tmp_path, monkeypatch):
    assert run_folder.can_parquet()
    monkeypatch.setattr(_writers, "find_spec", lambda name: None)
    assert not run_folder.can_parquet()
    assert "pip install 'onnx-analog[parquet]'" in run_folder.NO_PARQUET
    assert set(finished(tmp_path)) == {TRIALS, POINTS, CONSTANTS}


def test_without_pyarrow_no_parquet_of_other_rows_is_left(tmp_path, monkeypatch):
    finished(tmp_path, ROWS[:2])
    monkeypatch.setattr(_writers, "find_spec", lambda name: None)
    finished(tmp_path)
    assert not (tmp_path / PARQUET).exists()


def test_without_rows_only_points_are_written(tmp_path):
    assert set(finished(tmp_path, [])) == {POINTS, CONSTANTS}
    assert set(finished(tmp_path / "other", [], [])) == {CONSTANTS}


def test_an_end_that_fails_leaves_the_rows(tmp_path, monkeypatch):
    append(tmp_path, ROWS[::-1])
    before = (tmp_path / TRIALS).read_bytes()

    def fail(rows: object) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return write

    with monkeypatch.context() as patched, Folder(tmp_path, SAME) as folder:
        patched.setattr(run_folder, "csv_writer", fail)
        with pytest.raises(OutputError, match="No space left on device"):
            folder.finish(ROWS, POINT_ROWS)
    assert (tmp_path / TRIALS).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} <= {TRIALS, CONSTANTS, LOCK}


class Many:
    """Rows that are made as one goes through them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self):
        return ({"model": "net", "trial": trial, "value": trial / 7} for trial in range(self.count))


@pytest.mark.slow(reason="700,000 rows are written and read under tracemalloc: 60 s, 250 MB")
def test_half_a_million_rows_take_no_more_memory_than_some(tmp_path):
    """Python's own memory, which is all but Parquet's: a group of rows at a time, some 60 MB, and not all of them."""
    peaks = []
    for count in (2 * 10**5, 5 * 10**5):
        path = tmp_path / str(count)
        tracemalloc.start()
        with Folder(path, SAME) as folder:
            rows = iter(Many(count))
            while some := list(islice(rows, 1000)):
                folder.append(some)
            assert sum(1 for _ in folder.stream()) == count
            folder.finish(Many(count), [])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        with (path / TRIALS).open() as file:
            assert sum(1 for _ in file) == 1 + count
        assert parquet.read_metadata(path / PARQUET).num_rows == count
    assert peaks[1] < 1.1 * peaks[0]


# ------------------------------------------------------------------------------------------------------ a full disk


def fill(monkeypatch: pytest.MonkeyPatch, room: int, at_once: int = 1 << 30) -> None:
    """Let a disk have room for so many bytes, of which a call takes some."""
    write, left = os.write, [room]

    def limited(file: int, data: Any) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(file, data[: min(left[0], at_once)])
        left[0] -= written
        return written

    monkeypatch.setattr(os, "write", limited)


def assert_whole(path: Path, rows: Sequence[Row]) -> None:
    """Fail unless the file of rows is a header and whole rows, the first of `rows`."""
    text = (path / TRIALS).read_text()
    assert text.endswith("\n") or not text, "half a row"
    assert_read([{name: line[name] for name in ROWS[0]} for line in table(path / TRIALS)], rows)


@pytest.mark.parametrize("room", [0, 1, 40, 47, 48, 49, 100, 104, 105, 106, 107, 250])
def test_a_full_disk_loses_nothing_that_was_written(room, tmp_path):
    with pytest.MonkeyPatch.context() as patched, Folder(tmp_path, SAME) as folder:
        fill(patched, room)
        with pytest.raises(OutputError) as raised:
            [folder.append([row]) for row in ROWS]
    assert "No space left on device. Completed trials are kept: free some space" in str(raised.value)
    assert "\n" not in str(raised.value)
    size = (tmp_path / TRIALS).stat().st_size
    assert size == room
    whole = max((tmp_path / TRIALS).read_bytes().count(b"\n") - 1, 0)
    with Folder(tmp_path, SAME) as folder:
        assert_read(folder.read(), ROWS[:whole])
        folder.append(ROWS[whole:])
    assert_whole(tmp_path, ROWS)


@pytest.mark.parametrize("at_once", [1, 7, 50])
def test_a_system_that_writes_a_few_bytes_at_a_time_is_asked_again(at_once, tmp_path):
    with pytest.MonkeyPatch.context() as patched:
        fill(patched, 1 << 30, at_once)
        append(tmp_path, ROWS)
    assert_whole(tmp_path, ROWS)


# --------------------------------------------------------------------------------------------- the helpers above


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.10000000000000002"), (0.0, "-0.0"), (math.nan, "0"), (None, "None"), (1, "1.0"), ("a", "a ")],
)
def test_same_rejects_what_is_another_value(value, text):
    assert not same(value, text)
    assert same(value, "" if value is None else str(value))


@pytest.mark.parametrize(
    "wrong",
    [
        ROWS[:5],
        ROWS[::-1],
        [{**row, "more": ""} for row in ROWS],
        [*ROWS[:5], {**ROWS[5], "value": ROWS[5]["value"] * (1 + 2**-52)}],
    ],
)
def test_assert_read_rejects_other_rows(wrong):
    found = [{name: str(value) for name, value in row.items()} for row in ROWS]
    assert_read(found, ROWS)
    with pytest.raises(AssertionError):
        assert_read(found, wrong)


@pytest.mark.parametrize("change", [lambda text: text[:-1], lambda text: text[:-30], lambda text: text + "1,2\n"])
def test_assert_whole_rejects_half_a_row(change, tmp_path):
    append(tmp_path, ROWS)
    assert_whole(tmp_path, ROWS)
    (tmp_path / TRIALS).write_text(change((tmp_path / TRIALS).read_text()))
    with pytest.raises(AssertionError):
        assert_whole(tmp_path, ROWS)
