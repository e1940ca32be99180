"""What is allowed of a decode, and that nothing beyond it is stored."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.channels.pcm import pcm
from onnx_analog.coding.fidelity import FEWEST, NEGLIGIBLE, RARE, TOLERANCE, Deviation, deviation, excess
from onnx_analog.coding.planes import decode, encode, fit, planes_of, split
from onnx_analog.coding.scheme import PRESETS, STRATEGIES, Preset, Scheme
from onnx_analog.demo import MODEL
from onnx_analog.graph import files
from onnx_analog.graph.weights import find
from onnx_analog.passes import PrunePass
from tests.coding.families import over, schemes
from tests.models import f32, of_strategy

SPAN = (-0.6, 0.65)  # about that of the channel pcm
STEPS = st.sampled_from([1e-30, 1e-10, 1e-7, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e9])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def paper(strategy: str = "redundancy", **settings: Any) -> Scheme:
    return Scheme.paper(**of_strategy(strategy, **settings), channel=over(SPAN))


def judged(weight: np.ndarray, scheme: Scheme) -> Deviation | None:
    """Return what `excess` makes of a tensor with classes of its own."""
    part = split(weight, scheme)
    fitted = fit([part], scheme)
    return excess(weight, lambda: planes_of(part, fitted, 0, scheme), fitted, 0, scheme)


def decoded_of(weight: np.ndarray, scheme: Scheme) -> np.ndarray:
    (stored,) = encode([weight], scheme)
    return decode(stored).reshape(weight.shape)


def by_hand(weight: np.ndarray, decoded: np.ndarray) -> bool:
    """Return whether the decode is as the module's documentation allows it: one weight and one slice at a time."""
    size, off = np.abs(weight.astype(np.float64)), np.abs(decoded.astype(np.float64) - weight.astype(np.float64))

    def middle(magnitudes: np.ndarray) -> float:
        stored = np.sort(magnitudes[magnitudes > 0])
        return float(stored[(stored.size - 1) // 2])

    stored = np.sort(size[size > 0])
    allowed = [TOLERANCE * middle(size), max(NEGLIGIBLE, TOLERANCE * stored[stored.size // RARE])]
    for place in np.argwhere(off > TOLERANCE * size):
        slices = [np.take(size, index, axis) for axis, index in enumerate(place) if size.shape[axis] > 1]
        limits = [max(NEGLIGIBLE, TOLERANCE * middle(s)) for s in slices if np.count_nonzero(s) >= FEWEST]
        if off[tuple(place)] > min(allowed + limits):
            return False
    return True


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray:
    """Draw tensors whose rows, columns or single weights are of very different magnitudes; some are 0."""
    shape = draw(st.sampled_from([(1, 40), (8, 9), (30, 4), (5, 4, 3), (2, 3, 3, 3)]))
    noise = rng(draw(st.integers(0, 99)))
    weight = noise.normal(size=shape) * draw(STEPS)
    for axis in range(len(shape)):
        if draw(st.booleans()):
            scale = noise.choice([1.0, draw(STEPS)], size=[n if a == axis else 1 for a, n in enumerate(shape)])
            weight = weight * scale
    weight = np.where(noise.random(shape) < draw(st.sampled_from([0.0, 0.02, 0.5])), weight * draw(STEPS), weight)
    weight = np.where(noise.random(shape) < draw(st.sampled_from([0.0, 0.5])), 0, weight)
    weight = np.where(np.abs(weight) < 1e-36, 0, weight)  # what cannot be scaled is refused before
    weight.flat[0] = 1.0
    return np.clip(weight, -3e37, 3e37).astype(draw(st.sampled_from([np.float32, np.float64])))


@st.composite
def paper_schemes(draw: st.DrawFn) -> Scheme:
    threshold = draw(st.sampled_from([None, None, 1e-3, 10.0]))
    large = draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    return paper(
        draw(st.sampled_from(list(STRATEGIES))), threshold=threshold, large_fraction=None if threshold else large
    )


@given(tensors(), paper_schemes())
def test_what_is_let_through_is_what_the_documentation_allows(weight, scheme):
    assert (judged(weight, scheme) is None) == by_hand(weight, decoded_of(weight, scheme))


@given(tensors(), schemes(granularity="tensor"))
def test_the_proof_lets_nothing_through_that_the_measurement_would_not(weight, scheme):
    """Weights without cells are as they were asked to be, and do not count."""
    (stored,) = encode([weight], scheme)
    index = stored.planes.class_index
    analog = np.zeros(weight.shape, bool)
    analog[weight != 0] = (np.array(scheme.cells_of_class) > 0)[0 if index is None else index]
    if judged(weight, scheme) is None:
        assert deviation(weight, decode(stored).reshape(weight.shape), ~analog).share <= 1


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_of_one_scale_pass(strategy, dtype):
    for scale in (1e-30, 1e-6, 1, 1e4, 1e30):
        with np.errstate(over="ignore"):
            weight = (rng().normal(size=(64, 32)) * scale).astype(dtype)
        if np.count_nonzero(weight) and np.isfinite(weight.astype(float)).all():
            assert judged(weight, paper(strategy)) is None


def spoiled(value: float) -> np.ndarray:
    weight = f32(rng().normal(size=(64, 32)) * 0.1)
    weight[5, 7] = value
    return weight


def banded() -> np.ndarray:
    """Return scores around 1 that are masked by -1e9 but near the diagonal: medians are all huge."""
    near = np.abs(np.subtract.outer(np.arange(64), np.arange(64))) <= 2
    return f32(np.where(near, rng().normal(size=(64, 64)), -1e9))


def folded(one: float, other: float, axis: int) -> np.ndarray:
    """Return a weight whose output channels are of two scales, as folding BatchNorm leaves them."""
    scale = np.where(np.arange(32) % 2, one, other).reshape([-1 if a == axis else 1 for a in range(4)])
    return f32(rng().normal(size=[32 if a == axis else s for a, s in enumerate((8, 8, 3, 3))]) * scale)


WIDE: dict[str, Any] = {
    "one of 1e10": spoiled(1e10),
    "one of 1e10 among the subnormal": spoiled(1e10) * np.float32(1e-40),
    "float32's lowest": spoiled(-1e38),
    "banded mask": banded(),
    "mostly masked": f32(np.where(np.tri(64, dtype=bool), -1e9, rng().normal(size=(64, 64)))),
    "output channels": folded(1e-6, 1e2, 0),
    "input channels": folded(1e-6, 1e2, 1),
    "few small channels": f32(rng().normal(size=(64, 64)) * np.where(np.arange(64) == 9, 1e-6, 1e2)[:, None]),
    "one small channel": f32(rng().normal(size=(200, 64)) * np.where(np.arange(200) == 9, 1e-4, 1e5)[:, None]),
    "one small channel, pruned": f32(rng().normal(size=(200, 64)) * np.where(np.arange(200) == 9, 1e-4, 1e5)[:, None])
    * (np.arange(64) % 3 > 0),
    "float64": spoiled(1.0).astype(np.float64) * 1e-3 + np.eye(64, 32) * 1e12,
}


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("strategy", ["raw", "sign"])
def test_weights_that_drown_are_found(name, strategy):
    found = judged(WIDE[name], paper(strategy))
    assert found is not None
    assert found.error > found.allowed
    assert not by_hand(WIDE[name], decoded_of(WIDE[name], paper(strategy)))


def test_two_values_are_stored_whatever_they_are():
    """Two classes of one value each, or one class at the ends of its interval, decode without loss."""
    weight = f32(np.where(rng().random((32, 32)) < 0.5, -1e9, 1e-3))
    assert judged(weight, paper("mapping", threshold=1.0)) is None
    assert judged(np.where(weight > 0, 0, weight), paper("sign")) is None


def test_few_huge_weights_have_a_class_of_their_own():
    weight = spoiled(1e10)
    assert judged(weight, paper(threshold=1.0)) is None
    assert judged(weight, paper(threshold=1e-3)) is not None


def test_dead_channels_are_no_reason():
    weight = f32(rng().normal(size=(64, 64)) * 0.1)
    weight[::4] *= np.float32(1e-12)
    assert judged(weight, paper("sign")) is None
    assert judged(weight * np.float32(1e3), paper("sign")) is not None  # off by more than is negligible


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0, -1.0])
def test_a_wrong_decode_is_rejected(wrong):
    weight = f32(rng().normal(size=(16, 16)))
    assert deviation(weight, weight).share == 0
    decoded = weight.copy()
    decoded[3, 4] = wrong
    decoded[3, :] = np.where(np.arange(16) == 4, wrong, weight[3, :])
    assert deviation(weight, decoded).share > 1
    assert not by_hand(weight, np.nan_to_num(decoded, nan=1e30, posinf=1e30))


def test_a_pruned_weight_that_is_read_as_another_is_rejected():
    weight = f32(rng().normal(size=(16, 16)))
    decoded = weight.copy()
    weight[3, 4] = 0
    assert deviation(weight, decoded).share > 1


def test_one_channel_that_is_lost_is_rejected():
    weight = f32(rng().normal(size=(64, 64)))
    weight[9] *= np.float32(1e-3)
    lost = weight.copy()
    lost[9] = 0
    found = deviation(weight, lost)
    assert found.share > 1
    assert found.allowed == pytest.approx(TOLERANCE * np.sort(np.abs(weight[9]))[31])


def test_classes_without_cells_are_no_reason():
    """They are off by as much as was asked for; the classes beside them still count."""
    for weight in (WIDE["one of 1e10"], WIDE["output channels"]):
        assert judged(weight, Scheme.int4()) is None
        assert judged(weight, Scheme(classes=16, partition="lloyd", cells=0)) is None
    bounds = {"classes": 2, "partition": "bounds", "bounds": (1e9,), "channel": over(SPAN)}
    assert judged(WIDE["one of 1e10"], Scheme(**bounds, cells=(1, 0))) is None
    wide = f32(
        np.where(rng(1).random((64, 32)) < 0.5, 1e12 * (1 + rng(2).random((64, 32))), rng().normal(size=(64, 32)))
    )
    assert judged(wide, Scheme(**bounds, cells=(1, 0))) is None
    assert judged(wide, Scheme(**{**bounds, "bounds": (1e20,)}, cells=(1, 0))) is not None


def shares(
    model: ir.Model, presets: Iterable[Preset] = PRESETS.values(), names: Iterable[str] = STRATEGIES
) -> list[float]:
    """Return what each tensor needs of what is allowed, with each strategy and preset."""
    needed = []
    for preset, strategy in product(presets, names):
        weights = [weight.array() for weight in find(model).weights]
        groups = [weights] if preset.granularity == "model" else [[weight] for weight in weights]
        scheme = Scheme.paper(
            **of_strategy(strategy, large_fraction=preset.large_fraction),
            granularity=preset.granularity,
            channel=pcm(),
        )
        for group in groups:
            for weight, stored in zip(group, encode(group, scheme), strict=True):
                needed.append(deviation(weight, decode(stored).reshape(weight.shape)).share)
    return needed


@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_the_packaged_network_needs_a_quarter_of_what_is_allowed(sparsity):
    model = files.load(MODEL)
    PrunePass(sparsity=sparsity)(model)
    assert max(shares(model)) <= 0.25
    assert max(shares(model, [PRESETS["default"]], ["redundancy"])) <= 0.06


def test_a_trained_residual_network_does_too(trained_model):
    assert max(shares(files.load(trained_model("resnet20-cifar10.onnx")))) <= 0.25
