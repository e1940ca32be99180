from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.channels import Channel, GaussianChannel, GaussianNoise, Source, TableChannel
from onnx_analog.channels.base import add_noise
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.errors import ChannelError, LevelError
from onnx_analog.testing import assert_law, assert_mean, assert_std
from tests.models import U, f32, same_bits

N = 20_000
CELLS = [1, 3, 10, 1000]

# Up from -0.5 to 0.7 while σ grows from 0.05 to 0.15, then down to 0.1 while it shrinks to 0.05.
BENT = TableChannel(name="bent", inputs=(-1.0, 0.0, 1.0), means=(-0.5, 0.7, 0.1), stds=(0.05, 0.15, 0.05))
# Levels and σ(f(level)): the first two are reached on the way up alone, 0.4 at -0.25 (σ 0.125) and at 0.5 (σ 0.1).
BY_HAND = {-0.5: 0.05, -0.2: 0.075, 0.4: 0.1, 0.55: 0.125, 0.7: 0.15}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def at(channel: Channel, level: float, cells: Any = 1, count: int = N, seed: int = 0) -> np.ndarray:
    """Return `count` reads of `level`, which float32 may have put a hair outside the span."""
    held = clip_to_range(np.full(count, level, np.float32), channel.span)
    return channel.read(held, cells=cells, rng=rng(seed)).astype(np.float64)


def assert_phi(read: np.ndarray, level: float, std: float, cells: int) -> None:
    """Fail unless `read` are reads of φ: level + std·ξ/√cells."""
    assert_mean(read, level, systematic=4 * U)  # the level and the read are rounded to float32
    assert_std(read, std / np.sqrt(cells))
    assert_law(read, scipy.stats.norm(level, std / np.sqrt(cells)).cdf)


# ------------------------------------------------------------------------------------------------- the law of φ


@pytest.mark.parametrize("cells", CELLS)
@pytest.mark.parametrize("level", BY_HAND)
def test_phi_is_the_level_and_the_noise_of_its_input(level, cells):
    assert_phi(at(BENT, level, cells), level, BY_HAND[level], cells)


@pytest.mark.parametrize("cells", CELLS)
def test_phi_of_constant_noise(cells):
    assert_phi(at(GaussianNoise(sigma=0.3), 0.25, cells), 0.25, 0.3, cells)


@pytest.mark.parametrize("cells", CELLS)
@pytest.mark.parametrize("wrong", [0.9, 1.1])
def test_another_spread_is_rejected(cells, wrong):
    found = at(BENT, 0.4, cells)
    with pytest.raises(AssertionError, match="standard deviation"):
        assert_phi(found, 0.4, wrong * 0.1, cells)
    with pytest.raises(AssertionError, match="KS distance"):
        assert_law(found, scipy.stats.norm(0.4, wrong * 0.1 / np.sqrt(cells)).cdf)


@pytest.mark.parametrize("cells", CELLS)
@pytest.mark.parametrize("side", [-1, 1])
def test_another_mean_is_rejected(cells, side):
    found, off = at(BENT, 0.4, cells), side * 0.05 * 0.1 / np.sqrt(cells)  # 7 standard errors
    with pytest.raises(AssertionError, match="mean"):
        assert_phi(found, 0.4 + off, 0.1, cells)


@pytest.mark.parametrize(("cells", "wrong"), [(1, 2), (3, 2), (3, 9), (10, 9), (10, 11), (1000, 900), (1000, 1)])
def test_another_number_of_cells_is_rejected(cells, wrong):
    with pytest.raises(AssertionError, match="standard deviation"):
        assert_phi(at(BENT, 0.4, cells), 0.4, 0.1, wrong)


@pytest.mark.parametrize("cells", [3, 10])
def test_one_draw_is_distributed_as_the_average_of_so_many_reads(cells):
    source = rng(1)
    held = np.full(N, 0.4, np.float32)
    apart: Any = np.mean([BENT.read(held, cells=1, rng=source) for _ in range(cells)], axis=0, dtype=np.float64)
    assert_phi(apart, 0.4, 0.1, cells)
    assert scipy.stats.ks_2samp(at(BENT, 0.4, cells), apart).pvalue > 1e-4


