"""Files of reads: what is taken, and what is refused in one line."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from onnx_analog.errors import DataError, OptionError
from onnx_analog.graph import reads as module
from onnx_analog.graph.reads import COLUMNS, Reads, reads_of

ADDRESS, VALUE = np.array([2, 0, 1]), np.array([0.5, -0.25, np.nan])


def text(tmp_path, lines: str):
    path = tmp_path / "reads.csv"
    path.write_text(lines, encoding="utf-8")
    return path


def test_a_csv_file_an_npz_file_and_a_mapping_hold_the_same(tmp_path):
    path = tmp_path / "reads.npz"
    np.savez(path, address=ADDRESS, value=VALUE, time_s=[1, 1, 2], stuck=[0, 1, 0], image="abc")
    lines = "# image abc\n\n# a remark\naddress,value,time_s,stuck\n2,0.5,1,0\n# another\n0,-0.25,1,1\n1,,2,0\n"
    given = {"address": [2, 0, 1], "value": VALUE, "time_s": [1, 1, 2], "stuck": [False, True, False], "image": "abc"}
    for reads in map(reads_of, (path, str(path), text(tmp_path, lines), given)):
        assert reads.address.tolist() == [2, 0, 1]
        np.testing.assert_array_equal(reads.value, VALUE)
        assert (reads.time_s.tolist(), reads.stuck.tolist()) == ([1.0, 1.0, 2.0], [0, 1, 0])
        assert (reads.count, reads.block, reads.reference, reads.image) == (None, None, None, "abc")
        assert reads_of(reads) is reads


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_a_csv_file_holds_the_same_however_many_rows_are_read_at_once(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    lines = '\ufeff# image abc\ntensor,address,value\n"a\nb",2,0.5\n\n#w, 0 , -0.25\r\n"a\r\nb",1," "\n'
    path = tmp_path / "reads.csv"
    path.write_bytes(lines.encode())
    reads = reads_of(path)
    assert (reads.address.tolist(), reads.image) == ([2, 0, 1], "abc")
    np.testing.assert_array_equal(reads.value, VALUE)
    path.write_bytes((lines + "w,3,three\n").encode())
    with pytest.raises(DataError, match="line 9: 'value' is 'three'"):
        reads_of(path)
    path.write_bytes((lines + "w,3\n").encode())
    with pytest.raises(DataError, match="line 9 has 2 values, and the header names 3 columns"):
        reads_of(path)


@pytest.mark.parametrize("remarks", ["# only\n", "# only\n\n"])
def test_remarks_alone_are_no_rows(tmp_path, remarks):
    with pytest.raises(DataError, match="has no rows"):
        reads_of(text(tmp_path, f"address,value\n{remarks}"))


def test_progress_is_told_which_share_of_a_csv_file_is_read(tmp_path):
    rows, shares = 100_000, []
    path = text(tmp_path, "address,value\n" + "".join(f"{row},0.5\n" for row in range(rows)))
    assert len(reads_of(path, lambda _what, share: shares.append(share))) == rows
    assert len(shares) == -(-rows // module._CHUNK)
    assert shares == sorted(shares)
    assert (0 < shares[0] < 0.25, shares[-1]) == (True, 1.0)


def test_several_reads_of_each_cell_are_rows_of_their_own():
    reads = reads_of({"address": [3, 5], "value": [[1.0, 2.0], [3.0, 4.0]], "block": [0, 1]})
    assert reads.address.tolist() == [3, 3, 5, 5]
    assert reads.value.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert reads.block.tolist() == [0, 0, 1, 1]


def test_columns_of_an_image_may_stay_in_a_file(tmp_path):
    path = text(tmp_path, "address,tensor,level,value\n0,w,0.5,1\n")
    assert reads_of(path).value.tolist() == [1.0]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "has no header line"),
        ("# only\n", "has no header line"),
        ("address,value\n", "has no rows"),
        ("address,read\n0,1\n", "has no column 'value': it needs address and value"),
        ("value\n1\n", "has no column 'address'"),
        ("address,value,values\n0,1,2\n", "column 'values' is not known: choose from address, value, count"),
        ("address,value,value\n0,1,2\n", "two columns have the same name"),
        ("address,value\n0,1\n1\n", "line 3 has 1 value, and the header names 2 columns: mend or delete the line"),
        ("address,value\n0,one\n", "line 2: 'value' is 'one'; it must be a number, or empty"),
        ("address,value\n0,1\n1.0,1\n", "line 3: 'address' is '1.0'; it must be a whole number"),
        ("address,value\n,1\n", "line 2: 'address' is ''; it must be a whole number"),
        ("address,value\n1_0,1\n", "'address' is '1_0'"),
        ("address,value\n99999999999999999999,1\n", "'address' is '99999999999999999999'"),
        ("address,value,count\n0,1,0\n", "a count is 0; it must be 1 or more"),
        ("address,value,stuck\n0,1,2\n", "stuck holds numbers other than 0 and 1"),
        ("address,value,time_s\n0,1,\n", "a time is not finite"),
        ("address;value\n0;1\n", "has no column 'address'"),
    ],
)
def test_a_wrong_csv_file_is_refused(tmp_path, lines, said):
    with pytest.raises(DataError) as error:
        reads_of(text(tmp_path, lines))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"address": ADDRESS}, "has no column 'value'"),
        ({"address": ADDRESS, "value": VALUE[:2]}, r"'value' has shape \(2,\), and address \(3,\)"),
        (
            {"address": ADDRESS.astype(float), "value": VALUE},
            "'address' is float64 of 1 axes; it must be whole numbers",
        ),
        ({"address": ADDRESS, "value": VALUE.astype(str)}, "it must be numbers"),
        ({"address": ADDRESS, "value": np.zeros((3, 1, 1))}, "of 3 axes"),
        ({"address": ADDRESS[:0], "value": VALUE[:0]}, "has no rows"),
        ({"address": np.array([2**63], np.uint64), "value": VALUE[:1]}, "which is too large"),
        ({"address": ADDRESS, "value": VALUE, "colour": ADDRESS}, "column 'colour' is not known"),
    ],
)
def test_wrong_arrays_are_refused(arrays, said):
    with pytest.raises(DataError, match=said):
        reads_of(arrays)


def test_other_things_are_refused(tmp_path):
    with pytest.raises(OptionError, match="measured is 3; it must be a path"):
        reads_of(3)
    with pytest.raises(DataError, match="there is no file"):
        reads_of(tmp_path / "none.npz")
    with pytest.raises(DataError, match="is a folder"):
        reads_of(tmp_path)
    (tmp_path / "reads.txt").touch()
    with pytest.raises(DataError, match=r"must end with \.npz or \.csv"):
        reads_of(tmp_path / "reads.txt")


@pytest.mark.parametrize("damage", ["text", "cut", "objects", "long", "short"])
def test_a_damaged_archive_is_refused(tmp_path, damage):
    path = tmp_path / "reads.npz"
    if damage == "text":
        path.write_text("address,value\n0,1\n", encoding="utf-8")
    elif damage == "objects":
        np.savez(path, address=ADDRESS, value=np.array([{}, 1, "a"], object))
    else:
        np.savez(path, address=ADDRESS, value=VALUE)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    if damage in ("long", "short"):
        with zipfile.ZipFile(path) as archive:
            body = archive.read("value.npy")
        other = body.replace(b"(3,)", b"(9,)") if damage == "long" else body[:-8]
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("value.npy", other)
    saying = {"cut": "is a damaged npz file, of which a part is missing", "text": "is a CSV table, and an npz file"}
    said = saying.get(damage, "cannot be read as npz")
    with pytest.raises(DataError, match=said):
        reads_of(path)


def test_sizes_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / "reads.npz"
    np.savez(path, address=ADDRESS, value=VALUE)
    monkeypatch.setattr(module, "LARGEST", 100)
    with pytest.raises(DataError, match="more than the 100 that are read"):
        reads_of(path)
    np.savez_compressed(path, address=np.zeros(10_000, int), value=np.zeros(10_000))
    monkeypatch.setattr(module, "LARGEST", 10_000)
    with pytest.raises(DataError, match="its arrays take more than the 10,000 bytes"):
        reads_of(path)
    monkeypatch.undo()
    monkeypatch.setattr(module, "MOST_ROWS", 2)
    with pytest.raises(DataError, match="more than the 2 that are read"):
        reads_of({"address": ADDRESS, "value": VALUE})
    with pytest.raises(DataError, match="more than the 2 rows"):
        reads_of(text(tmp_path, "address,value\n0,1\n1,1\n2,1\n"))


def test_every_column_is_listed():
    assert set(COLUMNS) == {*Reads.__dataclass_fields__} - {"image", "name"}


def test_names_that_begin_like_remarks_are_rows(tmp_path):
    reads = reads_of(text(tmp_path, "tensor,address,value\n#w,0,0.25\nv,1,0.5\n"))
    assert reads.value.tolist() == [0.25, 0.5]
    remarks = reads_of(text(tmp_path, "address,value\n# a remark, of two cells\n1,0.5\n"))
    assert remarks.address.tolist() == [1]


def test_an_infinite_reference_is_refused():
    with pytest.raises(DataError, match="a reference is infinite"):
        reads_of({"address": [0, 1], "value": [0.1, 0.2], "reference": [np.nan, np.inf]})


def test_an_npz_file_of_which_a_part_is_missing_says_so(tmp_path):
    path = tmp_path / "reads.npz"
    np.savez(path, address=np.arange(99), value=np.zeros(99))
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DataError, match=r"is a damaged npz file, of which a part is missing: copy or write it again"):
        reads_of(path)
