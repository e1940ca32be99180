import json
import os
import re
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog.errors import DataError, OptionError
from onnx_analog.run import data
from onnx_analog.run.data import Dataset, Input, Preprocessing, from_arrays, load, named_function, read
from tests.models import U, f32

IMAGES = Input("image", np.dtype(np.float32), ("n", 3, 4, 5))  # NCHW
PIXELS = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


def saved(tmp_path: Path, **arrays: Any) -> Path:
    np.savez(tmp_path / "data.npz", **arrays)
    return tmp_path / "data.npz"


# ----------------------------------------------------------------------------------------------- what fits


@pytest.mark.parametrize(
    ("wanted", "shape", "fits"),
    [
        (("n", 3), (7, 3), True),
        ((4, 3), (7, 3), True),  # the number of samples does not matter
        (("n", 3), (7, 4), False),
        (("n", 3), (7, 3, 1), False),
        (("n", 3, 1), (7, 3), False),
        (("n", None, "width"), (7, 8, 9), True),
        ((), (), True),
        ((), (1,), False),
    ],
)
def test_only_fixed_sides_must_agree(wanted, shape, fits):
    assert Input("x", np.dtype(np.float32), wanted).fits(shape) is fits


@pytest.mark.parametrize(
    ("wanted", "shape", "fits"),
    [
        (("n", 3), (7, 1, 3), True),
        ((2, 1, 3), (7, 2, 1, 3), True),
        ((2, 1, 3), (7, 1, 2, 3), False),
        ((), (7,), True),
        ((), (7, 1), False),
        (("n", 3), (7, 3), False),
    ],
)
def test_samples_that_are_fed_one_by_one_have_one_axis_more(wanted, shape, fits):
    assert Input("x", np.dtype(np.float32), wanted).fits_one(shape) is fits


# -------------------------------------------------------------------------------------------- preprocessing


def test_a_pixel_is_divided_by_255_less_the_mean_over_the_standard_deviation():
    pixels = np.array([[[[0, 51, 255]]]], np.uint8)
    found = Preprocessing(mean=(0.5, 0.1, 0.75), std=(0.25, 0.1, 0.125)).apply(
        pixels, Input("x", np.dtype(np.float32), (1, 3, 1, 1))
    )
    assert found.dtype == np.float32
    rounding = 4 * U / np.array([0.25, 0.1, 0.125])  # of quotient, mean, difference and σ; numbers up to 1, over σ
    assert (np.abs(found.ravel() - [-2, 1, 2]) <= rounding).all()


def test_one_mean_serves_all_channels():
    one, three = (Preprocessing(mean=(0.4,) * n, std=(0.3,) * n).apply(PIXELS, IMAGES) for n in (1, 3))
    np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize(
    ("shape", "moved"),
    [
        ((None, 3, 4, 5), PIXELS.transpose(0, 3, 1, 2)),
        ((None, 4, 5, 3), PIXELS),
        ((None, 60), PIXELS.transpose(0, 3, 1, 2).reshape(2, 60)),
        ((None, None, None, None), PIXELS.transpose(0, 3, 1, 2)),  # the model leaves it open
    ],
    ids=["NCHW", "NHWC", "flat", "open"],
)
def test_images_take_the_layout_of_the_input(shape, moved):
    found = Preprocessing().apply(PIXELS, Input("x", np.dtype(np.float32), shape))
    np.testing.assert_array_equal(found, moved.astype(np.float32) / np.float32(255))
    assert found.flags.c_contiguous


def test_an_image_without_an_axis_for_samples_takes_the_layout_of_the_input_too():
    sides = PIXELS.shape[1:3]
    found = Preprocessing().apply(PIXELS, Input("x", np.dtype(np.float32), (3, *sides)))
    np.testing.assert_array_equal(
        found, Preprocessing().apply(PIXELS, Input("x", np.dtype(np.float32), ("n", 3, *sides)))
    )


def test_grey_images_gain_a_channel():
    found = Preprocessing(mean=(0.5,)).apply(PIXELS[..., 0], Input("x", np.dtype(np.float32), ("n", 1, 4, 5)))
    np.testing.assert_array_equal(found[:, 0], PIXELS[..., 0] / np.float32(255) - np.float32(0.5))


def test_images_that_are_nchw_already_stay_so():
    nchw = np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(Preprocessing().apply(nchw, IMAGES), nchw / np.float32(255))