@pytest.mark.parametrize("channel", [BENT, GaussianNoise(sigma=0.3)], ids=str)
def test_a_level_costs_one_draw_whatever_the_cells(channel):
    def state(draw):
        source = rng(5)
        draw(source)
        return source.bit_generator.state

    held = np.linspace(-0.5, 0.7, 101).astype(np.float32)[1:-1]
    counts = [*CELLS, np.arange(1, held.size + 1)]
    found = [state(lambda source, r=r: channel.read(held, cells=r, rng=source)) for r in counts]
    one_each = state(lambda source: source.standard_normal(held.size, dtype=np.float32))
    assert found == [one_each] * len(counts)
    assert state(lambda source: source.standard_normal(held.size + 1, dtype=np.float32)) != one_each


@pytest.mark.parametrize("cells", CELLS)
def test_the_noise_of_more_cells_is_the_same_noise_made_smaller(cells):
    held = np.full(1000, 0.4, np.float32)
    one, many = (BENT.read(held, cells=r, rng=rng()).astype(np.float64) - held for r in (1, cells))
    # Each scale, product and sum is rounded: 3 roundings of numbers below 1 on either side.
    np.testing.assert_allclose(many, one / np.sqrt(cells), rtol=0, atol=6 * U)


def test_each_level_has_its_own_cells():
    held = np.full(4 * N, 0.4, np.float32)
    found = BENT.read(held, cells=np.repeat(CELLS, N), rng=rng()).astype(np.float64)
    for part, cells in zip(np.split(found, 4), CELLS, strict=True):
        assert_phi(part, 0.4, 0.1, cells)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_cells_as_an_array_and_as_a_number_are_one(dtype):
    held = np.linspace(-0.4, 0.6, 50).astype(np.float32)
    number = BENT.read(held, cells=100, rng=rng())
    assert same_bits([BENT.read(held, cells=np.full(50, 100, dtype), rng=rng())], [number])


def test_reading_changes_no_argument_and_gives_float32():
    held, cells = np.linspace(-0.4, 0.6, 50).astype(np.float32), np.arange(1, 51)
    before = held.copy(), cells.copy()
    found = BENT.read(held, cells=cells, rng=rng())
    assert found.dtype == np.float32
    assert same_bits([held, cells], before)


# --------------------------------------------------------------------------------------- what cells have in common


@dataclass(frozen=True, kw_only=True)
class Sharing(GaussianChannel):
    """σ 0.5, of which 0.3 is what the cells of a weight share above a level of 0."""

    family: ClassVar[str] = "sharing"
    source: ClassVar[Source] = Source(citation="a test")
    span: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def std(self, level):
        self.check(level)
        return np.full(level.shape, 0.5)

    def shared_std(self, level):
        return np.where(level > 0, 0.3, 0.0)


@pytest.mark.parametrize("cells", CELLS)
def test_averaging_leaves_what_cells_share(cells):
    expected = np.sqrt(0.3**2 + (0.5**2 - 0.3**2) / cells)
    assert_phi(at(Sharing(), 0.5, cells), 0.5, expected, 1)
    assert_phi(at(Sharing(), -0.5, cells), -0.5, 0.5, cells)  # beside it, nothing is shared


@pytest.mark.parametrize("cells", [3, 10, 1000])
def test_a_shared_part_is_told_from_none(cells):
    with pytest.raises(AssertionError, match="standard deviation"):
        assert_phi(at(Sharing(), 0.5, cells), 0.5, 0.5, cells)


@given(
    stds=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1)), min_size=1, max_size=5),
    cells=st.integers(1, 10**6),
)
def test_the_scale_is_the_root_of_shared_and_averaged_variance(stds, cells):
    std, part = np.array(stds).T
    shared = std * part

    class Given(Sharing):
        def std(self, level):
            return std

        def shared_std(self, level):
            return shared

    found = Given().scale(np.zeros(std.size, np.float32), cells=cells)
    expected = np.sqrt(shared**2 + (std**2 - shared**2) / cells)
    assert found.dtype == np.float32
    # One rounding to float32, of which 2^-149 is the smallest step; those of float64 are 2^-29 times smaller.
    np.testing.assert_allclose(found, expected, rtol=2 * U, atol=2.0**-149)


def test_nothing_is_shared_unless_it_is_said():
    level = np.linspace(-0.5, 0.5, 6).reshape(2, 3)
    assert BENT.shared_std(level).tolist() == np.zeros((2, 3)).tolist()
    assert BENT.devices_per_cell == 1


