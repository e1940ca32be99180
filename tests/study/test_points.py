import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.study.sweeps import paired
from tests.cli.test_report import point

shares = st.lists(st.integers(0, 10).map(lambda right: right / 10), min_size=4, max_size=4)


@given(shares, shares)
def test_differences_of_shares_change_their_sign_with_the_order(first, second):
    one, other = point(values=tuple(first)), point(values=tuple(second))
    assert one.evaluation.share
    (mean, ends), (back, turned) = paired(one, other), paired(other, one)
    assert back == pytest.approx(-mean)
    assert (ends is None) == (turned is None)
    if ends is not None and turned is not None:
        assert turned == pytest.approx((-ends[1], -ends[0]))
        assert -1 <= ends[0] <= mean <= ends[1] <= 1