@pytest.mark.parametrize(("kind", "wanted"), [("f8", "f4"), ("i8", "f4"), ("f4", "f2"), ("i4", "i8"), ("u1", "u1")])
def test_other_arrays_are_only_cast(kind, wanted):
    array = np.array([[0, 1, 200]], kind)
    found = Preprocessing(mean=(9,), std=(9,)).apply(array, Input("x", np.dtype(wanted), ("n", 3)))
    assert found.dtype == wanted
    assert found.tolist() == [[0, 1, 200]]


@pytest.mark.parametrize("two", [Preprocessing(mean=(0.5, 0.5)), Preprocessing(std=(0.5, 0.5))], ids=["mean", "std"])
def test_two_numbers_do_not_fit_three_channels(two):
    with pytest.raises(OptionError, match=r"(mean|std) has 2 values, and the images have 3 channels"):
        two.apply(PIXELS, IMAGES)


@pytest.mark.parametrize(
    "options",
    [{"std": (0.0,)}, {"std": (1.0, -1.0, 1.0)}, *({k: (n,)} for k in ("mean", "std") for n in (np.nan, np.inf))],
    ids=str,
)
def test_mean_and_standard_deviation_are_finite_and_the_latter_is_above_0(options):
    Preprocessing(std=(float(np.finfo(np.float32).tiny),))
    with pytest.raises(OptionError, match=next(iter(options))):
        Preprocessing(**options)


