import importlib
import linecache
import math
import sys
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import onnx_analog as oa
from onnx_analog import named
from onnx_analog._inputs import directed, metric_of
from onnx_analog.errors import DataError, OptionError
from onnx_analog.run._outputs import labelled_axis
from onnx_analog.run.choice import choose
from onnx_analog.run.metrics import (
    METRICS,
    NAMES,
    Chosen,
    Field,
    agreement,
    code_digest,
    described,
    exact_match,
    mse,
    nan_share,
    output_sqnr_db,
    perplexity,
    r2,
    relative_error,
    sqnr_db,
    token_accuracy,
    top1,
    top5,
)
from tests.models import f32, model, run

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
    [None, LABELS[:3], np.eye(4)[LABELS], np.array(["1", "1", "1", "0"]), LABELS + 0.5, LABELS * np.nan],
    ids=["none", "too few", "one-hot of 4", "text", "fractions", "NaN"],
)
def test_top1_wants_one_label_a_sample(labels):
    with pytest.raises(DataError, match="label"):
        top1([SCORES], labels=labels, clean=[])


@pytest.mark.parametrize("scores", [SCORES[:, 0], SCORES[:, :1], np.zeros((4, 3, 2))], ids=["flat", "one", "map"])
def test_top1_wants_a_row_of_scores_a_sample(scores):
    with pytest.raises(DataError, match="another metric"):
        top1([scores], labels=LABELS, clean=[])


@pytest.mark.parametrize(
    "labels",
    [LABELS[:, None], LABELS.astype(np.uint8), LABELS.astype(bool), LABELS.astype(float), np.eye(2)[LABELS],
     np.eye(2, dtype=np.int64)[LABELS]],
    ids=["column", "bytes", "booleans", "whole floats", "one-hot floats", "one-hot"],
)  # fmt: skip
def test_labels_come_in_many_forms(labels):
    assert top1([SCORES], labels=labels, clean=[]) == 3 / 4


@given(st.integers(0, 2**32 - 1), st.permutations([1, 2, 3]))
def test_classes_are_found_wherever_they_are(seed, order):
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(2, 5, 3, 4)), rng.integers(5, size=(2, 3, 4))
    expected = np.mean(scores.argmax(axis=1) == labels)
    moved = np.moveaxis(scores, 1, order[0])  # segmentation in NCHW, NHCW or NHWC
    assert labelled_axis(moved.shape, labels) == order[0]
    assert top1([moved], labels=labels, clean=[]) == expected


def test_where_two_axes_fit_the_labels_one_is_asked_for():
    scores, labels = np.random.default_rng(0).normal(size=(6, 4, 4)), np.zeros((6, 4), int)
    with pytest.raises(DataError, match="1 or 2: give class_axis"):
        top1([scores], labels=labels, clean=[])
    for axis in (1, 2):
        assert top1([scores], labels=labels, clean=[], class_axis=axis) == np.mean(scores.argmax(axis=axis) == 0)


@pytest.mark.parametrize("axis", [0, 2])
def test_an_axis_that_the_labels_do_not_fit_is_refused(axis):
    with pytest.raises(DataError, match=r"labels of shape \(4, 2\) do not fit"):
        top1([np.zeros((4, 3, 2))], labels=np.zeros((4, 2), int), clean=[], class_axis=axis)


MAPS = [{"cat": 0.9, "dog": 0.1}, {"dog": 0.8, "cat": 0.2}, {"cat": 0.4, "dog": 0.6}]


def test_maps_of_class_to_score_are_scores():
    names = np.array(["cat", "dog", "cat"])
    assert top1([MAPS], labels=names, clean=[]) == 2 / 3
    assert top1([MAPS], labels=names.astype(object)[:, None], clean=[]) == 2 / 3
    assert agreement([MAPS], labels=None, clean=[MAPS[::-1]]) == 1 / 3
    with pytest.raises(DataError, match="'cow' is not a class of the model: it has 'cat', 'dog'"):
        top1([MAPS], labels=np.array(["cow"] * 3), clean=[])
    with pytest.raises(DataError, match="other keys from sample to sample"):
        top1([[*MAPS[:2], {"cat": 1.0}]], labels=names, clean=[])


def test_keys_of_maps_that_are_numbers_are_labels():
    maps = [{7: 0.1, 3: 0.9}, {7: 0.9, 3: 0.1}]
    assert top1([maps], labels=np.array([3, 3]), clean=[]) == 0.5


def test_top5_is_the_share_of_labels_among_the_five_largest():
    scores = np.tile(np.arange(7.0), (7, 1))
    assert top5([scores], labels=np.arange(7), clean=[]) == 5 / 7
    with pytest.raises(DataError, match="always right"):
        top5([scores[:, :5]], labels=np.zeros(7, int), clean=[])


