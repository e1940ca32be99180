"""What is told of the progress of a search."""

import pytest

from onnx_analog import _tune
from onnx_analog.tuning.steps import _ENDS, _SHARES, Steps
from tests.models import model
from tests.run.nets import LINEAR, rows


def test_shares_are_of_the_whole():
    assert sum(_SHARES.values()) == pytest.approx(1)
    assert list(_ENDS.values()) == sorted(_ENDS.values())


def test_the_share_that_is_done_never_falls():
    told = []
    steps = Steps(lambda text, fraction=None, /: told.append(fraction))
    for step, part in (("inputs", 0.5), ("candidates", 0.0), ("inputs", 1.0), ("search", 7.0), ("verification", 1.0)):
        steps.tell(step, part, "")
    assert told == [pytest.approx(share) for share in (0.06, 0.18, 0.18, 0.8, 1.0)]


def test_a_search_tells_all_of_its_steps():
    told = []

    def show(text, fraction=None):
        told.append((text, fraction))

    _tune.tune(model(LINEAR), rows(400, labels=False), max_drop=20, trials=2, progress=show)
    shares = [fraction for _, fraction in told]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] > 0.8
    for words in ("inputs of weights", "sensitivity 2 of 2", "candidates of tensor 1 of 1", "trials at", "that verify"):
        assert any(words in text for text, _ in told), words