def test_a_function_replaces_all_this(tmp_path, monkeypatch):
    (tmp_path / "shaping.py").write_text("def doubled(images):\n    return images[:, :3].astype('i8').tolist() * 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    pixels = np.arange(8, dtype=np.uint8).reshape(2, 4)
    found = Preprocessing(mean=(9,), function="shaping:doubled").apply(
        pixels, Input("x", np.dtype(np.float32), ("n", 3))
    )
    np.testing.assert_array_equal(found, f32([[0, 1, 2], [4, 5, 6]] * 2))


@pytest.mark.parametrize(
    ("array", "shape"),
    [(PIXELS, ("n", 3, 9, 9)), (np.zeros((2, 3)), ("n", 4)), (np.zeros((2, 4, 1)), ("n", 4)), (PIXELS[0, 0], ("n", 4))],
    ids=["sides", "columns", "rank", "table of bytes"],
)
def test_what_does_not_fit_is_refused_with_both_shapes(array, shape):
    with pytest.raises(DataError, match=r"'x' takes shape \(n, .*\), and the data give \(\d.*preprocess="):
        Preprocessing().apply(array, Input("x", np.dtype(np.float32), shape))


@pytest.mark.parametrize(
    "array", [np.array([["a"]]), np.array([[1 + 1j]]), np.array([["2024"]], "M8[Y]")], ids=["text", "complex", "date"]
)
def test_what_is_no_number_is_refused(array):
    with pytest.raises(DataError, match="'x'"):
        Preprocessing().apply(array, Input("x", np.dtype(np.float32), ("n", 1)))


@pytest.mark.parametrize(
    ("array", "kind", "lost"),
    [
        (np.array([[1e300]]), np.float32, "1e+300"),
        (np.array([[7e4]], np.float32), np.float16, "70000.0"),
        (np.array([[0.0, 1.5]]), np.int64, "1.5"),
        (np.array([[300]]), np.uint8, "300"),
        (np.array([[-1]]), np.uint64, "-1"),
        (np.array([[2**63 + 1]], np.uint64), np.int64, "9223372036854775809"),
        (np.array([[np.nan]]), np.int32, "nan"),
        (np.array([[0, 2]]), np.bool_, "2"),
    ],
)
def test_numbers_that_the_input_s_type_cannot_hold_are_refused(array, kind, lost):
    wanted = Input("x", np.dtype(kind), (None, None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=f"hold {re.escape(lost)}, which the model's type {np.dtype(kind)} cannot"):
            Preprocessing().apply(array, wanted)


def test_numbers_that_are_rounded_or_infinite_are_cast():
    wanted = Input("x", np.dtype(np.float32), (None, None))
    cast = Preprocessing().apply(np.array([[0.1, np.inf, np.nan]]), wanted)
    np.testing.assert_array_equal(cast, np.array([[0.1, np.inf, np.nan]], np.float32))


@pytest.mark.parametrize(
    "spec", ["", "json", "json:", ":loads", "json:nothing", "nothing:loads", "json:decoder", "..:x", "json:__doc__"]
)
def test_what_names_no_function_is_refused(spec):
    assert named_function("json:loads") is json.loads
    with pytest.raises(
        OptionError, match=f"^'{spec}' (is not of the form module:function|cannot be imported|is not a function)"
    ):
        named_function(spec)


# ------------------------------------------------------------------------------------------------- npz files


def test_one_input_may_be_called_x(tmp_path):
    found = load(saved(tmp_path, x=PIXELS, y=[1, 2], z=[0]), [IMAGES])
    assert {name: array.shape for name, array in found.inputs.items()} == {"image": (2, 3, 4, 5)}
    assert found.labels is not None
    assert found.labels.tolist() == [1, 2]


def test_an_input_is_found_under_its_own_name_first(tmp_path):
    wanted = Input("image", np.dtype(np.float32), ("n", 1))
    found = load(saved(tmp_path, x=[[1]], image=[[2]]), [wanted])
    assert found.inputs["image"].tolist() == [[2]]
    assert found.labels is None


def test_several_inputs_are_found_by_their_names(tmp_path):
    wanted = [Input(name, np.dtype(np.float32), ("n", 1)) for name in ("x", "z")]
    found = load(saved(tmp_path, z=[[1], [2]], x=[[3], [4]]), wanted)
    assert {name: array.tolist() for name, array in found.inputs.items()} == {"x": [[3], [4]], "z": [[1], [2]]}


def test_an_input_called_y_is_no_label(tmp_path):
    found = load(saved(tmp_path, y=[[1.0]]), [Input("y", np.dtype(np.float32), ("n", 1))])
    assert found.labels is None
    assert found.inputs["y"].tolist() == [[1]]


FLAT = [Input("v", np.dtype(np.float32), ("n", 1))]
TWO = [*FLAT, Input("w", np.dtype(np.float32), ("n", 1))]


@pytest.mark.parametrize(
    ("arrays", "inputs", "message"),
    [
        ({}, FLAT, "holds nothing, and the model takes 'v': name the array 'v', or x"),
        ({"a": [[1]], "y": [1]}, FLAT, "holds a, y, and the model takes 'v'"),
        ({"x": [[1]], "v": [[1]]}, TWO, "holds x, v, and the model takes 'w': name the array 'w'$"),
        ({"v": [[1]], "w": [[1], [2]]}, TWO, r"number of samples.*'v': 1, 'w': 2"),
        ({"v": [[1]], "y": [1, 2]}, FLAT, r"number of samples.*'v': 1, 'y': 2"),
        ({"v": np.zeros((0, 1))}, FLAT, "have none"),
        ({"v": [[1]], "y": 1}, FLAT, "'y' is a single number"),
        ({"v": np.array([[None]], object)}, FLAT, "npz file of plain arrays"),
    ],
    ids=["empty", "other names", "x of two", "lengths", "labels", "none", "scalar", "objects"],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, inputs, message):
    with pytest.raises(DataError, match=message):
        load(saved(tmp_path, **arrays), inputs)


ALONE = [Input("state", np.dtype(np.float32), (2, 1, 3)), Input("rate", np.dtype(np.int64), ())]


def test_where_no_input_has_an_axis_for_samples_they_are_fed_one_by_one(tmp_path):
    state, rate = f32(np.arange(24).reshape(4, 2, 1, 3)), np.array([8000, 16000, 8000, 44100])
    found = load(saved(tmp_path, state=state, rate=rate, y=np.arange(4)), ALONE)
    assert (len(found), found.one_by_one) == (4, True)
    batches = [*found.head(3).batches(64, fixed=True)]
    assert [count for _, count in batches] == [1, 1, 1]
    for (inputs, _), one, other in zip(batches, state, rate, strict=False):
        np.testing.assert_array_equal(inputs["state"], one)
        assert (inputs["rate"].shape, int(inputs["rate"])) == ((), other)


def test_all_inputs_are_fed_one_by_one_or_none(tmp_path):
    arrays = {"v": np.zeros((4, 1)), "rate": np.zeros(4, np.int64)}
    with pytest.raises(DataError, match=r"'rate' takes no axis for samples.*give 'v' one more.*\(4, 1, 1\)"):
        load(saved(tmp_path, **arrays), [*FLAT, ALONE[1]])
    arrays["v"] = np.zeros((4, 1, 1))
    assert load(saved(tmp_path, **arrays), [*FLAT, ALONE[1]]).one_by_one


def one_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros((1, 1)))


def half(path):
    np.savez(path, v=np.zeros((99, 1)))
    path.write_bytes(path.read_bytes()[:300])


def damaged(path):
    np.savez(path, v=np.zeros((99, 1)))
    body = bytearray(path.read_bytes())
    body[400] ^= 1  # the archive keeps a checksum of it
    path.write_bytes(body)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.write_bytes(b""), "not an npz"),
        (lambda path: path.write_text("hello"), "not an npz"),
        (lambda path: path.mkdir(), "is a folder; a file is needed"),
        (os.mkfifo, "not a regular file"),
        (half, "is a damaged npz file, of which a part is missing: copy or write it again"),
        (damaged, "not an npz"),
        (one_array, r"single array \(npy\), and an npz file of arrays is needed: numpy.savez\(path, x=..., y=...\)"),
    ],
    ids=["missing", "empty", "text", "folder", "pipe", "half", "damaged", "npy"],
)
def test_a_file_that_is_no_npz_is_refused(tmp_path, write, message):
    write(tmp_path / "data.npz")
    with pytest.raises(DataError, match=message):
        load(tmp_path / "data.npz", FLAT)


