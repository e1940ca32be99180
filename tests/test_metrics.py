import importlib
import linecache
import sys

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog.errors import DataError
from onnx_analog.metrics import agreement, default, source_digest, sqnr_db, top1
from tests.models import f32

SCORES = f32([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
LABELS = np.array([1, 1, 1, 0])

TIED = hnp.arrays(np.int8, st.tuples(st.integers(1, 9), st.integers(2, 4)), elements=st.integers(0, 2))
SIGNALS = hnp.arrays(np.float64, 6, elements=st.integers(-99, 99)).filter(np.any)  # all sums of them are exact

DB_ROUNDING = 4 * 2.0**-45  # dB: below 256 dB, two logarithms that are each off by a unit, and by one for rounding


# ------------------------------------------------------------------------------------------------------ top-1


def test_top1_is_the_share_of_samples_whose_label_wins():
    assert top1([SCORES], labels=LABELS, clean=[]) == 3 / 4


@given(TIED, st.integers(0, 2**32 - 1))
def test_top1_is_what_a_loop_counts(scores, seed):
    labels = np.random.default_rng(seed).integers(scores.shape[1], size=len(scores))
    wins = sum(row.tolist().index(max(row)) == label for row, label in zip(scores, labels, strict=True))
    assert top1([scores], labels=labels, clean=[]) == wins / len(scores)


@pytest.mark.parametrize(("label", "value"), [(0, 1.0), (1, 0.0)])
def test_of_equal_scores_the_first_wins(label, value):
    assert top1([f32([[0.5, 0.5]])], labels=np.array([label]), clean=[]) == value


def test_top1_looks_at_the_first_output_only():
    assert top1([SCORES, SCORES[:, ::-1]], labels=LABELS, clean=[SCORES]) == 3 / 4


def test_top1_takes_scores_with_sides_of_length_one():
    assert top1([SCORES[:, :, None, None]], labels=LABELS, clean=[]) == 3 / 4


@pytest.mark.parametrize(
    "labels",
    [None, LABELS[:3], LABELS[:, None], np.eye(4)[LABELS], np.array(["1", "1", "1", "0"])],
    ids=["none", "too few", "a column", "one-hot", "text"],
)
def test_top1_wants_one_label_a_sample(labels):
    with pytest.raises(DataError, match="label"):
        top1([SCORES], labels=labels, clean=[])


@pytest.mark.parametrize("scores", [SCORES[:, 0], SCORES[:, :1], np.zeros((4, 3, 2))], ids=["flat", "one", "map"])
def test_top1_wants_a_row_of_scores_a_sample(scores):
    with pytest.raises(DataError, match="--metric"):
        top1([scores], labels=LABELS, clean=[])


# ----------------------------------------------------------------------------------------------------- others


@given(TIED, st.integers(0, 2**32 - 1))
def test_agreement_is_top1_against_the_clean_outputs(clean, seed):
    outputs = np.random.default_rng(seed).integers(3, size=clean.shape)
    expected = top1([outputs], labels=clean.argmax(axis=1), clean=[])
    assert agreement([outputs], labels=None, clean=[clean]) == expected
    assert agreement([clean], labels=None, clean=[clean]) == 1


def test_agreement_counts_every_place_of_a_map():
    clean = f32([[[1, 0], [0, 1], [1, 0]]])
    outputs = f32([[[1, 0], [1, 0], [0, 1]]])
    assert agreement([outputs], labels=None, clean=[clean]) == 1 / 3


def test_sqnr_by_hand():
    clean, outputs = [f32([3, 4]), f32([[12]])], [f32([3, 3]), f32([[12]])]
    assert sqnr_db(outputs, clean=clean) == pytest.approx(10 * np.log10(13**2), abs=DB_ROUNDING)


@given(SIGNALS, SIGNALS, st.integers(0, 20))
def test_each_halving_of_the_noise_gives_6_db(clean, noise, halvings):
    before, after = (sqnr_db([clean + noise * part], clean=[clean]) for part in (1, 2.0**-halvings))
    assert before == pytest.approx(10 * np.log10(np.sum(clean**2) / np.sum(noise**2)), abs=DB_ROUNDING)
    assert after - before == pytest.approx(halvings * 20 * np.log10(2), abs=DB_ROUNDING)


@pytest.mark.parametrize(("outputs", "clean", "value"), [([1], [1], np.inf), ([1], [0], -np.inf), ([0], [0], np.nan)])
def test_sqnr_without_noise_or_signal_is_no_number(outputs, clean, value):
    assert sqnr_db([f32(outputs)], clean=[f32(clean)]) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    ("dtype", "outputs", "clean", "ratio"),
    [
        (np.uint8, [1], [2], 4),  # 1 - 2 is 255 in uint8
        (np.bool_, [True, False], [True, True], 2),  # booleans have no difference
        (np.float16, [60_000], [-60_000], 1 / 4),  # float16 cannot hold their difference
    ],
)
def test_sqnr_of_other_types_is_that_of_their_numbers(dtype, outputs, clean, ratio):
    found = sqnr_db([np.array(outputs, dtype)], clean=[np.array(clean, dtype)])
    assert found == pytest.approx(10 * np.log10(ratio), abs=DB_ROUNDING)


@pytest.mark.parametrize(
    ("shape", "labels", "name"),
    [
        ((4, 2), LABELS, "top1"),
        ((4, 2), None, "agreement"),
        ((4, 3, 2), None, "agreement"),
        ((4, 1), None, "sqnr_db"),
        ((4,), None, "sqnr_db"),
    ],
)
def test_the_metric_fits_the_data(shape, labels, name):
    assert default([np.zeros(shape)], labels)[0] == name
    assert default([np.zeros(shape)], labels)[1].__name__ == name


def test_nan_is_never_right_and_never_the_same():
    scores = [np.array([[np.nan, 0.0], [1.0, 0.0]])]
    assert top1(scores, labels=np.array([0, 0]), clean=[]) == 0.5
    assert agreement(scores, labels=None, clean=scores) == 0.5


@pytest.mark.parametrize("labels", [[0, 2], [-1, 1]])
def test_labels_beyond_the_classes_are_refused(labels):
    with pytest.raises(DataError, match="the model has 2 classes"):
        top1([np.eye(2)], labels=np.array(labels), clean=[])


def test_classes_of_images_are_on_the_second_axis():
    rng = np.random.default_rng(0)
    clean, other = rng.normal(size=(2, 5, 4, 3)), rng.normal(size=(2, 5, 4, 3))
    expected = (clean.argmax(axis=1) == other.argmax(axis=1)).mean()
    assert agreement([other], labels=None, clean=[clean]) == expected


# ---------------------------------------------------------------------------------------------------- identity


def source(text: str, tmp_path, monkeypatch) -> str | None:
    """Return the digest of the metric of a module of that text."""
    (tmp_path / "own_source.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    linecache.clearcache()
    sys.modules.pop("own_source", None)
    importlib.invalidate_caches()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return source_digest(importlib.import_module("own_source").metric)


def test_what_changes_its_shape_with_noise_is_not_compared():
    found, clean = [f32(np.ones((3, 7)))], [f32(np.ones((5, 7)))]
    with pytest.raises(DataError, match=r"from \(5, 7\) to \(3, 7\).*--metric"):
        agreement(found, labels=None, clean=clean)
    assert np.isnan(sqnr_db(found, clean=clean))


def test_metrics_of_one_name_are_told_apart_by_their_source(tmp_path, monkeypatch):
    one, other = (f"def metric(outputs, *, labels, clean):\n    return {value}\n" for value in (0.25, 0.5))
    digests = [source(text, tmp_path, monkeypatch) for text in (one, other, one, "# a remark\n" + one)]
    assert None not in digests
    assert digests[0] == digests[2] == digests[3] != digests[1]


class Callable:
    def __call__(self, outputs, *, labels, clean):
        return 0.0


def test_an_object_that_is_called_is_told_by_its_class():
    assert source_digest(Callable()) == source_digest(Callable()) is not None


def test_no_text_no_digest():
    assert source_digest(eval("lambda outputs, *, labels, clean: 0.0")) is None
    assert source_digest(max) is None
    assert [source_digest(metric) for metric in (top1, agreement, sqnr_db)] == [None] * 3
