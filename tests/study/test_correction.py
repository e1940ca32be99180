import csv
import json
from dataclasses import replace

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.channels.statistical import StatisticalPcm
from onnx_analog.coding.codes import best_code
from onnx_analog.coding.numbers import cells_of_numbers, codes_for
from onnx_analog.errors import OutputError
from onnx_analog.study import engines
from onnx_analog.study._lines import CHECKSUM
from onnx_analog.study._rows import VARYING, facts_of, trial_of
from tests.models import QUIET, model
from tests.packages import imported

NET = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 16] b = 2 random> {
        h = MatMul(x, a)
        r = Relu(h)
        y = MatMul(r, b)
    }"""
RNG = np.random.default_rng(0)
X, Y, CALIBRATION = RNG.normal(size=(80, 16)).astype(np.float32), RNG.integers(16, size=80), RNG.normal(size=(50, 16))
OPTIONS = {"strategy": ["sign", "mapping"], "cells": [1, 2], "channel": replace(QUIET, sigma=0.3), "trials": 3}


def swept(**options):
    return oa.sweep(model(NET), (X, Y), **{**OPTIONS, "engine": "serial", "correct": CALIBRATION, **options})


def test_a_point_is_an_evaluation_with_and_without_correction():
    for point in swept():
        stored = oa.protect(model(NET), point.setting.plan)
        alone = oa.evaluate(stored, (X, Y), trials=3, correct=CALIBRATION)
        assert point.evaluation.values == alone.values
        assert point.evaluation.uncorrected_values == alone.uncorrected_values
        assert point.evaluation.correction == alone.correction == (2, 64)
        row, body = point.row(), point.to_dict()
        assert row["uncorrected_mean"] == body["uncorrected"]["mean"] == np.mean(alone.uncorrected_values)
        assert row["change"] == body["correction"]["change"] == alone.change
        assert [row["uncorrected_ci95_low"], row["uncorrected_ci95_high"]] == body["uncorrected"]["ci95"]
        assert (row["correction_layers"], row["correction_numbers"]) == (2, 64)
    plain = swept(correct=None)
    assert [p.evaluation.values for p in plain] == [p.evaluation.uncorrected_values for p in swept()]
    assert not any("uncorrected" in name or "correct" in name for p in plain for name in p.row())


@pytest.mark.parametrize("correct", [None, CALIBRATION])
def test_the_trials_of_a_sweep_are_the_rows_of_its_folder(correct, tmp_path):
    pandas = imported("pandas")
    plans = {"digital": oa.Scheme.int4(channel=QUIET)}
    result = swept(correct=correct, plan=plans, grid=["granularity=tensor,channel"], out=tmp_path)
    found = result.trials_dataframe()
    assert len(found) == sum(len(point.evaluation.values) for point in result)
    written = pandas.read_csv(tmp_path / "trials.csv")
    pandas.testing.assert_frame_equal(found, written[list(found.columns)], check_dtype=False, rtol=1e-14)
    left = written.drop(columns=[*found.columns, CHECKSUM])
    assert left.nunique(dropna=False).max() == 1
    assert ("uncorrected_sqnr_db" in found) == ("correction_numbers" in found) == (correct is not None)


def test_cells_of_a_point_include_those_of_the_correction():
    """As `tune` counts them, in both countings; the columns of the weights alone leave them out, in all files."""
    for point, plain in zip(swept(), swept(correct=None), strict=True):
        totals, numbers = point.totals, point.evaluation.correction.numbers
        assert totals == plain.totals
        for counting, alone, name in (
            ("memory", totals.honest_cells, "honest"),
            ("paper", totals.all_in_cells, "all_in"),
        ):
            more = cells_of_numbers(numbers, point.setting.channel, totals.decoding, counting)
            assert more > 0
            assert plain.cost_in(counting) == alone / totals.original_weights
            assert point.cost_in(counting) == pytest.approx((alone + more) / totals.original_weights)
            column = f"{name}_cells_per_original_weight"
            for columns in (point.row(), point.to_dict()):
                assert columns[column] == plain.row()[column] == plain.cost_in(counting)
                assert columns[f"{column}_with_correction"] == point.cost_in(counting)
        assert not any("with_correction" in name for name in (*plain.row(), *plain.to_dict()))
        checked = oa.check(model(NET), X, max_drop=99, plan=point.setting.plan, correct=CALIBRATION, max_trials=3)
        assert checked.cells_per_weight == point.honest_cost
        assert checked.paper_cells_per_weight == point.cost


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_numbers_of_a_correction_take_as_many_bits_in_a_cell_as_side_information(bits):
    scheme = oa.Scheme.paper("redundancy", channel=OPTIONS["channel"], side_bits_per_cell=bits)
    point = next(point for point in swept(plan={"own": oa.Plan(default=scheme)}) if point.strategy == "own")
    more = 16 * point.evaluation.correction.numbers / bits
    assert point.cost == pytest.approx((point.totals.all_in_cells + more) / point.totals.original_weights)


def test_cells_of_two_devices_count_twice_in_the_correction():
    """As the memory allows: 64 numbers of 16 bits, in the code that holds the most of them in a cell."""
    for differential, devices in ((False, 1), (True, 2)):
        channel = StatisticalPcm(differential=differential)
        (point,) = swept(channel=channel, strategy="sign", cells=1, trials=1)
        assert channel.devices_per_cell == devices
        alone = point.totals.honest_cells / point.totals.original_weights
        bits = best_code(channel, codes_for(channel, point.decoding)[0]).bits_per_cell
        assert (point.honest_cost - alone) * point.totals.original_weights == pytest.approx(devices * 16 * 64 / bits)


def test_files_are_the_same_bytes_for_any_number_of_workers_and_threads(tmp_path):
    swept(out=tmp_path / "serial")
    swept(out=tmp_path / "one", engine=engines.build("local", workers=1, threads=3))
    swept(out=tmp_path / "two", engine=engines.build("local", workers=2))
    for name in ("trials.csv", "points.csv", "sweep.json"):
        files = {(tmp_path / folder / name).read_bytes() for folder in ("serial", "one", "two")}
        assert len(files) == 1


def test_rows_say_what_each_trial_is_without_correction(tmp_path):
    points = swept(out=tmp_path).points
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = [[float(row[name]) for row in rows] for name in ("value", "uncorrected")]
    assert values[0] == [value for point in points for value in point.evaluation.values]
    assert values[1] == [value for point in points for value in point.evaluation.uncorrected_values]
    assert {(row["correction_layers"], row["correction_numbers"]) for row in rows} == {("2", "64")}
    facts = json.loads((tmp_path / "sweep.json").read_text())
    assert (facts["correct"], facts["correct_samples"], len(facts["correct_sha256"][0])) == (None, [50], 64)


def test_a_sweep_goes_on_with_the_same_correction_only(tmp_path):
    swept(out=tmp_path / "a", trials=2)
    again = swept(out=tmp_path / "a", trials=4)
    whole = swept(out=tmp_path / "b", trials=4)
    assert (tmp_path / "a" / "trials.csv").read_bytes() == (tmp_path / "b" / "trials.csv").read_bytes()
    assert [point.row() for point in again] == [point.row() for point in whole]
    for other in (None, CALIBRATION[:20], "gain"):
        with pytest.raises(
            OutputError, match=r"correct\w* is .* the sweep (of|in)|holds a sweep with other samples that correct"
        ):
            swept(out=tmp_path / "a", correct=other)


@pytest.mark.parametrize(
    ("column", "word"), [("uncorrected", "1.5"), ("uncorrected_sqnr_db", "7000.0"), ("correction_numbers", "-1")]
)
def test_a_row_that_no_sweep_writes_is_refused(tmp_path, column, word):
    swept(out=tmp_path)
    with (tmp_path / "trials.csv").open() as file:
        row = next(csv.DictReader(file))
    words = ["trial", "value", "sqnr_db", "uncorrected", "uncorrected_sqnr_db"]
    assert words[:3] == list(VARYING)
    facts_of(row)
    trial_of([row[name] for name in words], share=True)
    changed = {**row, column: word}

    def taken():
        return facts_of(changed), trial_of([changed[name] for name in words], share=True)

    with pytest.raises(ValueError, match=column):
        taken()


def test_the_law_corrects_a_sweep_without_samples(tmp_path):
    points = swept(correct="gain", grid={"estimator": ["affine", "posterior"]}, out=tmp_path).points
    numbers = {point.setting.columns()["estimator"]: point.evaluation.correction for point in points}
    assert numbers == {"affine": (0, 0), "posterior": (2, 2)}
    facts = json.loads((tmp_path / "sweep.json").read_text())
    assert (facts["correct"], facts["correct_samples"]) == ("gain", [])
