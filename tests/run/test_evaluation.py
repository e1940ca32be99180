import importlib.metadata
import json
import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from onnx_analog.run.evaluation import Evaluation
from onnx_analog.run.statistics import interval


def evaluation(*values: float, **fields: Any) -> Evaluation:
    return Evaluation(**{"metric": "top1", "samples": 10, "stored": 0.9, "values": values, **fields})


def test_mean_standard_deviation_and_interval_by_hand():
    found = evaluation(1.0, 2.0, 3.0, metric="sqnr_db")
    assert (found.mean, found.std) == (2, 1)
    assert found.ci95 == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-6)


@hypothesis.given(st.lists(st.floats(-300, 300), min_size=1, max_size=9))
def test_the_ratio_of_the_mean_noise_is_no_higher_than_the_mean_of_the_ratios(ratios):
    found = evaluation(*[0.5] * len(ratios), sqnr_db=tuple(ratios)).sqnr_db_of_mean_noise
    assert found == pytest.approx(-10 * math.log10(math.fsum(10 ** (-x / 10) for x in ratios) / len(ratios)), abs=1e-9)
    assert min(ratios) - 1e-9 <= found <= math.fsum(ratios) / len(ratios) + 1e-9
    assert evaluation(*ratios, metric="sqnr_db").sqnr_db_of_mean_noise == found  # also where the outputs are integers


@pytest.mark.parametrize(
    ("ratios", "found"),
    [
        ((math.inf, math.inf), math.inf),
        ((math.inf, 20.0), 20 + 10 * math.log10(2)),
        ((-math.inf, 20.0), -math.inf),
        ((-6400.0, 6400.0), -6400 + 10 * math.log10(2)),
        ((20.0, math.nan), None),
        ((), None),
    ],
)
def test_the_ratio_of_the_mean_noise_where_there_is_none_or_no_bound_of_it(ratios, found):
    result = evaluation(*[0.5] * len(ratios), sqnr_db=ratios)
    assert result.sqnr_db_of_mean_noise == (found if found is None else pytest.approx(found))
    finite = found is not None and math.isfinite(found)
    assert (result.to_dict()["sqnr_db_of_mean_noise"] is not None) == finite


def test_drop_and_error_of_the_test_set_by_hand():
    found = evaluation(0.5, 0.6, 0.7, samples=100)
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert found.drop == pytest.approx(0.3)
    assert found.drop_ci95 == pytest.approx((0.3 - half, 0.3 + half), abs=1e-6)
    assert found.test_set_error == pytest.approx(math.sqrt(0.6 * 0.4 / 100))
    assert evaluation(samples=100).test_set_error == pytest.approx(math.sqrt(0.9 * 0.1 / 100))
    for other in (evaluation(stored=1.0), evaluation(0.5, metric="r2"), evaluation(stored=None)):
        assert other.test_set_error is None
    assert (evaluation().drop, evaluation(0.5, stored=None).drop, evaluation(0.5).drop_ci95) == (None, None, None)


@hypothesis.given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_interval_of_a_share_stays_inside_0_and_1(values):
    found = interval(values, bounds=(0, 1))
    whole = interval(values)
    assert (found is None) == (whole is None) == (len(set(values)) == 1)
    if found is not None and whole is not None:
        assert 0 <= found[0] <= found[1] <= 1
        assert found == (max(whole[0], 0), min(whole[1], 1))
    assert evaluation(*values).ci95 == found
    assert evaluation(*values, metric="sqnr_db").ci95 == whole
    for metric, low, high in (("mse", 0, math.inf), ("relative_error", 0, math.inf), ("r2", -math.inf, 1)):
        assert evaluation(*values, metric=metric).ci95 == interval(values, bounds=(low, high))


def test_trials_that_are_all_alike_tell_no_interval():
    found = evaluation(0.88, 0.88, 0.88)
    assert (found.mean, found.ci95, found.drop_ci95, found.to_dict()["ci95"]) == (pytest.approx(0.88), None, None, None)
    assert "3 trials, all scores equal: no interval" in str(found)
    assert interval([0.1] * 7) is None


@pytest.mark.parametrize("limit", [60, 60.0, 1e300])
def test_outputs_that_are_all_exact_have_an_infinite_ratio_and_hold(limit):
    found = evaluation(math.inf, math.inf, metric="sqnr_db", at_least=limit)
    assert (found.ci95, found.holds) == (None, True)
    assert math.isnan(found.std)


def test_a_limit_is_told_with_all_its_digits_and_that_of_a_share_in_per_cent():
    low = evaluation(50.0, 51.0, 52.0, metric="sqnr_db", at_least=60.0)
    assert low.verdict.endswith(", below 60")
    assert evaluation(0.5, at_least=0.97).verdict.endswith(" is 50 %, below 97 %")
    assert evaluation(0.5, at_least=0.99995).verdict.endswith(", below 99.995 %")
    assert evaluation(math.nan, at_least=0.0).verdict.endswith(" cannot be compared with 0 %")


