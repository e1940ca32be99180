"""Paths as options take them."""

import click
import pytest

from onnx_analog.cli import paths

TYPES = {
    "FILE": paths.FILE,
    "FILE_NAME": paths.FILE_NAME,
    "FILE_OR_FUNCTION": paths.FILE_OR_FUNCTION,
    "OUT": paths.OUT,
    "OUT_OR_FOLDER": paths.OUT_OR_FOLDER,
    "FileOr": paths.FileOr("gain"),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(
    ("value", "said"),
    [("", "the path is empty"), ("a\0b.npz", "a path cannot hold a zero byte"), ("m:f\0", "cannot hold a zero byte")],
)
def test_what_is_no_path_is_refused_in_one_line(name, value, said):
    with pytest.raises(click.BadParameter, match=said):
        TYPES[name].convert(value, None, None)


@pytest.mark.parametrize("name", TYPES)
def test_a_path_is_taken(name, tmp_path):
    path = tmp_path / "a b.npz"
    path.touch()
    assert str(TYPES[name].convert(str(path), None, None)) == str(path)


def test_a_word_or_function_in_place_of_a_file_is_taken():
    assert TYPES["FileOr"].convert("gain", None, None) == "gain"
    assert TYPES["FILE_OR_FUNCTION"].convert("module:function", None, None) == "module:function"
