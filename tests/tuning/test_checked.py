"""What `check` found, in words."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from onnx_analog.tuning.checked import Checked
from onnx_analog.tuning.gate import Decision

DECISION = Decision(
    holds=True, loss=0.002, at_least=0.001, at_most=0.004, samples=1000, trials=3, settled=False, needed=None
)
CHECKED = Checked(
    decision=DECISION, limit=0.005, confidence=0.95, max_trials=100, alike=False, metric="top1", output="y",
    original=0.9, against_original=True, channel="pcm", cells_per_weight=1.5, paper_cells_per_weight=0.9, seed=0,
)  # fmt: skip


def found(holds: bool | None, metric: str = "top1", alike: bool = False, **changes) -> Checked:
    return replace(CHECKED, metric=metric, alike=alike, decision=replace(DECISION, holds=holds, **changes))


SURE = "with 95 % confidence; 3 trials, 1,000 samples"
LOSS = "mean loss 0.20 points"
NOT_DECIDED = (
    f"not decided whether more than 0.5 points are lost ({LOSS}, lower bound 0.10, upper bound 0.40, each {SURE})"
)
ENOUGH = "would be enough, if they lose and vary as much"
ABOUT_1300 = "about 1,300 samples in 100 trials"


@pytest.mark.parametrize(
    ("checked", "line"),
    [
        (found(True), f"yes: at most 0.5 points are lost (mean loss 0.20 points, upper bound 0.40 {SURE})"),
        (found(False), f"no: more than 0.5 points are lost (mean loss 0.20 points, lower bound 0.10 {SURE})"),
        (
            found(True, "agreement"),
            f"yes: at most 0.5 % of the samples change their class (mean share 0.20 %, upper bound 0.40 {SURE})",
        ),
        (found(True, "sqnr_db"), f"yes: the SQNR is at least 23.0103 dB (SQNR 27.0 dB, lower bound 24.0 {SURE})"),
        (found(False, "sqnr_db"), f"no: the SQNR is below 23.0103 dB (SQNR 27.0 dB, upper bound 30.0 {SURE})"),
        (
            found(None),
            f"{NOT_DECIDED}: more trials may tell: raise max_trials above 100",
        ),
        (
            found(None, trials_needed=234),
            f"{NOT_DECIDED}: about 240 trials (max_trials=240) {ENOUGH}",
        ),
        (
            found(None, trials_needed=98),  # which these 100 have shown to be too few
            f"{NOT_DECIDED}: about 101 trials (max_trials=101) {ENOUGH}",
        ),
        (
            found(None, trials_needed=234, needed=1234),
            f"{NOT_DECIDED}: about 240 trials (max_trials=240), or {ABOUT_1300}, {ENOUGH}",
        ),
        (
            found(None, needed=1234),
            f"{NOT_DECIDED}: {ABOUT_1300} {ENOUGH}",
        ),
        (
            found(None, trials_needed=234, needed=900),  # which there are
            f"{NOT_DECIDED}: about 240 trials (max_trials=240) {ENOUGH}",
        ),
        (
            found(None, settled=True, needed=1234),
            f"{NOT_DECIDED}: more trials would not tell, and {ABOUT_1300} {ENOUGH}",
        ),
        (
            found(None, settled=True, alike=True, needed=1234),
            f"{NOT_DECIDED}: all trials read the same, and about 1,300 samples would be enough, if they lose as much",
        ),
        (
            found(None, settled=True, alike=True),
            f"{NOT_DECIDED}: all trials read the same: give more samples",
        ),
        (
            found(False, "sqnr_db", loss=math.inf, at_least=math.inf, at_most=math.inf),
            f"no: the SQNR is below 23.0103 dB (infinite noise, no upper bound {SURE})",
        ),
    ],
)
def test_the_answer_is_one_line(checked, line):
    assert str(checked) == line
    assert "\n" not in repr(checked)
    assert len(repr(checked)) < 300


@pytest.mark.parametrize("holds", [True, False, None])
def test_it_is_a_table_in_a_notebook_and_plain_json(holds):
    checked = found(holds)
    assert checked._repr_html_().startswith("<table>")
    body = json.loads(json.dumps(checked.to_dict(), allow_nan=False))
    assert body["holds"] is holds
    assert (body["points_lost"], body["at_least"], body["at_most"]) == pytest.approx((0.2, 0.1, 0.4))
    assert body["line"] == str(checked)


def test_what_is_infinite_is_null_in_json():
    body = found(False, "sqnr_db", loss=math.inf, at_least=math.inf, at_most=math.inf).to_dict()
    assert (body["sqnr_db"], body["at_least"], body["at_most"]) == (None, None, None)
    json.dumps(body, allow_nan=False)


def test_bounds_of_a_ratio_are_in_order():
    body = found(True, "sqnr_db").to_dict()
    assert body["at_least"] < body["sqnr_db"] < body["at_most"]
