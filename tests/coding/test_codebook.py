"""Codebooks as they are stored: the numbers of equal steps tell α and β again, whichever classes are empty."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog.coding.codebook import numbers_of, steps_of
from onnx_analog.coding.planes import encode
from onnx_analog.coding.scheme import Scheme


@st.composite
def schemes(draw):
    """Return a scheme of equal steps with cells in some classes or in all."""
    classes = draw(st.integers(2, 6))
    cells = draw(st.lists(st.integers(0, 2), min_size=classes, max_size=classes).filter(any))
    return Scheme(
        sign=draw(st.sampled_from(["level", "bit"])),
        classes=classes,
        partition="uniform",
        relative_step=draw(st.sampled_from([0.3, 1.0, 2.5])),
        cells=tuple(cells),
        channel="gaussian:low=-1,high=1",
    )


@given(schemes(), st.lists(st.floats(-4, 4, width=16), min_size=1, max_size=6))
def test_stored_numbers_tell_what_was_fitted(scheme, weights):
    """Of classes that hold a weight. The codebook is in float32: seven digits of the largest size."""
    weight = np.array(weights, np.float32)
    if not weight.any():
        return
    (stored,) = encode([weight], scheme)
    index, book = stored.planes.class_index, stored.codebook
    counts = np.bincount(index, minlength=scheme.classes)[None]
    numbers = numbers_of(book.alpha, book.beta, scheme, counts)
    assert numbers is not None
    filled = counts > 0
    for told, fitted in zip(steps_of(numbers, 1, scheme), (book.alpha, book.beta), strict=True):
        assert told[filled] == pytest.approx(fitted[filled], rel=1e-4, abs=1e-5)


def test_a_class_whose_scale_is_one_is_no_empty_class():
    scheme = Scheme(
        sign="level", classes=3, partition="uniform", relative_step=4.0, cells=(1,), channel="gaussian:low=-1,high=1"
    )
    (stored,) = encode([np.array([0.5, -0.5, 0.5, -0.5], np.float32)], scheme)
    assert (stored.codebook.alpha[0, 1], stored.codebook.beta[0, 1]) == (1, 0)
    numbers = numbers_of(stored.codebook.alpha, stored.codebook.beta, scheme, np.array([[0, 4, 0]]))
    assert numbers is not None
    alpha, beta = steps_of(numbers, 1, scheme)
    assert (alpha[0, 1], beta[0, 1]) == (1, 0)
    assert numbers[0] == 2


def test_a_small_output_channel_is_told_as_exactly_as_a_large_one():
    """The points of the small one are wrong by half a per cent, which is next to nothing beside the large one."""
    scheme = Scheme(sign="level", classes=3, partition="uniform", relative_step=1.0, cells=(0,), granularity="channel")
    beta = np.array([[-1e4, 0, 1e4], [-1, 0, 1]], np.float32)
    alpha, counts = np.ones((2, 3), np.float32), np.ones((2, 3), np.int64)
    assert numbers_of(alpha, beta, scheme, counts) is not None
    beta[1, 0] = -1.005
    assert numbers_of(alpha, beta, scheme, counts) is None
