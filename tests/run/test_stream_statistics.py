"""Digital cells of arrays: how often symbols are misread, and when that is another share than the simulated one."""

from __future__ import annotations

import math

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import channels
from onnx_analog.cli.array_tables import MOST_GROUPS, comparison_tables
from onnx_analog.graph.image import image_of
from onnx_analog.run.array_comparison import Comparison, Difference
from onnx_analog.run.array_statistics import QUANTILES, Group
from onnx_analog.run.stream_statistics import (
    StreamStatistics,
    comparisons_of,
    counted_streams,
    expected_streams,
    stream_difference,
)
from tests.models import QUIET, model

NET = """
    net (float[n, 100] x) => (float[n, 100] y) <float[100, 100] w = random> {
        y = MatMul(x, w)
    }"""


def stored(**settings):
    return oa.load(oa.protect(model(NET), oa.Scheme.paper("mapping", **{"channel": QUIET, **settings})))


def measured(protected, noise, seed: int = 0):
    """Return the streams of an array outside, whose reads are what it holds and `noise` of that."""
    columns, rng = image_of(protected).columns(), np.random.default_rng(seed)
    value = columns["level"] + noise(columns) * rng.normal(size=columns["level"].size)
    read = oa.readback(protected, measured={"address": columns["address"], "value": value}, unit="scaled")
    assert read.array is not None
    return counted_streams(read.array.streams)


@pytest.mark.parametrize(
    "settings",
    [
        {"code": "none", "channel": "gaussian:sigma=0.4"},
        {"block_bits": 512},
        {"side_channel": "gaussian:sigma=0.3", "side_copies": 3},
    ],
)
def test_symbols_are_misread_as_often_as_expected(settings):
    protected = stored(**settings)
    sigma = channels.resolve(settings.get("channel", QUIET)).sigma
    side = settings.get("side_channel")
    planes = np.array([0.3 if side and number == 1 else sigma for number in range(9)])
    found = measured(protected, lambda columns: planes[columns["plane"]])
    expected = expected_streams(protected)
    assert {each.key for each in found} == {each.key for each in expected}
    assert sum(each.misread for each in found) > 100
    for one in found:
        (other,) = [each for each in expected if each.key == one.key]
        assert one.symbols == other.symbols
        assert one.blocks == other.blocks
        assert abs(one.misread - other.misread) < 4.5 * math.sqrt(other.misread) + 1e-9  # at most binomial
    twice = measured(protected, lambda columns: 1.5 * planes[columns["plane"]])
    gap = [one.misread - other.misread for one, other in zip(twice, found, strict=True)]
    assert max(gap) > 4.5 * math.sqrt(max(each.misread for each in found))


def stream(misread: float, symbols: int = 10_000, **settings) -> StreamStatistics:
    return StreamStatistics(name="sign", channel="a", code="none", symbols=symbols, misread=misread, **settings)


def test_a_share_that_is_true_is_excluded_no_more_often_than_the_risk_says():
    risk, rng = 0.05, np.random.default_rng(0)
    counts = rng.binomial(10_000, 0.01, size=1000).tolist()
    wrong = [stream_difference(stream(count), stream(100.0), risk).differs for count in counts]
    assert sum(wrong) <= 1000 * risk + 4 * math.sqrt(1000 * risk * (1 - risk))
    assert stream_difference(stream(300), stream(100.0), risk).differs
    assert stream_difference(stream(20), stream(100.0), risk).differs


def test_a_law_that_is_known_from_reads_only_leaves_room():
    near = stream(130)
    assert stream_difference(near, stream(100.0), 0.05).differs
    assert not stream_difference(near, stream(100.0, doubt=1e-3), 0.05).differs
    assert {each.doubt > 0 for each in expected_streams(stored(channel="pcm-drift"))} == {True}
    assert {each.doubt for each in expected_streams(stored())} == {0.0}


def test_blocks_that_fail_more_often_differ_too():
    expected = stream(100.0, blocks=50, failed=1e-6)
    assert comparisons_of(stream(100, blocks=50)) == 2
    assert comparisons_of(stream(100)) == 1
    assert not stream_difference(stream(100, blocks=50), expected, 0.01).differs
    assert stream_difference(stream(100, blocks=50, failed=5.0), expected, 0.01).differs


def group(number: int, mean: float = 0.0) -> Group:
    quantiles = tuple(np.linspace(-1, 1, QUANTILES).tolist())
    return Group(
        channel="a", cells=number % 3, low=number / 100, high=(number + 1) / 100, count=100, mean=mean, std=1.0,
        quantiles=quantiles,
    )  # fmt: skip


def test_of_many_groups_those_beyond_their_bounds_are_shown():
    many = 3 * MOST_GROUPS
    far = {5, 40}
    differences = tuple(
        Difference(measured=group(n, mean=0.5), simulated=group(n), ks=0.9 if n in far else 0.01, ks_bound=0.1)
        for n in range(many)
    )
    comparison = Comparison(differences=differences, left_out=0)
    whole, groups = comparison_tables(comparison)
    assert whole.row_count == 3
    assert groups.row_count == MOST_GROUPS
    assert list(groups.columns[-1].cells).count("differs") == len(far)
    assert f"{many - MOST_GROUPS} groups nearer to the simulation not shown" in str(groups.caption)
    assert list(whole.columns[2].cells) == ["2,400"] * 3  # weights
    assert list(whole.columns[3].cells) == ["0.5000"] * 3  # mean error
    assert str(comparison).startswith(
        "2 of 72 groups of levels differ from the simulation, with 95 % confidence over all"
    )
    alone = Comparison(differences=differences[:1], left_out=0)
    assert str(alone) == "0 of 1 group of levels differs from the simulation, with 95 % confidence"