# ------------------------------------------------------------------------------------------------ ends of the span


def just_outside(span: tuple[float, float]) -> list[np.float32]:
    """Return the float32 numbers next to the span, below and above."""
    ends = clip_to_range(f32([-9, 9]), span)
    return [np.nextafter(ends[0], np.float32(-np.inf)), np.nextafter(ends[1], np.float32(np.inf))]


@pytest.mark.parametrize("channel", [BENT, GaussianNoise(), GaussianNoise(low=-0.5, high=1.0)], ids=str)
def test_levels_just_outside_the_span_are_refused_and_its_ends_are_not(channel):
    middle = np.float32(np.mean(channel.span))
    assert channel.read(clip_to_range(f32([-9, 9]), channel.span), cells=1, rng=rng()).shape == (2,)
    for level in just_outside(channel.span):
        for method in (channel.std, channel.check, lambda held: channel.read(held, cells=1, rng=rng())):
            with pytest.raises(LevelError, match=r"but .* holds .*\. Protect the model for this channel"):
                method(f32([middle, level, middle]))


@pytest.mark.parametrize("level", [np.nan, np.inf, -np.inf])
def test_levels_that_are_no_numbers_are_refused(level):
    with pytest.raises(LevelError):
        BENT.read(f32([0.0, level]), cells=1, rng=rng())


def test_the_refusal_says_what_was_found_and_what_is_held():
    with pytest.raises(LevelError) as caught:
        BENT.read(f32([-0.6, 0.1, 0.8]), cells=1, rng=rng())
    assert str(caught.value) == (
        "levels run from -0.6 to 0.8, but bent holds -0.5 to 0.7. Protect the model for this channel"
    )
    assert isinstance(caught.value, ChannelError)


def test_refused_levels_draw_nothing():
    source, untouched = rng(), rng()
    with pytest.raises(LevelError):
        BENT.read(f32([0.8]), cells=1, rng=source)
    assert source.bit_generator.state == untouched.bit_generator.state


def test_no_levels_are_in_every_span():
    assert BENT.read(f32([]), cells=3, rng=rng()).shape == (0,)


@given(low=st.floats(-10, 10), width=st.floats(1e-3, 10), level=st.floats(-30, 30, width=32))
def test_inside_keeps_what_is_inside_and_moves_the_rest_to_the_last_number_that_is(low, width, level):
    (found,) = clip_to_range(f32([level]), (low, low + width))
    assert found.dtype == np.float32
    assert low <= float(found) <= low + width
    if low <= level <= low + width:
        assert float(found) == level
    else:
        beyond = float(np.nextafter(found, np.float32(level)))
        assert not low <= beyond <= low + width


# -------------------------------------------------------------------------------------------------------- plumbing


def test_noise_may_be_added_in_place():
    level, scale = np.linspace(0, 1, 9).astype(np.float32), np.linspace(1, 2, 9).astype(np.float32)
    out = np.full(9, np.nan, np.float32)
    assert add_noise(level, scale, rng(), out) is out
    assert same_bits([out], [add_noise(level, scale, rng())])
    draws = rng().standard_normal(9, dtype=np.float32)
    assert same_bits([out], [draws * scale + level])


def test_a_channel_as_a_dict_is_its_family_and_its_fields():
    found = LimitedPrecision(inner=BENT, read_bits=3).to_dict()
    assert (found["family"], found["write_bits"], found["read_bits"]) == ("precision", 0, 3)
    assert found["inner"]["family"] == "table"
    assert found["inner"]["means"] == [-0.5, 0.7, 0.1]
    assert found["inner"]["input_scale"] == {"low": -1.0, "high": 1.0, "unit": "", "log": False}


def test_a_source_prints_what_and_where():
    assert str(Source(citation="Ohm 1827", figure="page 3", licence="none", left_out="heat")) == "Ohm 1827; page 3"
    assert str(Source(citation="Ohm 1827")) == "Ohm 1827"


@pytest.mark.parametrize("missing", ["span", "source", "read"])
def test_a_channel_must_say_all_three(missing):
    body: dict[str, Any] = {name: None for name in ("span", "source", "read") if name != missing}
    with pytest.raises(TypeError, match=missing):
        type("Partial", (Channel,), body)()