def test_one_trial_has_no_spread_and_none_no_mean():
    assert (evaluation(0.5).mean, evaluation(0.5).std, evaluation(0.5).ci95) == (0.5, None, None)
    assert (evaluation().mean, evaluation().std, evaluation().ci95) == (None, None, None)


def test_json_has_the_promised_keys():
    found = evaluation(0.5, 0.75, original=0.95, sqnr_db=(20.0, 21.0), output="y", class_axis=1, at_least=0.7)
    assert json.loads(json.dumps(found.to_dict())) == {
        "metric": "top1",
        "output": "y",
        "class_axis": 1,
        "share": True,
        "higher_is_better": True,
        "samples": 10,
        "stored": 0.9,
        "trials": 2,
        "mean": 0.625,
        "std": math.sqrt(2 * 0.125**2),
        "ci95": [0.0, 1.0],  # 0.625 ± 12.7 · 0.125, cut off at 0 and 1
        "drop": 0.95 - 0.625,
        "drop_ci95": [0.95 - 1.0, 0.95],
        "test_set_error": math.sqrt(0.625 * 0.375 / 10),
        "values": [0.5, 0.75],
        "original": 0.95,
        "sqnr_db": [20.0, 21.0],
        "sqnr_db_of_mean_noise": pytest.approx(-10 * math.log10((10**-2 + 10**-2.1) / 2)),
        "seed": 0,
        "model": None,
        "channel": None,
        "read_back": None,
        "preprocessing": "",
        "version": importlib.metadata.version("onnx-analog"),
        "at_least": 0.7,
        "at_most": None,
        "holds": False,
        "verdict": "the lower end of the 95 % interval of top1 is 0 %, below 70 %",
        "warnings": [],
    }


def test_numbers_that_json_does_not_have_are_null():
    found = evaluation(math.inf, math.nan, stored=None, sqnr_db=(-math.inf, 1.0))
    body = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert body["values"] == [None, None]
    assert body["sqnr_db"] == [None, 1.0]
    assert [body[name] for name in ("stored", "mean", "std", "original")] == [None] * 4
    assert body["ci95"] in (None, [None, None])


def test_an_evaluation_prints_as_a_line():
    assert str(evaluation(0.5, 0.75, original=0.95, output="y", class_axis=1)) == (
        "top1 on 10 samples (output 'y', class axis 1): original 95.00 %, stored 90.00 %, with noise 62.50 % "
        "(95 % interval 0.00 to 100.00 %, 2 trials: too few)"
    )
    assert str(evaluation(0.5, samples=1)) == (
        "top1 on 1 sample: stored 90.00 %, with noise 50.00 % (1 trial: no interval)"
    )
    assert str(evaluation()) == "top1 on 10 samples: stored 90.00 %"


@pytest.mark.parametrize(
    ("fields", "holds", "said"),
    [
        ({"at_least": 0.9}, True, "top1 is at least 90 %"),
        ({"at_least": 0.95}, False, "top1 is 90 %, below 95 %"),
        ({"values": (0.5,), "at_least": 0.6}, False, "top1, mean of 1 trial, is 50 %, below 60 %"),
        ({"values": (0.5, 0.5), "at_least": 0.5}, True, "top1 is at least 50 %"),
        ({"values": (0.6, 0.61, 0.62), "at_least": 0.6}, False, "the lower end of the 95 % interval of top1 is 58.5"),
        ({"values": (0.6, 0.61, 0.62), "at_least": 0.5}, True, "top1 is at least 50 %"),
        ({"values": (1.0, 1.1, 1.2), "metric": "mse", "at_most": 1.2}, False, "the upper end of the 95 %"),
        ({"values": (1.0, 1.1, 1.2), "metric": "mse", "at_most": 2.0}, True, "mse is at most 2"),
        ({"values": (math.nan,), "at_least": 0.1}, False, "is not a number, so it cannot"),
        ({"values": (math.nan,), "metric": "mse", "at_most": 0.1}, False, "is not a number, so it cannot"),
        ({"metric": "agreement", "compares": True, "stored": 1.0, "at_least": 0.1}, False, "no value"),
        ({"stored": 0.5, "metric": "m", "at_least": 0.4, "at_most": 0.6}, True, "m is at least 0.4 and at most 0.6"),
    ],
)  # fmt: skip
def test_what_is_asked_is_checked(fields, holds, said):
    found = Evaluation(**{"metric": "top1", "samples": 10, "stored": 0.9, "values": (), **fields})
    assert found.holds is holds
    assert said in str(found.verdict)


def test_nothing_asked_nothing_checked():
    assert (evaluation(0.5).holds, evaluation(0.5).verdict) == (None, None)


def test_an_interval_that_is_no_number_is_null():
    found = Evaluation(metric="mine", samples=1, stored=1.0, values=(1.0, math.nan))
    assert found.to_dict()["ci95"] is None
    assert Evaluation(metric="mine", samples=1, stored=1.0, values=(1.0, 2.0)).to_dict()["ci95"] is not None
