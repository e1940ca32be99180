"""Statistics of arrays: the groups, the file, and whether a comparison tells arrays of another law."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.cli.array_tables import comparison_tables
from onnx_analog.errors import DataError, OptionError
from onnx_analog.graph.image import image_of
from onnx_analog.run.array_comparison import _of_test_set, _prediction, distance
from onnx_analog.run.array_statistics import QUANTILES, statistics_of
from tests.models import model, run

NET = """
    net (float[n, 100] x) => (float[n, 100] y) <float[100, 100] w = random> {
        y = MatMul(x, w)
    }"""
SIGMA = 0.1
PROTECTED = oa.load(oa.protect(model(NET), channel=f"gaussian:sigma={SIGMA}", cells_large=4, large_fraction=0.3))
X = np.random.default_rng(0).normal(size=(400, 100)).astype(np.float32)
Y = run(model(NET), {"x": X})[0].argmax(axis=1)


def far(sigma: float = SIGMA, offset: float = 0.0, seed: int = 1, **settings) -> oa.ArrayStatistics:
    """Return the statistics of an array outside, with noise of its own."""
    columns = image_of(PROTECTED).columns()
    noise = sigma * np.random.default_rng(seed).normal(size=columns["level"].size)
    reads = {"address": columns["address"], "value": columns["level"] + offset + noise}
    return oa.array_statistics(PROTECTED, measured=reads, unit="scaled", **settings)


SIMULATED = oa.array_statistics(PROTECTED, trials=5, data=(X, Y))


@pytest.mark.parametrize("groups", [1, 2])
def test_one_comparison_is_not_called_several(groups):
    measured, simulated = (replace(each, groups=each.groups[:groups], streams=()) for each in (far(), SIMULATED))
    comparison = oa.compare(measured, simulated)
    assert comparison.comparisons == groups
    _, levels, *_ = comparison_tables(comparison)
    assert ("over all 2 comparisons together" in levels.caption) is (groups == 2)
    assert ("comparisons" in levels.caption) is (groups == 2)


def test_groups_have_the_moments_of_the_channel():
    assert sum(group.count for group in SIMULATED.groups) == 5 * 10_000
    for group in SIMULATED.groups:
        std = SIGMA / math.sqrt(group.cells)
        assert abs(group.mean) < 4.5 * std / math.sqrt(group.count)  # standard errors of a normal law
        assert abs(group.std - std) < 4.5 * std / math.sqrt(2 * group.count)
        assert len(group.quantiles) == QUANTILES
    assert {group.cells for group in SIMULATED.groups} == {1, 4}
    (low, high) = PROTECTED.schemes[0].channel.span
    assert SIMULATED.groups[0].low == low
    assert max(group.high for group in SIMULATED.groups) == high


def test_cells_of_groups_are_those_that_costs_and_images_count():
    pairs = oa.protect(model(NET), channel="pcm-drift:differential=true", cells_small=2, cells_large=3)
    statistics = oa.array_statistics(pairs, trials=1)
    assert {group.cells for group in statistics.groups} == {4, 6}
    levels = sum(group.cells * group.count for group in statistics.groups)
    assert levels == pairs.manifest.totals.analog_cells
    columns = image_of(oa.load(pairs)).columns()
    digital = columns["symbol"] >= 0
    assert np.count_nonzero(~digital) == levels
    first, second = columns["symbol"][::2], columns["symbol"][1::2]
    np.testing.assert_array_equal(first, second)  # both cells of a pair have the symbol
    np.testing.assert_array_equal(columns["replica"][::2], columns["replica"][1::2])


@pytest.mark.parametrize(("changes", "agree"), [({}, True), ({"sigma": 1.3 * SIGMA}, False), ({"offset": 0.03}, False)])
def test_an_array_of_another_law_is_told(changes, agree):
    comparison = oa.compare(far(**changes), SIMULATED)
    assert comparison.levels_agree is agree
    assert comparison.streams_agree is ("sigma" not in changes)  # a small offset moves errors to the other side only
    assert comparison.comparisons == len(comparison.differences) + 2 * len(comparison.streams)  # each has a code
    assert f"with 95 % confidence over all {comparison.comparisons} comparisons" in str(comparison)
    assert (comparison.metric, comparison.value_agrees, comparison.measured_value) == (None, None, None)
    assert len(comparison.differences) + comparison.left_out == len(SIMULATED.groups)


def test_what_was_not_read_is_not_known():
    """Neither agrees nor differs: what has no read, and what is not there."""
    levels = oa.compare(replace(far(), streams=()), SIMULATED)
    assert (levels.levels_agree, levels.streams_agree) == (True, None)
    assert levels.unread_streams == ("sign", "class", "codebook")
    assert "no symbol of sign, class, codebook was read, so it is not known whether these agree" in str(levels)
    assert json.loads(json.dumps(levels.to_dict()))["streams_agree"] is None
    streams = oa.compare(replace(far(), groups=()), SIMULATED)
    assert (streams.levels_agree, streams.streams_agree, streams.unread_streams) == (None, True, ())
    assert "not known" not in str(streams)


def test_of_streams_that_were_read_in_part_those_are_named_that_were_not():
    array = far()
    part = oa.compare(replace(array, streams=array.streams[:2]), SIMULATED)
    assert (part.streams_agree, part.unread_streams) == (True, ("codebook",))
    assert "no symbol of codebook was read" in str(part)


def test_a_score_is_predicted_or_not():
    same = oa.compare(far(data=(X, Y)), SIMULATED)
    assert same.value_agrees
    assert same.metric == "top1"
    worse = oa.compare(far(sigma=6 * SIGMA, data=(X, Y)), SIMULATED)
    assert worse.value_agrees is False
    assert worse.measured_value < worse.predicted[0] < worse.simulated_mean
    assert "outside what is predicted" in str(worse)


def test_the_score_of_simulated_arrays_is_that_of_evaluate():
    assert SIMULATED.values == oa.evaluate(PROTECTED, (X, Y), trials=5).values
    assert (SIMULATED.samples, SIMULATED.share) == (400, True)


def test_a_score_of_a_round_trip_is_that_of_the_stored_model():
    from onnx_analog.graph.image import image_of

    columns = image_of(PROTECTED).columns()
    reads = {"address": columns["address"], "value": columns["level"]}
    exact = oa.array_statistics(PROTECTED, measured=reads, unit="scaled", data=(X, Y))
    assert exact.values == (oa.evaluate(PROTECTED, (X, Y), trials=1).stored,)
    assert all(group.std == 0 == group.mean for group in exact.groups)
    assert not oa.compare(exact, SIMULATED).levels_agree


def test_a_file_holds_all(tmp_path):
    path = tmp_path / "simulated.json"
    path.write_text(SIMULATED.to_json(), encoding="utf-8")
    assert statistics_of(path, "simulated") == SIMULATED
    first, again = oa.compare(far(), SIMULATED), oa.compare(far(), path)
    assert first == again
    body = json.loads(json.dumps(first.to_dict()))
    assert body["line"] == str(first)
    assert len(body["groups"]) == len(first.differences)
    assert [stream["name"] for stream in body["streams"]] == ["sign", "class", "codebook"]


def wrong(**changes) -> str:
    return json.dumps({**json.loads(SIMULATED.to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not hold the statistics of an array"),
        ("[]", "its format is missing"),
        ('{"format": "other"}', "its format is 'other', and 'onnx-analog-array/2' is needed"),
        ('{"format": "onnx-analog-array/2"}', "is damaged"),
        (wrong(kind="guessed"), "kind is 'guessed'"),
        (wrong(values=["a"]), "is damaged"),
        (wrong(streams=[{}]), "is damaged"),
        (wrong(streams=[{**json.loads(SIMULATED.to_json())["streams"][0], "misread": 1e9}]), "do not fit together"),
        (wrong(groups=[{}]), "is damaged"),
        (wrong(groups=[{**json.loads(SIMULATED.to_json())["groups"][0], "quantiles": [1, 2]}]), "quantiles are not"),
        (wrong(groups=[{**json.loads(SIMULATED.to_json())["groups"][0], "count": 0}]), "a group has no weights"),
    ],
)
def test_another_file_is_refused(tmp_path, text, said):
    path = tmp_path / "simulated.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        oa.compare(far(), path)


def test_what_does_not_belong_together_is_refused():
    other = oa.load(oa.protect(model(NET), channel=f"gaussian:sigma={SIGMA}", strategy="raw"))
    with pytest.raises(DataError, match="the two are of different images"):
        oa.compare(far(), oa.array_statistics(other, trials=1))
    with pytest.raises(
        DataError, match="measured describes simulated arrays; the first of the two must describe a measured array"
    ):
        oa.compare(SIMULATED, SIMULATED)
    with pytest.raises(
        DataError, match="simulated describes a measured array; the second of the two must describe simulated arrays"
    ):
        oa.compare(far(), far())
    with pytest.raises(DataError, match="score both alike"):
        oa.compare(far(data=(X[:100], Y[:100])), SIMULATED)
    with pytest.raises(DataError, match="data have no labels"):
        far(data=X)
    with pytest.raises(OptionError, match="trials is 0; it must be from 1 to 1,000"):
        oa.array_statistics(PROTECTED, trials=0)
    with pytest.raises(OptionError, match="unit is given, and measured is not"):
        oa.array_statistics(PROTECTED, unit="scaled")
    with pytest.raises(OptionError, match="seed and measured exclude each other"):
        oa.array_statistics(PROTECTED, measured={}, unit="scaled", seed=3)


def test_distances_are_those_of_samples():
    rng = np.random.default_rng(0)
    at = np.linspace(0, 1, QUANTILES)
    for shift in (0.0, 0.2, 1.0):
        one, other = rng.normal(size=4000), rng.normal(size=4000) + shift
        exact = np.sort(np.concatenate([one, other]))
        below = [np.searchsorted(np.sort(values), exact, side="right") / 4000 for values in (one, other)]
        estimated = distance(np.quantile(one, at).tolist(), np.quantile(other, at).tolist())
        assert abs(estimated - np.abs(below[0] - below[1]).max()) <= 2 / (QUANTILES - 1)
    assert distance([0.0] * 5, [0.0] * 5) == 0
    assert distance([0.0] * 5, [1.0] * 5) == 1


def test_intervals_by_hand():
    low, high = _of_test_set(1.0, 100)
    assert (round(low, 6), high) == (round(0.025 ** (1 / 100), 6), 1.0)  # of no error in n: α/2 to the power of 1/n
    assert _prediction([0.5], (0, 1)) is None
    ends = _prediction([1.0, 2.0, 3.0], (-math.inf, math.inf))
    np.testing.assert_allclose(ends, [2 - 4.3027 * math.sqrt(4 / 3), 2 + 4.3027 * math.sqrt(4 / 3)], rtol=1e-4)
    assert _prediction([0.9, 1.0], (0, 1))[1] == 1.0


def test_steps_of_a_distribution_are_steps():
    """Half of the errors are 0 exactly: below it, the other distribution has a share that this one has not."""
    atom = [0.0] * 101 + np.linspace(0.01, 1, 100).tolist()
    even = np.linspace(-1, 1, 201).tolist()
    assert distance(atom, even) == pytest.approx(0.5)
    rounded = np.round(np.linspace(-1, 1, 201), 1).tolist()  # as a converter gives them
    assert distance(rounded, even) == pytest.approx(0.025, abs=2 / 200)


def test_equal_scores_predict_nothing():
    assert _prediction((1.0, 1.0, 1.0), (0.0, 1.0)) is None
    assert _prediction((1.0,), (0.0, 1.0)) is None


def test_a_measured_file_of_two_arrays_is_damaged(tmp_path):
    body = json.loads(far().to_json())
    (tmp_path / "two.json").write_text(json.dumps({**body, "values": [0.5, 0.6]}), encoding="utf-8")
    with pytest.raises(DataError, match="is damaged: 2 values of 1 arrays"):
        statistics_of(tmp_path / "two.json", "measured")


def test_a_score_says_how_many_weights_had_no_read():
    columns = image_of(PROTECTED).columns()
    kept = columns["address"] % 3 > 0
    reads = {"address": columns["address"][kept], "value": columns["level"][kept].astype(np.float64)}
    few = oa.array_statistics(PROTECTED, measured=reads, unit="scaled", missing="written", data=(X, Y))
    said = r"[\d,]+ of 10,000 weights had no read and were taken as written"
    assert re.fullmatch(rf"top1 on 400 samples, measured: [\d.]+ %; {said}", few.score)
    found = oa.compare(few, SIMULATED)
    assert re.search(rf"top1 [\d.]+ % measured \({said}\), ", str(found))
    assert found.to_dict()["unread"] == few.unread
    assert oa.compare(far(data=(X, Y)), SIMULATED).unread is None
