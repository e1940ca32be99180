"""What is told of the progress of a search."""

import pytest

from onnx_analog import _tune
from onnx_analog.tuning.steps import _BESIDE, KEPT, Steps
from tests.models import model
from tests.run.nets import LINEAR, rows


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self):
        return self.now


class Told:
    """Steps, and what they told of a search: the time that had passed, the share and the seconds left."""

    def __init__(self):
        self.clock, self.rows = Clock(), []
        self.steps = Steps(self.show, self.clock)

    def show(self, _text, fraction=None, left=None, /):
        self.rows.append((self.clock.now - Clock.now, fraction, left))

    def do(self, step, kind, units, seconds):
        with self.steps.work(step, kind, units, ""):
            self.clock.now += seconds
        self.steps.tell("")

    def at(self, seconds):
        """Return the seconds that were said to be left at a time."""
        return [left for passed, _, left in self.rows if passed <= seconds][-1]


def simulated(*, original=0.01, look=2.0, looks=5):
    """Return what is told of a search whose looks take so many times the original, and are so many where 5 are said."""
    told = Told()
    told.steps.expect("original", "original", 2000)
    told.steps.expect("looks", "look", 5 * 1000)
    told.steps.expect("candidates", "candidates", 1e6)
    told.do("original", "original", 1000, 1000 * original)
    for _ in range(10):
        told.do("candidates", "candidates", 1e5, 1.0)
    told.do("original", "original", 1000, 1000 * original)
    for _ in range(looks):
        told.do("looks", "look", 1000, 1000 * original * look)
    told.steps.end("looks")
    told.steps.tell("")
    return told


@pytest.mark.parametrize("original", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("look", [0.75, 1.5, 3.0])
def test_the_time_left_is_right_from_the_first_unit_of_each_kind_on(original, look):
    """Until then, it is wrong by as much as a unit needs that takes `look` times a sample."""
    told = simulated(original=original, look=look)
    total = told.clock.now - Clock.now
    wrong = abs(_BESIDE["look"] - look) * original * 5000
    seen = 1000 * original + 1.0  # when the first candidates are done
    first_look = 2000 * original + 10 + 1000 * original * look
    for passed, _, left in told.rows:
        if passed >= seen:
            assert left == pytest.approx(total - passed, abs=1e-6 if passed >= first_look else wrong + 1e-6)
    assert told.rows[-1][1:] == (1.0, 0.0)


def test_looks_that_are_more_than_expected_make_the_share_wait_and_never_fall():
    told = simulated(looks=8)
    shares = [share for _, share, _ in told.rows if share is not None]
    assert shares == sorted(shares)
    assert max(shares) == shares[-1] == 1.0


def test_fewer_looks_than_expected_are_not_waited_for():
    told = simulated(looks=2)
    assert told.at(1e9) == 0.0
    assert told.at(20 + 10 + 20 * 2 - 1) == pytest.approx(4 * 20)  # before the second: four were expected


def test_what_is_known_already_takes_no_time_and_says_nothing_of_the_pace():
    told = Told()
    told.steps.expect("looks", "look", 10)
    tell = told.steps.counter("looks", "look", [1.0] * 10, str)
    tell(6)
    told.clock.now += 3.0
    tell(7)
    assert told.rows[-1][2] == pytest.approx(3 * 3.0)
    told.clock.now += 1.0
    tell(9)  # two are done at once
    assert told.rows[-1][2] == pytest.approx((KEPT * 3.0 + 1.0) / (KEPT * 1.0 + 2))


def test_the_pace_follows_a_machine_that_becomes_faster():
    told = Told()
    told.steps.expect("looks", "look", 20)
    for seconds in [9.0] * 5 + [1.0] * 10:
        told.do("looks", "look", 1, seconds)
    assert told.rows[-1][2] == pytest.approx(5.0, rel=8 * KEPT**10)


def test_nothing_is_said_of_the_time_before_a_run_of_the_network_was_measured():
    """As opening a model tells nothing of that, and inputs take many times as much."""
    told = Told()
    told.steps.expect("looks", "look", 10)
    told.do("opening", "opening", 128, 50.0)
    told.do("inputs", "inputs", 10, 50.0)
    assert {row[1:] for row in told.rows} == {(None, None)}
    told.do("sensitivities", "sensitivity", 10, 20.0)
    assert told.rows[-1][2] == pytest.approx(10 * 2.0 * _BESIDE["look"])


def test_work_that_nobody_expected_is_counted_in_its_pace_alone():
    told = Told()
    told.steps.expect("looks", "trial", 10)
    told.do("comparison", "trial", 5, 10.0)
    assert told.steps.left == pytest.approx(20.0)
    told.steps.end("looks", "no such step")
    assert told.steps.left == 0


def test_a_search_tells_all_of_its_steps():
    told = []

    def show(text, fraction=None, left=None):
        told.append((text, fraction, left))

    _tune.tune(model(LINEAR), rows(400, labels=False), max_drop=20, trials=2, progress=show)
    shares = [fraction for _, fraction, _ in told if fraction is not None]
    assert shares == sorted(shares)
    assert shares[-1] > 0.8
    assert all((left is None) == (fraction is None) for _, fraction, left in told)
    assert all(left >= 0 for _, _, left in told if left is not None)
    expected = (
        "the original, 40 samples", "inputs of weights", "sensitivity 2 of 2", "candidates of tensor 1 of 1",
        "trials at", "that verify",
    )  # fmt: skip
    for words in expected:
        assert any(words in text for text, _, _ in told), words