# ---------------------------------------------------------------------------------------- what npz files may cost


def raw_npy(shape: tuple[int, ...], body: bytes = b"", descr: str = "<f4", order: str = "False") -> bytes:
    """Return an npy file that says of itself what you like."""
    header = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


def archive(path: Path, members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, body in members.items():
            file.writestr(name, body)
    return path


def peak(action: Callable[[], object]) -> int:
    """Return how many bytes were held at once."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_peak_sees_what_is_held():
    assert peak(lambda: bytearray(10**7)) >= 10**7


def test_arrays_that_are_not_needed_are_not_unpacked(tmp_path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=f32([[1], [2]]), rest=np.zeros(10**8, np.uint8))
    assert peak(lambda: load(path, FLAT)) < 10**7


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_only_the_first_samples_are_unpacked(tmp_path, save):
    x = np.arange(3 * 10**6, dtype=np.float32).reshape(-1, 10)
    save(tmp_path / "data.npz", v=x, y=np.arange(3 * 10**5))
    wanted = [Input("v", np.dtype(np.float32), ("n", 10))]
    found = load(tmp_path / "data.npz", wanted, samples=3)
    np.testing.assert_array_equal(found.inputs["v"], x[:3])
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2]
    assert peak(lambda: load(tmp_path / "data.npz", wanted, samples=3)) < 6 * 10**6
    np.testing.assert_array_equal(load(tmp_path / "data.npz", wanted, samples=10**9).inputs["v"], x)


def test_the_first_samples_of_arrays_in_fortran_s_order_are_right(tmp_path):
    x = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3))
    wanted = [Input("v", np.dtype(np.float32), ("n", 3))]
    found = load(saved(tmp_path, v=x), wanted, samples=2)
    np.testing.assert_array_equal(found.inputs["v"], x[:2])


def test_what_takes_too_much_unpacked_is_refused_before_it_is(tmp_path, monkeypatch):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, v=np.zeros((10**7, 1), np.float32))
    monkeypatch.setattr(data, "LARGEST", 10**6)
    with pytest.raises(DataError, match=r"take 40,000,000 bytes when unpacked, more than 1,000,000: take fewer"):
        load(path, FLAT)
    assert len(load(path, FLAT, samples=100)) == 100
    np.savez(path, v=np.zeros((10**6, 1), np.float32))  # as large as it says
    assert len(load(path, FLAT)) == 10**6


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "body",
    [
        raw_npy((10**9, 10**9)),
        raw_npy((2**62, 2**62, 4)),
        raw_npy((4, 1), b"\0" * 15),
        raw_npy((-1, 4), b"\0" * 16),
        raw_npy((10**9, 0)),
        raw_npy((10**12, 1), descr="<U0"),
        raw_npy((2, 1), b"\0" * 16, descr="|O"),
        raw_npy((2, 1), b"\0" * 16, descr="no such type"),
        b"\x93NUMPY\x09\x00" + b"\0" * 99,
        b"",
        b"text",
    ],
    ids=["huge", "overflow", "short", "negative", "empty", "no width", "objects", "type", "version", "nothing", "text"],
)
def test_an_array_that_is_not_what_it_says_is_refused_at_once(tmp_path, body, kind):
    path = archive(tmp_path / "data.npz", {"v.npy": body}, kind)

    def refused() -> None:
        with pytest.raises(DataError, match=r"not an npz file of plain arrays: 'v' is damaged, or holds Python obj"):
            load(path, FLAT)

    assert peak(refused) < 10**7


def test_samples_may_hold_no_values(tmp_path):
    np.savez(tmp_path / "data.npz", axes=np.zeros((2, 0), np.int64))
    found = load(tmp_path / "data.npz", (Input("axes", np.dtype(np.int64), ("n", 0)),))
    assert found.inputs["axes"].shape == (2, 0)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_compress_are_refused(tmp_path, kind):
    with pytest.raises(DataError, match="'v' is damaged"):
        load(archive(tmp_path / "data.npz", {"v.npy": raw_npy((1, 1), b"\0" * 4)}, kind), FLAT)


def test_needed_arrays_are_read_and_no_others(tmp_path):
    path = saved(tmp_path, a=[1], b=[2], c=np.array([None], object))
    assert {name: array.tolist() for name, array in read(path, "b", "a").items()} == {"a": [1], "b": [2]}
    with pytest.raises(DataError, match="has no array 'd'; it has a, b, c"):
        read(path, "d")
    with pytest.raises(DataError, match="'c' is damaged, or holds Python objects"):
        read(path)


# ------------------------------------------------------------------------------------------------------- arrays


def test_arrays_are_taken_as_those_of_a_file(tmp_path):
    arrays = {"x": PIXELS, "y": [1, 2]}
    found, expected = from_arrays(arrays, [IMAGES]), load(saved(tmp_path, **arrays), [IMAGES])
    np.testing.assert_array_equal(found.inputs["image"], expected.inputs["image"])
    assert found.labels is not None
    assert found.labels.tolist() == [1, 2]
    said = "'image' from uint8 images, divided by 255, not normalised (no mean and std)"
    assert found.preprocessing == expected.preprocessing == said
    assert len(from_arrays(arrays, [IMAGES], samples=1)) == 1
    with pytest.raises(DataError, match="the data holds z, and the model takes 'image'"):
        from_arrays({"z": PIXELS}, [IMAGES])
    with pytest.raises(DataError, match="'y' is a single number"):
        from_arrays({"x": PIXELS, "y": 1}, [IMAGES])


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        ({"x": np.zeros((0, 2))}, None, "have none"),
        ({"x": np.zeros((2, 2)), "z": np.zeros((3, 2))}, None, "number of samples, or have none: x 2, z 3"),
        ({"x": np.zeros((2, 2))}, np.zeros(3), "differ in their number of samples"),
        ({"x": np.array(1, np.float32)}, None, "'x' of the data is a single number"),
        ({"x": np.float32(1)}, None, "'x' of the data is of type float32; it must be an array"),
        ({}, None, "it must be a mapping of names to arrays"),
    ],
)
def test_a_data_set_has_samples_and_each_a_label(inputs, labels, message):
    with pytest.raises(DataError, match=message):
        Dataset(inputs, labels)


# --------------------------------------------------------------------------------------------------- batches


@given(st.integers(1, 30), st.integers(1, 12), st.booleans())
def test_batches_together_are_the_data(count, size, fixed):
    x = np.arange(3 * count).reshape(count, 3)
    batches = list(Dataset({"x": x, "z": -x}, None).batches(size, fixed=fixed))
    assert [samples for _, samples in batches] == [size] * (count // size) + [count % size] * (count % size > 0)
    assert {len(inputs["x"]) for inputs, samples in batches} <= ({size} if fixed else {size, count % size})
    np.testing.assert_array_equal(np.concatenate([inputs["x"][:samples] for inputs, samples in batches]), x)
    assert all((inputs["x"] == -inputs["z"]).all() for inputs, _ in batches)


def test_a_last_batch_is_filled_by_repetition():
    (batch, count), *others = Dataset({"x": f32([[1, 2], [3, 4]])}, None).batches(5, fixed=True)
    assert (count, others) == (2, [])
    assert batch["x"].tolist() == [[1, 2], [3, 4], [1, 2], [3, 4], [1, 2]]


@pytest.mark.parametrize(("count", "left"), [(1, 1), (3, 3), (99, 3)])
def test_head_is_the_first_samples(count, left):
    found = Dataset({"x": np.arange(3)}, np.arange(3)).head(count)
    assert len(found) == left
    assert found.labels is not None
    assert found.inputs["x"].tolist() == found.labels.tolist() == list(range(left))


@pytest.mark.any_message  # it names the class of what the function raised
def test_a_function_that_fails_is_told(tmp_path, monkeypatch):
    (tmp_path / "own_halves.py").write_text("def halves(array):\n    return array / {}[0]\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    wanted = [Input("x", np.dtype(np.float32), ("n", 2))]
    with pytest.raises(DataError, match='preprocess="own_halves:halves" failed with KeyError: 0'):
        from_arrays({"x": np.ones((3, 2))}, wanted, Preprocessing(function="own_halves:halves"))


@pytest.mark.parametrize("field", [{"mean": ()}, {"std": ("a",)}, {"mean": (None,)}])
def test_mean_and_std_are_numbers(field):
    with pytest.raises(OptionError, match="it must be one number, or one for each channel"):
        Preprocessing(**field)
