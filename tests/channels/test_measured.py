import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_analog.channels import Source, from_dict, from_pairs
from onnx_analog.channels.measured import measured
from onnx_analog.channels.pairs_csv import read_columns, read_labels
from onnx_analog.errors import ChannelError

# ------------------------------------------------------------------------------------------------------- CSV files

PLAIN = "v,r\n1,2\n1,4\n2,7\n2,9\n"
COLUMNS = [[1, 1, 2, 2], [2, 4, 7, 9]]


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.rstrip("\n"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        "\ufeff" + PLAIN,
        "\ufeff# a comment\r\n" + PLAIN.replace("\n", "\r\n"),
        "# a comment, with a comma\n\n" + PLAIN.replace("1,4", "# another\n1,4\n"),
        'r,"v",note\n2,"1",a\n4,1,b\n7,2,c\n"9","2",d\n',
        'v,r,note\n1,2,"a, b"\n1,4,""\n2,7,c\n2,9,"d, e, f"\n',
        '"note, with a comma",v,r\n"a, b",1,2\nc,1,4\nd,2,7\ne,2,9\n',
        " v , r \n 1 , 2 \n1,4\n2, 7\n2,9\n",
        "v,r\n1.0,2e0\n1,+4\n2,0.7e1\n2.,9\n",
    ],
    ids=[
        "plain",
        "no last newline",
        "CRLF",
        "CR",
        "byte order mark",
        "byte order mark, comment and CRLF",
        "comments and empty lines",
        "quotes and another order",
        "commas in quotes",
        "commas in a quoted name",
        "blanks",
        "ways to write numbers",
    ],
)
def test_files_that_say_the_same(tmp_path, text):
    path = written(tmp_path, text)
    assert [column.tolist() for column in read_columns(path, ("v", "r"))] == COLUMNS
    found = measured(csv=str(path), input="v", output="r")
    source = Source(citation="mine.csv: r against v, 4 pairs")
    assert found == from_pairs(*map(np.array, COLUMNS), name="mine", units=("v", "r"), source=source)


def test_columns_come_in_the_order_that_they_are_asked_for(tmp_path):
    path = written(tmp_path, "a,b,c\n1,2,3\n4,5,6\n")
    assert [column.tolist() for column in read_columns(path, ("c", "a"))] == [[3, 6], [1, 4]]


def test_labels_are_text_and_numbered_in_its_order(tmp_path):
    path = written(tmp_path, 'v,r,who\n1,2,a\n1,4,"b, c"\n2,7,07\n2,9,7\n')
    assert read_labels(path, "who").tolist() == [2, 3, 0, 1]


def test_options_of_a_file_are_those_of_pairs(tmp_path):
    rows = [(x, 10.0 ** (x + n / 4 + d), d) for x in range(5) for n in range(3) for d in range(2)]
    path = written(tmp_path, "v,r,who\n" + "".join(f"{x},{y!r},device {d}\n" for x, y, d in rows))
    found = measured(csv=str(path), input="v", output="r", log=True, neighbours=2, group="who")
    inputs, outputs, devices = np.array(rows).T
    expected = from_pairs(
        inputs, outputs, devices=devices, neighbours=2, name="mine", units=("v", "r"), log=True, source=found.source
    )
    assert found == expected
    assert all(found.between)


def test_more_inputs_than_a_table_has_rows(tmp_path):
    text = "v,r\n" + "".join(f"{x},{x + up}\n" for x in range(1025) for up in (0, 1))
    found = measured(csv=str(written(tmp_path, text)), input="v", output="r")
    assert (len(found.inputs), found.pairs) == (1024, 2050)
    assert found.source.citation == "mine.csv: r against v, 2,050 pairs"


