"""Images that are not scaled as in training are questioned, and others are not."""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.coding.verified import Inputs
from onnx_analog.run._images import MOST, doubt_of_scale
from onnx_analog.run.data import Dataset

MEAN, STD = demo.facts()["mean"], demo.facts()["std"]


def images(name="x"):
    with np.load(demo.IMAGES) as file:
        return file[name]


def pale(contrast=0.1):
    """Return the images in pale grey, which a network that was trained on normalised images takes after a shift."""
    return (160 + contrast * images().astype(np.float32)).astype(np.uint8)


TOLD = "images are scaled to [0, 1] and not normalised"  # wherever nothing says how; see tests/test_remember.py


def warnings_of(caplog, *data, **options):
    """Return the warnings of an evaluation, but for the line that says how the images were scaled."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="onnx_analog"):
        oa.evaluate(demo.MODEL, *data, **options)
    return [text for text in caplog.messages if not text.startswith(TOLD)]


def test_images_that_were_not_normalised_are_questioned_and_the_remedy_works(caplog):
    (text,) = warnings_of(caplog, (pale(), images("y")))
    found = re.fullmatch(
        r"top1 without noise is (\S+) % on the first 256 samples, and would be (\S+) % if the images of '\w+' were "
        r"normalised: give mean and std as in training \(these images have mean (\S+) and std (\S+)\)",
        text,
    )
    assert float(found[1]) < 50 < 90 < float(found[2])
    assert warnings_of(caplog, (pale(), images("y")), mean=float(found[3]), std=float(found[4])) == []


def test_a_small_loss_is_told_in_one_line_and_not_questioned(caplog):
    """LeNet without mean and std: 0.982 in place of 0.987."""
    assert warnings_of(caplog, demo.IMAGES) == []
    assert [text.startswith(TOLD) for text in caplog.messages] == [True]
    assert warnings_of(caplog, demo.IMAGES, mean=MEAN, std=STD) == []


def test_images_as_floats_are_questioned_too(caplog):
    nchw = pale()[:, None].astype(np.float32) / 255
    (text,) = warnings_of(caplog, (nchw, images("y")))
    assert "were normalised: save them as uint8, and give mean and std as in training (these images" in text
    assert warnings_of(caplog, ((nchw - MEAN) / STD, images("y"))) != [text]  # they have values below 0


def test_a_function_that_prepares_images_is_trusted(caplog, tmp_path, monkeypatch):
    (tmp_path / "own_scale.py").write_text("def scaled(x):\n    return x[:, None].astype('float32') / 255\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert not any(
        "normalised" in text for text in warnings_of(caplog, (pale(), images("y")), preprocess="own_scale:scaled")
    )


def test_without_labels_nothing_is_tried(caplog):
    assert warnings_of(caplog, pale()) == []


# ------------------------------------------------------------------------------------------------- the decision


def data_of(array, *, raw=True, from_bytes=True):
    names = ("x",)
    return Dataset({"x": array}, np.zeros(len(array)), raw=names * raw, from_bytes=names * from_bytes)


def scored(accuracy):
    """Return a score that a function of the images gives."""
    return lambda data: accuracy(data.inputs["x"])


RAW = np.random.default_rng(0).random((MOST, 3, 4, 4), np.float32)


@pytest.mark.parametrize(("gain", "said"), [(0.04, False), (0.5, True)])
def test_only_a_large_gain_is_told(gain, said):
    score = scored(lambda x: 0.4 + gain * (x.min() < 0))
    assert (doubt_of_scale(data_of(RAW), 0.4, score) is not None) is said


def test_a_gain_within_chance_is_not_told():
    """Of 32 samples, accuracies of 0.5 and 0.7 are 1.7 standard errors apart."""
    score = scored(lambda x: 0.5 + 0.2 * (x.min() < 0))
    assert doubt_of_scale(data_of(RAW[:32]), 0.5, score) is None
    assert doubt_of_scale(data_of(RAW), 0.5, score) is not None


def test_nothing_is_tried_where_nothing_can_be_gained():
    def score(data):
        raise AssertionError("no model is run")

    assert doubt_of_scale(data_of(RAW), 0.96, score) is None
    assert doubt_of_scale(data_of(RAW, raw=False), 0.1, score) is None
    assert doubt_of_scale(data_of(RAW[:8]), 0.1, score) is None


@pytest.mark.parametrize(
    ("array", "from_bytes", "right", "advice"),
    [
        (RAW, True, lambda x: x.max() > 100, "left from 0 to 255: give mean=0 and std=0.00392157"),
        (RAW, False, lambda x: x.max() > 100, "scaled to 0 to 255: multiply them by 255"),
        (255 * RAW, False, lambda x: x.min() >= 0 and x.max() <= 1, "scaled to 0 to 1: divide them by 255"),
    ],
)
def test_another_scale_is_found(array, from_bytes, right, advice):
    doubt = doubt_of_scale(data_of(array, from_bytes=from_bytes), 0.1, scored(lambda x: 0.1 + 0.8 * right(x)))
    assert doubt.endswith(advice)


OWN = Inputs(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), scale=255.0)


def fed(made, *, layout=(0, 1, 2, 3)):
    """Return images of the deviations of `OWN` and their means as they are fed, normalised with other numbers."""
    drawn = np.random.default_rng(1).normal(size=(MOST, 4, 4, 3)) * OWN.std + OWN.mean
    images = ((drawn - made.mean) / made.std).astype(np.float32)
    return replace(data_of(images.transpose(layout), raw=False), made=made)


def standard(x):
    """Return an accuracy that is high of images that are normalised channel by channel."""
    axis = 1 if x.shape[1] == 3 else 3
    each = np.moveaxis(x, axis, 0).reshape(3, -1)
    return 0.9 if np.abs(each.mean(1)).max() < 0.1 and np.abs(each.std(1) - 1).max() < 0.1 else 0.4


@pytest.mark.parametrize("layout", [(0, 1, 2, 3), (0, 3, 1, 2)])
@pytest.mark.parametrize("given", [{"std": (1.0,)}, {"mean": (-1.0,)}, {"mean": (0.1, 0.1, -0.9), "std": (2.0,)}])
def test_images_that_were_normalised_with_other_numbers_are_questioned(given, layout):
    """What is told of the images is theirs before that, on the scale of 0 to 1."""
    doubt = doubt_of_scale(fed(OWN._replace(**given), layout=layout), 0.4, scored(standard))
    mean, std = (
        [float(n) for n in found.split(",")] for found in re.search(r"mean (\S+) and std ([^)]+)", doubt).groups()
    )
    np.testing.assert_allclose(mean, OWN.mean, atol=0.02)
    np.testing.assert_allclose(std, OWN.std, atol=0.02)


def test_images_that_are_only_to_be_divided_are_found():
    doubt = doubt_of_scale(fed(OWN._replace(mean=(9.0,))), 0.4, scored(lambda x: 0.9 if 0 < x.mean() < 0.7 else 0.4))
    assert doubt.endswith("were only divided by 255: give mean=0 and std=1")


def test_numbers_that_fit_the_images_are_trusted():
    def score(data):
        raise AssertionError("no model is run")

    near = OWN._replace(mean=(0.45, 0.42, 0.38), std=(0.22,))
    assert doubt_of_scale(fed(OWN), 0.4, score) is None
    assert doubt_of_scale(fed(near), 0.4, score) is None
    flat = fed(OWN._replace(std=(1.0,)))
    images = flat.inputs["x"].reshape(MOST, -1)
    assert doubt_of_scale(replace(flat, inputs={"x": images}), 0.4, score) is None  # channels cannot be told


def test_half_of_the_numbers_are_told_and_tried(caplog):
    """The contrast of the images is low, so mean alone leaves them far from normalised ones."""
    data = (pale(), images("y"))
    half, doubt = warnings_of(caplog, data, mean=0.65)
    assert half == (
        "std is neither given nor remembered, and mean is given, so images are normalised with std 1: give std as in "
        "training, or give std 1 if that is right"
    )
    found = re.search(r"would be (\S+) % .* have mean (\S+) and std (\S+)\)", doubt)
    assert float(found[1]) > 90
    assert warnings_of(caplog, data, mean=float(found[2]), std=float(found[3])) == []
    assert not any("neither given" in text for text in warnings_of(caplog, data, mean=0.65, std=1))


def test_what_is_said_of_the_images_is_theirs_channel_by_channel():
    array = RAW * np.array([0.2, 0.5, 1.0], np.float32)[:, None, None]
    doubt = doubt_of_scale(data_of(array), 0.1, scored(lambda x: 0.9 if x.min() < 0 else 0.1))
    mean, std = (
        [float(n) for n in found.split(",")] for found in re.search(r"mean (\S+) and std ([^)]+)", doubt).groups()
    )
    np.testing.assert_allclose(mean, array.mean((0, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(std, array.std((0, 2, 3)), atol=1e-4)


def test_images_that_exceed_1_a_little_are_those_from_0_to_1():
    """As resizing leaves them. Their mean is told as it is, and the way to 0 to 255 is among those that are tried."""
    images = np.clip(np.random.default_rng(0).normal(0.5, 0.3, (200, 3, 8, 8)), 0, 1.02).astype(np.float32)
    data, tried = Dataset({"x": images}, np.zeros(200, np.int64), raw=("x",)), []

    def score(given):
        tried.append(float(given.inputs["x"].max()))
        return 1.0 if given.inputs["x"].min() < 0 else 0.1  # normalised

    doubt = doubt_of_scale(data, 0.1, score)
    assert f"have mean {','.join(f'{value:.4g}' for value in images.mean((0, 2, 3)))}" in doubt
    assert any(most > 200 for most in tried)