@given(st.integers(0, 2**32 - 1))
def test_top5_counts_what_a_loop_counts(seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(4, size=(9, 8)), rng.integers(8, size=9)
    ranks = [
        sum((other, -j) > (row[label], -label) for j, other in enumerate(row))
        for row, label in zip(scores, labels, strict=True)
    ]
    assert top5([scores], labels=labels, clean=[]) == np.mean(np.array(ranks) < 5)


# ----------------------------------------------------------------------------------------------------- others


@given(TIED, st.integers(0, 2**32 - 1))
def test_agreement_is_the_share_of_places_with_the_same_winners(clean, seed):
    outputs = np.random.default_rng(seed).integers(3, size=clean.shape)

    def winners(row):
        return {place for place, score in enumerate(row) if score == max(row)}

    share = np.mean([winners(one) == winners(other) for one, other in zip(outputs, clean, strict=True)])
    found = agreement([outputs], labels=None, clean=[clean])
    assert found == share or (math.isnan(found) and share == 1 and sqnr_db([outputs], clean=[clean]) < 0)
    assert agreement([clean], labels=None, clean=[clean]) == 1


SCORE_PAIRS = st.tuples(st.integers(1, 6), st.integers(2, 4)).flatmap(
    lambda shape: st.tuples(
        *[hnp.arrays(np.float64, shape, elements=st.one_of(st.integers(-2, 2).map(float), st.just(math.nan)))] * 2
    )
)


@given(SCORE_PAIRS, st.sampled_from(["as drawn", "scaled", "moved", "one class wins", "constant", "zero", "NaN"]))
def test_nothing_agrees_entirely_where_noise_is_larger_than_the_scores(pair, how):
    """Not with ties, constants, NaN, one class that always wins, nor what keeps the order of the scores."""
    outputs, clean = pair
    if how in ("scaled", "moved"):
        clean = np.nan_to_num(clean)
        outputs = 9 * clean if how == "scaled" else clean + 99
    elif how == "one class wins":
        clean = np.nan_to_num(clean)
        clean[:, 0] = 3
        outputs = clean + 9.0 * (np.arange(clean.shape[1]) == 0)
    elif how != "as drawn":
        clean = np.full(clean.shape, {"constant": 1.0, "zero": 0.0, "NaN": math.nan}[how])
    value, ratio = agreement([outputs], labels=None, clean=[clean]), sqnr_db([outputs], clean=[clean])
    assert not (value == 1 and ratio < 0)
    assert not (exact_match([outputs], labels=None, clean=[clean]) == 1 and ratio < 0)
    if how in ("scaled", "moved") and clean.any():
        assert math.isnan(value)


@pytest.mark.parametrize("shape", [(5, 1, 4, 4), (5, 1), (5,)])
def test_one_score_is_no_choice(shape):
    clean = [np.random.default_rng(0).normal(size=shape)]
    with pytest.raises((DataError, IndexError)):
        agreement(clean, labels=None, clean=clean, class_axis=1)
    with pytest.raises(DataError, match="class_axis"):
        agreement(clean, labels=None, clean=clean)


def test_agreement_counts_every_place_of_a_map():
    clean = f32([[[1, 0], [0, 1], [1, 0]]])
    outputs = f32([[[1, 0], [1, 0], [0, 1]]])
    assert agreement([outputs], labels=None, clean=[clean], class_axis=2) == 1 / 3
    assert agreement([outputs.swapaxes(1, 2)], labels=None, clean=[clean.swapaxes(1, 2)], class_axis=1) == 1 / 3


def test_exact_match_is_the_share_of_values_that_are_the_same():
    ids = np.array([[1, 2, 3], [4, 5, 6]])
    assert exact_match([ids], labels=None, clean=[np.array([[1, 0, 3], [4, 5, 0]])]) == 4 / 6
    assert exact_match([ids], labels=np.array([[1, 2, 3], [0, 0, 0]]), clean=[]) == 3 / 6
    assert exact_match([np.array([True, False])], labels=None, clean=[np.array([True, True])]) == 0.5
    assert exact_match([np.array([np.nan, 1.0])], labels=None, clean=[np.array([np.nan, 1.0])]) == 0.5


def test_text_is_matched_exactly():
    found = np.array(["cat", "dog", "Dog"], object)
    assert exact_match([found], labels=np.array(["cat", "dog", "dog"]), clean=[]) == 2 / 3
    assert exact_match([found], labels=np.array([b"cat", b"dog", b"dog"]), clean=[]) == 2 / 3
    assert exact_match([[["a"], ["b", "c"]]], labels=None, clean=[[["a"], ["b", "d"]]]) == 2 / 3
    with pytest.raises(DataError, match="text and numbers"):
        exact_match([found], labels=np.array([1, 2, 3]), clean=[])


def test_what_changes_its_length_with_noise_is_not_matched():
    with pytest.raises(DataError, match="noise changed the output's shape"):
        exact_match([np.arange(3)], labels=None, clean=[np.arange(4)])
    with pytest.raises(DataError, match=r"labels of shape \(3,\) do not fit"):
        exact_match([np.arange(4)], labels=np.arange(3), clean=[])


@given(SIGNALS, SIGNALS)
def test_the_relative_error_is_the_sqnr_without_its_logarithm(clean, noise):
    error, ratio = (metric([clean + noise], clean=[clean]) for metric in (relative_error, sqnr_db))
    assert -20 * np.log10(error) == pytest.approx(ratio, abs=4 * DB_ROUNDING)


def test_mean_squared_error_and_r2_by_hand():
    outputs, labels = [np.array([[1.0], [2.0], [6.0]])], np.array([1, 3, 5])
    assert mse(outputs, labels=labels, clean=[]) == (0 + 1 + 1) / 3
    assert r2(outputs, labels=labels, clean=[]) == 1 - 2 / 8
    two = [np.array([[1.0, 0.0], [2.0, 1.0], [6.0, 2.0]])]
    assert r2(two, labels=np.stack([labels, [0, 1, 2]], axis=1), clean=[]) == (1 - 2 / 8 + 1) / 2
    with pytest.raises(DataError, match="not defined"):
        r2(outputs, labels=np.ones(3), clean=[])
    for metric in (mse, r2):
        with pytest.raises(DataError, match="finite"):
            metric(outputs, labels=np.array([1.0, np.nan, 2.0]), clean=[])
        with pytest.raises(DataError, match="do not fit"):
            metric(outputs, labels=np.ones((3, 2)), clean=[])


def test_what_is_infinite_with_and_without_noise_is_no_noise():
    clean, outputs = f32([-np.inf, 3, 4, np.nan]), f32([-np.inf, 3, 3, np.nan])
    assert sqnr_db([outputs], clean=[clean]) == pytest.approx(10 * np.log10(25), abs=DB_ROUNDING)
    assert sqnr_db([f32([np.nan, 4])], clean=[f32([3, 4])]) == -np.inf


def test_the_sqnr_of_outputs_is_that_of_their_floats():
    clean = [np.array([1, 2]), [f32([3.0]), f32([4.0])], np.array(["a"], object), None]
    outputs = [np.array([9, 9]), [f32([3.0]), f32([3.0])], np.array(["b"], object), None]
    assert output_sqnr_db(outputs, clean) == pytest.approx(10 * np.log10(25), abs=DB_ROUNDING)
    assert math.isnan(output_sqnr_db([np.array([1])], [np.array([1])]))
    assert output_sqnr_db([[{"a": 1.0}]], [[{"a": 2.0}]]) == pytest.approx(10 * np.log10(4), abs=DB_ROUNDING)
    assert nan_share([f32([np.nan, 1]), np.array([1])]) == 0.5


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


def test_nan_is_never_right_and_never_the_same():
    scores = [np.array([[np.nan, 0.0], [1.0, 0.0]])]
    assert top1(scores, labels=np.array([0, 0]), clean=[]) == 0.5
    assert agreement(scores, labels=None, clean=scores) == 0.5


@pytest.mark.parametrize("labels", [[0, 2], [-1, 1]])
def test_labels_beyond_the_classes_are_refused(labels):
    with pytest.raises(DataError, match="for the model's 2 classes they must be from 0 to 1"):
        top1([np.eye(2)], labels=np.array(labels), clean=[])


# ------------------------------------------------------------------------------------------------------ choice


def chosen(value: Any, labels: Any = None, declared: Any = None, **options: Any) -> Chosen:
    """Return what is measured of a model with one output."""
    count = options.pop("samples", len(value))
    field = Field("y", shape=declared)
    return choose([field], lambda place: value, None if labels is None else np.array(labels), samples=count, **options)


FLOATS = np.random.default_rng(0).normal(size=(4, 3, 5, 6)).astype(np.float32)
NUMBERS = FLOATS[:, 0, 0, 0]


@pytest.mark.parametrize(
    ("value", "labels", "name", "axis"),
    [
        (SCORES, LABELS, "top1", 1),
        (SCORES[:, :, None, None], LABELS[:, None], "top1", 1),
        (SCORES, np.eye(2)[LABELS], "top1", 1),
        (FLOATS, np.zeros((4, 5, 6)), "top1", 1),
        (FLOATS, np.zeros((4, 3, 5), np.uint8), "top1", 3),
        (SCORES.argmax(axis=1), LABELS, "exact_match", None),
        (np.array(["a", "b"], object), ["a", "a"], "exact_match", None),
        (np.array([[1, 2], [3, 4]]), [[1, 1], [1, 1]], "exact_match", None),
        (NUMBERS, NUMBERS + 1, "r2", None),
        (NUMBERS[:, None], NUMBERS + 1, "r2", None),
        (MAPS, ["cat", "cat", "dog"], "top1", None),
        (SCORES, None, "agreement", 1),
        ((SCORES * 100).astype(np.int8), None, "exact_match", None),
        (SCORES[:, :, None, None], None, "agreement", 1),
        (MAPS, None, "agreement", None),
        (FLOATS, None, "sqnr_db", None),
        (FLOATS[:, :1], None, "sqnr_db", None),
        (FLOATS[:, :1, :1, :1], None, "sqnr_db", None),
        (FLOATS[0, 0], None, "agreement", 1),
        (NUMBERS, None, "sqnr_db", None),
        (SCORES > 0.5, None, "exact_match", None),
        (np.array([[3, 1], [4, 1]]), None, "exact_match", None),
        (np.array(["a", "b"], object), None, "exact_match", None),
        ([FLOATS, FLOATS], None, "sqnr_db", None),
        ([{"cat": 1.0}], None, "sqnr_db", None),
    ],
)
def test_the_metric_fits_the_data(value, labels, name, axis):
    found = chosen(value, labels)
    assert (found.metric.name, found.class_axis, found.output) == (name, axis, "y")
    assert found.labelled is (labels is not None)


@pytest.mark.parametrize(
    ("declared", "axis"),
    [
        (("n", "length", 7), 2),
        (("n", 7, "length"), 1),
        (("n", 7, None), 1),
        (("n", 7, 7), None),
        (("n", "length", "width"), None),
        (None, None),
    ],
)
def test_the_number_of_classes_is_fixed_and_a_length_is_not(declared, axis):
    found = chosen(np.random.default_rng(0).normal(size=(4, 7, 7)), declared=declared)
    assert (found.metric.name, found.class_axis) == ("sqnr_db" if axis is None else "agreement", axis)


def test_maps_of_fixed_depth_are_not_taken_for_classes():
    """They may be colours, as well as classes."""
    assert chosen(FLOATS, declared=("n", 3, "height", "width")).metric.name == "sqnr_db"


def test_a_side_of_the_inputs_counts_no_classes():
    wave = FLOATS[:, 0, 0]
    assert chosen(wave, declared=("n", "time"), dynamic=frozenset({"n", "time"})).metric.name == "sqnr_db"
    assert chosen(wave, declared=("n", "logits"), dynamic=frozenset({"n", "time"})).metric.name == "agreement"


def test_what_has_no_axis_of_samples_is_no_score():
    assert chosen(FLOATS[0, 0], samples=40).metric.name == "sqnr_db"


def test_samples_that_are_fed_one_by_one_have_an_axis_in_front():
    value = np.random.default_rng(0).normal(size=(4, 1, 7, 3))
    found = chosen(value, declared=(1, "length", 3), one_by_one=True)
    assert (found.metric.name, found.class_axis, found.axis) == ("agreement", 2, 3)
    found = chosen(value, declared=(1, "length", 3), one_by_one=True, class_axis=1)
    assert (found.class_axis, found.axis, found.classes) == (1, 2, 7)


@pytest.mark.parametrize("axis", [1, -3])
def test_an_axis_may_be_named(axis):
    found = chosen(FLOATS, class_axis=axis)
    assert (found.metric.name, found.class_axis, found.classes) == ("agreement", 1, 3)
    other = FLOATS[::-1]
    expected = np.mean(other.argmax(axis=1) == FLOATS.argmax(axis=1))
    assert found([other], labels=None, clean=[FLOATS]) == expected


@pytest.mark.parametrize(
    ("value", "options", "error", "message"),
    [
        (FLOATS, {"class_axis": 4}, OptionError, "'y' has 4 axes, and class_axis is 4"),
        (FLOATS, {"class_axis": -5}, OptionError, "'y' has 4 axes, and class_axis is -5"),
        (
            FLOATS,
            {"class_axis": 0},
            OptionError,
            "class_axis is 0, and that axis of output 'y' holds samples or places",
        ),
        (FLOATS[:, :1], {"class_axis": 1}, OptionError, "class_axis is 1, and that axis of output 'y' holds one entry"),
        (
            FLOATS,
            {"class_axis": 1, "named": ("sqnr_db", sqnr_db)},
            OptionError,
            "class_axis is given, and sqnr_db compares",
        ),
        (FLOATS, {"class_axis": 1, "named": ("own", max)}, OptionError, "class_axis is given, and own reads the"),
        (FLOATS, {"named": ("agreement", agreement)}, DataError, "which axis of output 'y'.*class_axis"),
        (FLOATS, {"named": ("top1", top1)}, DataError, "needs a label"),
        (np.array([[3, 1], [4, 1]]), {"class_axis": 1}, DataError, "'y' holds int64, and no scores.*exact_match"),
        (SCORES > 0, {"class_axis": 1}, DataError, "'y' holds bool, and no scores"),
        (np.array(["a", "b"], object), {"named": ("top1", top1), "labels": [0, 1]}, DataError, "no scores"),
        (FLOATS, {"output": "z"}, OptionError, "no output 'z': it has 'y'"),
        (NUMBERS, {"labels": [0, 1, 1, 0]}, DataError, "one number for each label.*name the metric"),
        (NUMBERS, {"labels": ["a"] * 4}, DataError, "labels"),
        (FLOATS, {"labels": [0, 1, 1, 0]}, DataError, "do not fit"),
        (SCORES, {"labels": [0, 1, 1, 2]}, DataError, "2 classes they must be from 0 to 1"),
        (np.zeros((4, 3, 3)), {"labels": np.zeros((4, 3), int)}, DataError, "1 or 2: give class_axis"),
    ],
)
def test_where_nobody_can_know_it_asks(value, options, error, message):
    with pytest.raises(error, match=message) as caught:
        chosen(value, **options)
    assert "\n" not in str(caught.value)


def test_the_first_output_that_fits_is_measured_and_no_more_are_fetched():
    values = [np.array(["a", "b", "b", "a"], object), SCORES, FLOATS]
    fetched: list[int] = []

    def fetch(place):
        fetched.append(place)
        return values[place]

    fields = [Field(name) for name in ("name", "scores", "map")]
    found = choose(fields, fetch, LABELS, samples=4)
    assert (found.output, found.indices, found.metric.name, fetched) == ("scores", (1,), "top1", [0, 1])
    assert choose(fields, fetch, np.array(["a"] * 4), samples=4).output == "name"
    fetched.clear()
    assert choose(fields, fetch, None, samples=4, output="map").indices == (2,)
    assert fetched == [2]


def test_a_function_of_the_user_s_is_given_all_outputs_or_the_one_that_is_named():
    fields = [Field("a"), Field("b")]
    all_, one = (choose(fields, lambda place: None, None, samples=1, named=("own", max), output=o) for o in (None, "b"))
    assert (all_.indices, all_.output, one.indices, one.output) == (None, None, (1,), "b")


def test_a_function_of_the_user_s_says_how_it_is_read():
    def loss(outputs, *, labels, clean):
        return 0.0

    assert (described(("loss", loss)).share, described(("loss", loss)).higher_is_better) == (False, None)
    loss.lower_is_better = True
    assert described(("loss", loss)).higher_is_better is False
    loss.lower_is_better, loss.higher_is_better, loss.share = False, True, True
    assert (described(("loss", loss)).share, described(("loss", loss)).higher_is_better) == (True, True)


def test_lower_may_be_better_of_a_function_that_does_not_say_so():
    def loss(outputs, *, labels, clean):
        return float(outputs[0].sum())

    loss.share = True
    given = directed(loss, lower_is_better=True)
    known = described(metric_of(given))
    assert (known.name, known.higher_is_better, known.share) == ("loss", False, True)
    assert given([np.full(1, 0.25)], labels=None, clean=[]) == 0.25
    assert code_digest(given) == code_digest(loss) is not None  # rows of a folder remain those of the metric
    assert named.loads(named.dumps(given))([np.ones(1)], labels=None, clean=[]) == 1
    assert directed(loss, lower_is_better=False) is loss


@pytest.mark.parametrize(
    ("metric", "said"),
    [(None, "metric is not"), ("top1", "top1 says itself"), ("mse", "mse says itself"), (mse, "mse says itself")],
)
def test_what_says_itself_which_values_are_better_is_not_told(metric, said):
    with pytest.raises(OptionError, match=said):
        directed(metric, lower_is_better=True)


def test_a_function_that_says_that_higher_is_better_is_not_told_otherwise():
    def gain(outputs, *, labels, clean):
        return 0.0

    gain.higher_is_better = True
    with pytest.raises(OptionError, match="gain says itself"):
        directed(gain, lower_is_better=True)


def test_all_metrics_are_described():
    assert NAMES == (
        "top1",
        "top5",
        "agreement",
        "exact_match",
        "relative_error",
        "sqnr_db",
        "mse",
        "token_accuracy",
        "perplexity",
        "r2",
    )
    shares = [metric.name for metric in METRICS.values() if metric.share]
    assert shares == ["top1", "top5", "agreement", "exact_match", "token_accuracy"]
    for name, metric in METRICS.items():
        assert described(("any name", metric.function)) is metric
        assert (metric.name, metric.higher_is_better) == (name, name not in ("relative_error", "mse", "perplexity"))
        assert metric.label


# ---------------------------------------------------------------------------------------------------- identity


def source(text: str, tmp_path, monkeypatch) -> str | None:
    """Return the digest of the metric of a module of that text."""
    (tmp_path / "own_source.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    linecache.clearcache()
    sys.modules.pop("own_source", None)
    importlib.invalidate_caches()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return code_digest(importlib.import_module("own_source").metric)


def test_what_changes_its_shape_with_noise_is_not_compared():
    found, clean = [f32(np.ones((3, 7)))], [f32(np.ones((5, 7)))]
    with pytest.raises(DataError, match=r"from \(5, 7\) to \(3, 7\).*give a metric of your own"):
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
    assert code_digest(Callable()) == code_digest(Callable()) is not None


def test_no_text_no_digest():
    assert code_digest(eval("lambda outputs, *, labels, clean: 0.0")) is None
    assert code_digest(max) is None
    assert [code_digest(metric) for metric in (top1, agreement, sqnr_db)] == [None] * 3


# ------------------------------------------------------------------------------------------ functions of the user's


def own(function, **attributes):
    for name, value in attributes.items():
        setattr(function, name, value)
    return choose([Field("y")], lambda _: SCORES, None, samples=4, named=("own", function))


@pytest.mark.parametrize("returned", [np.ones(1), np.ones(2), [0.5], "0.5", b"1", None, 1j, 10**400, range(3)])
def test_a_function_that_returns_no_number_is_refused(returned):
    metric = own(lambda _outputs, **_: returned)
    with pytest.raises(DataError, match="'own' must return one number, and it returned"):
        metric([SCORES], labels=None, clean=[SCORES])


@pytest.mark.parametrize("returned", [0.25, np.float32(0.25), np.array(0.25), 1, True, np.int8(1)])
def test_a_function_may_return_any_number(returned):
    assert own(lambda _outputs, **_: returned)([SCORES], labels=None, clean=[SCORES]) == float(returned)


@pytest.mark.parametrize("returned", [17.5, -0.1, math.inf])
def test_a_share_beyond_0_and_1_is_refused(returned):
    metric = own(lambda _outputs, **_: returned, share=True)
    with pytest.raises(DataError, match="is a share, from 0 to 1, and it returned"):
        metric([SCORES], labels=None, clean=[SCORES])


@pytest.mark.any_message  # it names the class of what a function of the user's raised
@pytest.mark.parametrize("error", [RuntimeError("boom"), SystemExit(3), AssertionError()])
def test_what_a_function_raises_is_told(error):
    def fails(outputs, *, labels, clean):
        raise error

    with pytest.raises(DataError, match=f"the metric 'own' failed with {type(error).__name__}"):
        own(fails)([SCORES], labels=None, clean=[SCORES])


@pytest.mark.any_message
@pytest.mark.parametrize(
    "function",
    [
        lambda outputs, labels: 1.0,  # has no `clean`
        lambda outputs, **_: outputs.argmax(axis=1).mean(),  # takes the list for an array
        lambda outputs, **_: outputs[1].mean(),  # there is one output
        lambda outputs, **_: None,
    ],
)
def test_a_function_that_takes_or_returns_something_else_is_told_how_it_is_called(function):
    said = (
        r"\. It is called as f\(outputs, labels=, clean=\) -> number, where outputs is a list, with an entry for each"
    )
    with pytest.raises(DataError, match=said):
        own(function)([SCORES], labels=None, clean=[SCORES])


def test_an_error_of_ours_in_a_function_names_its_fields():
    def wrong(_outputs, **_):
        raise OptionError("cells has 2 numbers")

    with pytest.raises(OptionError, match=r"^cells has 2 numbers$") as caught:
        own(wrong)([SCORES], labels=None, clean=[SCORES])
    assert caught.value.names_fields


@pytest.mark.any_message
def test_a_fault_that_has_nothing_to_do_with_the_arguments_is_told_alone():
    with pytest.raises(DataError, match=r"'own' failed with ZeroDivisionError: division by zero$"):
        own(lambda outputs, **_: 1 / 0)([SCORES], labels=None, clean=[SCORES])


@pytest.mark.any_message
def test_a_function_cannot_change_what_the_next_trial_is_compared_with():
    before, labels = SCORES.copy(), np.arange(4)

    def overwrites(outputs, *, labels, clean):
        clean[0][:] = 0
        return 1.0

    with pytest.raises(DataError, match="read-only"):
        own(overwrites)([before], labels=labels, clean=[before])
    np.testing.assert_array_equal(before, SCORES)
    before[:] = 0  # it is not locked for others


def test_a_function_with_the_name_of_a_metric_is_not_taken_for_it():
    def top1(outputs, *, labels, clean):
        return 17.5

    found = choose([Field("y")], lambda _: SCORES, np.arange(4) % 2, samples=4, named=("top1", top1))
    assert found.metric.name == f"{__name__}:top1"
    assert found([SCORES], labels=None, clean=[SCORES]) == 17.5


def test_a_function_cannot_say_that_both_ways_are_better():
    with pytest.raises(OptionError, match=r"both .lower_is_better. and .higher_is_better."):
        own(lambda _outputs, **_: 0.5, lower_is_better=True, higher_is_better=True)


# ---------------------------------------------------------------------------------------------------- labels


def test_scores_of_no_place_are_refused():
    empty = np.ones((2, 0, 4), np.float32)
    with pytest.raises(DataError, match=r"the output has shape \(2, 0, 4\), which holds no scores"):
        agreement([empty], labels=None, clean=[empty])


def test_labels_without_a_label_are_refused():
    with pytest.raises(DataError, match=r"labels of shape \(1, 0\) hold no label"):
        top1([np.ones((1, 2, 0), np.float32)], labels=np.ones((1, 0), np.int64), clean=[], class_axis=1)


def test_labels_that_are_0_and_1_as_floats_may_be_classes():
    for labels in ([0.0, 1.0, 1.0, 0.0], [[0.0], [1.0], [1.0], [0.0]]):
        with pytest.raises(DataError, match="may be a score or a quantity"):
            chosen(np.ones((4, 1)), labels=labels)
    assert chosen(np.ones((4, 1)), labels=[0.0, 1.0, 2.0, 0.0]).metric.name == "r2"


def test_one_hot_labels_may_have_their_axis_of_classes_anywhere():
    scores = np.random.default_rng(0).normal(size=(5, 3, 4, 2))
    for axis in (1, 2, 3):
        right = scores.argmax(axis=axis)
        one_hot = np.moveaxis(np.eye(scores.shape[axis])[right], -1, axis)
        assert top1([scores], labels=one_hot, clean=[], class_axis=axis) == 1
        right.reshape(-1)[:3] = (right.reshape(-1)[:3] + 1) % scores.shape[axis]
        one_hot = np.moveaxis(np.eye(scores.shape[axis])[right], -1, axis)
        assert top1([scores], labels=one_hot, clean=[], class_axis=axis) == 1 - 3 / right.size


def test_labels_of_half_precision_are_whole_numbers():
    assert top1([np.eye(3)], labels=np.arange(3, dtype=np.float16), clean=[]) == 1


def test_exact_match_prefers_outputs_of_whole_numbers():
    fields = [Field("score", "tensor(float)"), Field("class", "tensor(int64)")]
    values = [np.ones(4), np.arange(4)]
    found = choose(fields, values.__getitem__, np.arange(4), samples=4, named=("exact_match", exact_match))
    assert (found.output, found.indices) == ("class", (1,))


def test_an_axis_of_samples_or_places_holds_no_classes():
    value, declared = np.ones((3, 4, 10)), (3, "n", 10)
    with pytest.raises(OptionError, match="class_axis is 1, and that axis of output 'y' holds samples or places"):
        choose([Field("y", shape=declared)], lambda _: value, None, samples=4, class_axis=1, dynamic=frozenset({"n"}))


def test_without_noise_a_function_gets_the_same_outputs_twice():
    clean = [SCORES]
    metric = own(lambda outputs, *, labels, clean: float(outputs is clean and outputs[0] is clean[0]))
    assert metric(clean, labels=None, clean=clean) == 1
    assert metric([SCORES.copy()], labels=None, clean=clean) == 0


# ---------------------------------------------------------------------------------------------------- tokens

LOGITS = hnp.arrays(np.float64, (2, 4, 5), elements=st.floats(-30, 30))
TOKENS = hnp.arrays(np.int64, (2, 4), elements=st.integers(0, 4) | st.just(-100)).filter(lambda y: (y >= 0).any())


def loop(logits, labels):
    """Return the perplexity and the token accuracy, token by token."""
    lost, right = [], []
    for row, label in zip(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), strict=True):
        if label != -100:
            odds = [math.exp(score - row[label]) for score in row]
            lost.append(math.log(math.fsum(odds)))
            right.append(row.tolist().index(max(row)) == label)
    return math.exp(math.fsum(lost) / len(lost)), sum(right) / len(right)


@given(LOGITS, TOKENS)
def test_tokens_are_scored_as_a_loop_scores_them(logits, labels):
    surprise, right = loop(logits, labels)
    assert token_accuracy([logits], labels=labels, clean=[]) == right
    assert perplexity([logits], labels=labels, clean=[]) == pytest.approx(surprise, rel=1e-12)


@pytest.mark.parametrize("classes", [2, 50, 1000])
def test_the_perplexity_of_equal_scores_is_the_number_of_classes(classes):
    labels = np.arange(6).reshape(2, 3) % classes
    value = perplexity([np.full((2, 3, classes), 3.0)], labels=labels, clean=[], class_axis=2)
    assert value == pytest.approx(classes, rel=1e-12)


def test_the_perplexity_of_logarithms_of_probabilities_is_that_of_these():
    """Closed form: two labels of probability 1/2 and 1/8 have the geometric mean 1/4."""
    scores = np.log([[[0.5, 0.25, 0.25], [0.125, 0.375, 0.5]]])
    assert perplexity([scores], labels=np.array([[0, 0]]), clean=[]) == pytest.approx(4, rel=1e-12)
    assert perplexity([scores + 500], labels=np.array([[0, 0]]), clean=[]) == pytest.approx(4, rel=1e-9)  # as softmax


def test_a_sure_model_is_not_surprised_and_an_impossible_label_is_infinitely_so():
    scores = np.array([[[0.0, -np.inf]]])
    assert perplexity([scores], labels=np.array([[0]]), clean=[]) == 1.0
    assert perplexity([scores], labels=np.array([[1]]), clean=[]) == math.inf
    assert math.isnan(perplexity([np.array([[[math.nan, 0.0]]])], labels=np.array([[1]]), clean=[]))


def test_what_is_no_token_or_no_logit_is_refused():
    scores = np.zeros((1, 2, 3))
    for metric in (perplexity, token_accuracy):
        with pytest.raises(DataError, match="all labels are -100"):
            metric([scores], labels=np.full((1, 2), -100), clean=[])
        with pytest.raises(DataError, match="labels run from -1 to 0"):
            metric([scores], labels=np.array([[-1, 0]]), clean=[])
        with pytest.raises(DataError, match="a label for each token"):
            metric([scores], labels=None, clean=[])
    with pytest.raises(DataError, match="the scores are probabilities"):
        perplexity([np.full((1, 2, 4), 0.25)], labels=np.zeros((1, 2), int), clean=[])


def test_tokens_of_a_model_are_measured():
    labels = np.array([[0, 1, -100], [2, -100, -100]])
    scores = np.random.default_rng(0).normal(size=(2, 3, 7)).astype(np.float32)
    for name in ("perplexity", "token_accuracy"):
        found = choose([Field("y")], lambda _: scores, labels, samples=2, named=(name, METRICS[name].function))
        assert (found.class_axis, found.classes) == (2, 7)
        assert found([scores], labels=labels, clean=[]) == METRICS[name].function([scores], labels=labels, clean=[])


@pytest.mark.parametrize(("uncounted", "named"), [(-100, True), (-1, False)])
def test_labels_of_tokens_that_do_not_count_name_the_metric_for_them(uncounted, named):
    scores = np.zeros((2, 3, 7), np.float32)
    labels = np.array([[0, 1, uncounted], [2, 3, 4]])
    with pytest.raises(DataError, match="labels run from") as raised:
        choose([Field("y")], lambda _: scores, labels, samples=2)
    assert ('metric="token_accuracy" leaves out places with the label -100' in str(raised.value)) == named


@pytest.mark.parametrize("name", ["perplexity", "token_accuracy"])
def test_metrics_of_tokens_are_refused_where_samples_are_compared_one_by_one(name):
    net = "net (float[n, t, 4] x) => (float[n, t, 9] y) <float[4, 9] w = random> { y = MatMul(x, w) }"
    x, y = np.zeros((300, 5, 4), np.float32), np.zeros((300, 5), int)
    with pytest.raises(OptionError, match=f"metric is {name}; it must be one that compares sample by sample"):
        oa.tune(model(net), (x, y), metric=name, max_drop=1)
    with pytest.raises(OptionError, match=f"metric is {name}; it must be one that compares sample by sample"):
        oa.check(model(net), (x, y), metric=name, max_drop=1)


def test_a_language_model_is_evaluated_by_its_tokens():
    net = "net (float[n, t, 4] x) => (float[n, t, 9] y) <float[4, 9] w = random> { y = MatMul(x, w) }"
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    y = np.random.default_rng(1).integers(9, size=(6, 5))
    y[:, 3:] = -100
    logits = run(model(net), {"x": x})[0].astype(np.float64)
    for name, expected in zip(("perplexity", "token_accuracy"), loop(logits, y), strict=True):
        found = oa.evaluate(model(net), (x, y), metric=name)
        assert found.original == pytest.approx(expected, rel=1e-6)  # of float32