def test_a_fitted_channel_goes_through_json(tmp_path):
    found = measured(csv=str(written(tmp_path, PLAIN)), input="v", output="r")
    assert from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no columns: it needs a header line, and rows of numbers below it"),
        ("# nothing but a comment\n", "names no columns: it needs a header line"),
        ("V,r\n1,2\n2,3\n", "has no column 'v'; its columns are V, r"),
        ("v;r\n1;2\n2;3\n", "has no column 'v'; its columns are v;r"),
        ("v,r\n", "has no rows"),
        ("v,r\n# nothing\n\n", "has no rows"),
        ("v,r\n1,two\n2,3\n", r"mine.csv', line 2: column 'r' holds 'two', which is not a finite number"),
        ("# a\nv,r\n\n1,\n2,3\n", "line 4: column 'r' is empty"),
        ("v,r\n1,2\n2\n", "line 3 has 1 value, and the header names 2 columns: mend or delete the line"),
        ("v,r\n1,2,3\n2\n", "line 2 has 3 values, and the header names 2 columns"),
        ('v,r\n1,"2\n2,3\n', "line 2 is not CSV: unexpected end of data"),
        ("v,r\n1," + "9" * 200_000 + "\n2,3\n", "line 2 is not CSV: field larger than field limit"),
        (
            "v,r\n1,-1e308\n2,1e308\n",
            "column 'r' holds -1e.308, which is not a number up to 1e.150, first in data row 1",
        ),
        ("v,r\n1,-inf\n2,1e308\n", "line 2: column 'r' holds '-inf'"),
        ("v,r\n1,1_000\n2,3\n", "column 'r' holds '1_000'"),
        ("v,r\n1,\u0663\n2,3\n", "column 'r' holds '\u0663'"),
        ("v,r\n1,\uff11\n2,3\n", "column 'r' holds '\uff11'"),
        (b"v,r\n1,\xff\n2,3\n", "not UTF-8 text"),
        (b"v,r\n1,2\x00\n2,3\n", "not a finite number"),
        ("v,r\n1,nan\n2,3\n", "line 2: column 'r' holds 'nan', which is not a finite number"),
        ("v,r\n1,2\n1e999,3\n", "line 3: column 'v' holds '1e999', which is not a finite number"),
        ("v,r\n1,2\n1,3\n", "column 'v' holds fewer than two distinct values"),
        ("v,r\n1,2\n2,2\n", "column 'r' holds fewer than two distinct values"),
        ("v,r\n1,2\n2,2\n1,3\n2,3\n", "returns the same mean for every input"),
    ],
)
def test_files_that_hold_no_pairs_are_refused_in_one_line_that_names_them(tmp_path, text, message):
    with pytest.raises(ChannelError, match=message) as caught:
        measured(csv=str(written(tmp_path, text)), input="v", output="r")
    assert "mine" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_negative_read_has_no_logarithm_and_is_one_all_the_same(tmp_path):
    path = written(tmp_path, "v,r\n1,5\n2,-3\n3,4\n")
    with pytest.raises(ChannelError, match="line 3: column 'r' holds -3, which has no logarithm"):
        measured(csv=str(path), input="v", output="r", log=True)
    assert measured(csv=str(path), input="v", output="r").pairs == 3


def test_text_in_other_columns_is_passed_over(tmp_path):
    path = written(tmp_path, "note,v,r\nhot,1,2\n,2,3\n")
    assert measured(csv=str(path), input="v", output="r").pairs == 2


def test_a_group_that_is_not_there_is_named(tmp_path):
    path = written(tmp_path, PLAIN)
    with pytest.raises(ChannelError, match="has no column 'who'; its columns are v, r"):
        measured(csv=str(path), input="v", output="r", group="who")


@pytest.mark.parametrize("name", ["none.csv", ""])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    path = tmp_path / name
    calls: list[Any] = [
        lambda: read_columns(path, ("v",)),
        lambda: read_labels(path, "v"),
        lambda: measured(csv=str(path), input="v", output="r"),
    ]
    for call in calls:
        with pytest.raises(ChannelError, match=f"'{path}'") as caught:
            call()
        assert "\n" not in str(caught.value)
