"""Draws weights and schemes of the whole family for the tests of this folder."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels import Channel, GaussianNoise, resolve
from onnx_analog.coding.partition import Bits
from onnx_analog.coding.planes import Encoded, of_each
from onnx_analog.coding.scheme import GRANULARITIES, PARTITIONS, SIGNS, STRATEGIES, Scheme
from tests.models import U

Span = tuple[float, float]

TINY, LARGEST = (float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max))
LEAST = 2.0**-149  # the smallest float32 number above zero
CLASSES = (1, 2, 3, 5, 16, 256)
SPANS = [(-0.65, 0.75), (-0.5, 0.5), (0.0, 1.0), (0.1, 0.3), (2.0, 50.0), (-3.0, -1.0), resolve("pcm").span]
# Exponents between which a type's numbers lie, with room for a sum.
EXPONENTS: dict[Any, tuple[int, int]] = {
    np.float16: (-24, 14),
    ml_dtypes.bfloat16: (-133, 125),
    np.float32: (-149, 125),
    np.float64: (-200, 127),
}
UNIT_NUMBERS = st.one_of(st.floats(-1, 1), st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -0.5]))


def over(span: Span) -> Channel:
    """Return a channel whose output range is `span`."""
    return GaussianNoise(sigma=0.1, low=span[0], high=span[1])


spans = st.sampled_from(SPANS) | st.tuples(st.floats(-2, 2), st.floats(0.01, 4)).map(lambda x: (x[0], x[0] + x[1]))


@st.composite
def weights(draw: st.DrawFn, most: int = 20) -> NDArray[Any]:
    """Return weights (n,) of any type and size, of one order of magnitude or of many."""
    dtype = draw(st.sampled_from(list(EXPONENTS)))
    exponent = st.integers(*EXPONENTS[dtype])
    numbers = np.array(draw(st.lists(UNIT_NUMBERS, min_size=1, max_size=most)))
    powers = draw(exponent | st.lists(exponent, min_size=numbers.size, max_size=numbers.size))
    with np.errstate(under="ignore"):
        drawn: NDArray[Any] = np.ldexp(numbers, powers).astype(dtype)
    return drawn


@st.composite
def ordinary(draw: st.DrawFn) -> NDArray[Any]:
    """Return weights (n,) of one order of magnitude, some of them equal and some 0."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size, dtype = draw(st.integers(1, 400)), draw(st.sampled_from([np.float16, np.float32, np.float64]))
    drawn = rng.normal(size=size) * 2.0 ** draw(st.integers(-6, 3))
    drawn = np.where(rng.random(size) < draw(st.sampled_from([0.0, 0.3])), drawn[0], drawn)
    return np.where(rng.random(size) < draw(st.sampled_from([0.0, 0.5])), 0, drawn).astype(dtype)


@st.composite
def schemes(draw: st.DrawFn, /, **fixed: Any) -> Scheme:
    """Return a scheme of the family; settings in `fixed` are as given."""
    settings: dict[str, Any] = {
        "sign": draw(st.sampled_from(SIGNS)),
        "classes": draw(st.sampled_from(CLASSES)),
        "partition": draw(st.sampled_from(PARTITIONS)),
        "granularity": draw(st.sampled_from(GRANULARITIES)),
        "channel": over(draw(spans)),
        **fixed,
    }
    edges, rng = settings["classes"] - 1, np.random.default_rng(draw(st.integers(0, 2**32)))
    shares = edges if settings["partition"] == "share" else 0
    settings.setdefault("shares", tuple(rng.dirichlet(np.full(shares + 1, 0.5))[1:].tolist()))
    if settings["partition"] == "bounds":
        bounds = np.cumsum(rng.uniform(0.01, 1, edges)) * 2.0 ** draw(st.integers(-20, 20))
        signed = settings["sign"] == "level" and edges
        settings.setdefault("bounds", tuple((bounds - bounds[edges // 2] if signed else bounds).tolist()))
    if settings["partition"] == "uniform" and edges:
        steps = st.integers(-20, 20).map(lambda power: 2.0**power)
        step = draw(st.none() | steps | steps.map(lambda step: {"relative_step": step}))
        if "step" not in settings:
            settings |= step if isinstance(step, dict) else {"step": step}
    settings.setdefault("cells", draw(cells(settings["classes"])))
    if settings["partition"] == "uniform" and edges and not any(np.atleast_1d(settings["cells"])):
        settings.setdefault("rate_weight", draw(st.sampled_from([0.0, 0.1, 2.0])))
    return Scheme(**settings)


def cells(classes: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Draw cells per weight: one number for all classes, or one for each, some of them 0."""
    alike = st.integers(0 if classes > 1 else 1, 9).map(lambda number: (number,))
    if classes == 1:
        return alike
    each = st.integers(0, 2**32).map(lambda seed: tuple(np.random.default_rng(seed).integers(0, 4, classes).tolist()))
    return alike | each


def papers(**fixed: Any) -> st.SearchStrategy[Scheme]:
    """Draw the paper's schemes, with a codebook for each tensor."""
    return st.builds(
        lambda strategy, cells_large, threshold, large, **settings: Scheme.paper(
            strategy,
            cells_large=cells_large if STRATEGIES[strategy].adaptive else None,
            threshold=threshold if STRATEGIES[strategy].classes == 2 else None,
            large_fraction=None if threshold or STRATEGIES[strategy].classes == 1 else large,
            **settings,
            **fixed,
        ),
        strategy=st.sampled_from(["raw", "sign", "mapping", "redundancy"]),
        cells_small=st.integers(1, 9),
        cells_large=st.integers(1, 9),
        threshold=st.none() | st.integers(-140, 120).map(lambda power: 2.0**power),
        large=st.floats(0, 1),
    )


def wide(weight: NDArray[Any]) -> NDArray[np.float64]:
    """Return `weight` as float64 (n,)."""
    return weight.astype(np.float64).ravel()


def of_weights(stored: Encoded, values: NDArray[np.float64], name: str = "alpha") -> NDArray[np.float64]:
    """Return α, or another column of the codebook, for each of `values` (n,); 1 where nothing is stored."""
    each = np.ones(values.size)
    column = np.asarray(getattr(stored.codebook, name), np.float64)
    each[values != 0] = of_each(column, stored.planes.class_index, stored.planes.group)
    return each


def bound(stored: Encoded, weight: NDArray[Any]) -> NDArray[np.float64]:
    """Return how far each weight that has cells may be off once decoded: u·(4·|w| + 5·S/α), as in `planes`.

    Added are the second order of u, and half the smallest float32 number, by which a float64 number may be off that
    lies between two of those.
    """
    size = np.abs(wide(weight))
    first = U * (4 * size + 5 * max(abs(end) for end in stored.scheme.channel.span) / of_weights(stored, size))
    return np.where(size == 0, 0.0, first * (1 + 8 * U) + LEAST / 2)


def has_cells(stored: Encoded, weight: NDArray[Any]) -> Bits:
    """Return which weights (n,) have cells; of those that are not stored, none."""
    analog = np.array(stored.scheme.cells_of_class) > 0
    index = stored.planes.class_index
    marks: Bits = weight.ravel() != 0
    marks[marks] = analog[0 if index is None else index]
    return marks
