"""The allocation of cells: the best of what can be reached, compared with every choice there is."""

import itertools
import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog.coding.scheme import Scheme
from onnx_analog.tuning.allocation import Path, hull
from onnx_analog.tuning.candidates import Candidate

SCHEME = Scheme()
NUMBERS = st.integers(1, 30)
LISTS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5)


def listed(pairs):
    return [Candidate(scheme=SCHEME, cells=float(cells), error=float(error)) for cells, error in pairs]


@given(LISTS)
def test_the_hull_is_convex_and_below_every_candidate(pairs):
    corners = hull(listed(pairs), 1.0)
    cells, loss = zip(*((corner.candidate.cells, corner.loss) for corner in corners), strict=True)
    assert list(cells) == sorted(set(cells))
    assert list(loss) == sorted(set(loss), reverse=True)
    slopes = [(loss[i] - loss[i + 1]) / (cells[i + 1] - cells[i]) for i in range(len(cells) - 1)]
    assert slopes == sorted(slopes, reverse=True)
    for each, error in pairs:
        assert each >= cells[0]
        assert error >= np.interp(each, cells, loss) - 1e-9


@given(st.lists(LISTS, min_size=1, max_size=4), st.lists(st.integers(1, 9), min_size=4, max_size=4))
def test_no_choice_is_below_the_path(tensors, weights):
    """For each price, the allocation of the path has the least loss + price · cells of all choices."""
    hulls = {str(n): hull(listed(pairs), float(weights[n])) for n, pairs in enumerate(tensors)}
    allocations = Path(hulls)
    assert [each.cells for each in allocations] == sorted({each.cells for each in allocations})
    every = [
        (sum(cells for cells, _ in choice), sum(weights[n] * error for n, (_, error) in enumerate(choice)))
        for choice in itertools.product(*tensors)
    ]
    for price in (0.01, 0.3, 1.0, 7.0):
        best = min(loss + price * cells for cells, loss in every)
        assert min(each.loss + price * each.cells for each in allocations) == pytest.approx(best)
    assert allocations[-1].loss == pytest.approx(min(loss for _, loss in every))
    assert allocations[0].cells == min(cells for cells, _ in every)


def test_the_path_by_hand():
    allocations = Path({"a": hull(listed([(1, 9), (2, 4), (5, 1)]), 1.0), "b": hull(listed([(1, 3), (4, 1)]), 2.0)})
    assert [(each.cells, each.loss) for each in allocations] == [(2, 15), (3, 10), (6, 6), (9, 3)]
    assert allocations.cells.tolist() == [2, 3, 6, 9]
    assert allocations.losses.tolist() == [15, 10, 6, 3]
    assert [each.cells for each in allocations[1:3]] == [3, 6]
    assert allocations[-1].choices["b"].candidate.error == 1
    with pytest.raises(IndexError):
        allocations[4]


def test_a_path_of_a_thousand_tensors_takes_little_memory():
    """Each of 20,000 allocations names 1,000 tensors: all of them at once would take a gigabyte."""
    pairs = [(number + 1, 400 / (number + 1)) for number in range(20)]
    hulls = {f"w{n}": hull(listed(pairs), 1.0 + n / 1000) for n in range(1000)}
    tracemalloc.start()
    allocations = Path(hulls)
    some = [allocations[place] for place in range(0, len(allocations), 1000)]
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert len(allocations) > 10_000
    assert [each.cells for each in some] == pytest.approx(allocations.cells[::1000])
    for before, after in itertools.pairwise(some):
        changed = [before.choices[key].candidate.cells < after.choices[key].candidate.cells for key in hulls]
        assert before.loss > after.loss
        assert any(changed)
