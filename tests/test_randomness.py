import itertools
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx_ir as ir
import pytest
import scipy.stats
from hypothesis import given

from onnx_analog.channels import GaussianChannel, GaussianNoise, resolve
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.graph.reader import Reader
from onnx_analog.graph.stored import StoredTensor, stored_tensors
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import ProtectPass, ReadbackPass
from onnx_analog.randomness import BLOCK, blocks, stream
from onnx_analog.testing import assert_law, assert_uncorrelated
from tests.models import QUIET, f32, holding, same_bits

N = 20_000

# -------------------------------------------------------------------------------------------------- streams


def first(seed: int = 0, trial: int = 0, key: str = "w", **more: Any) -> tuple[int, ...]:
    """Return the first draws of a stream, as the generator's own bits, which no release of numpy changes."""
    return tuple(stream(seed, trial, key, **more).bit_generator.random_raw(4).tolist())


keys = st.tuples(
    st.integers(0, 2**64), st.integers(0, 10**6), st.text(max_size=12), st.text(max_size=6), st.integers(0, 2**40)
)


def of(key: tuple[Any, ...]) -> tuple[int, ...]:
    return first(*key[:3], plane=key[3], block=key[4])


@given(keys)
def test_the_same_key_gives_the_same_stream(key):
    assert of(key) == of(key)


@given(keys, keys)
def test_another_key_gives_another_stream(one, other):
    assert (of(one) == of(other)) == (one == other)


BASE = {"seed": 1, "trial": 2, "key": "conv1.weight", "plane": "level", "block": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 0},
        {"seed": -1},
        {"seed": 1 + 2**32},
        {"seed": 1 + 2**64},
        {"trial": 3},
        {"trial": 2 + 2**32},
        {"key": "conv2.weight"},
        {"key": "conv1.weight "},
        {"key": "Conv1.weight"},
        {"key": ""},
        {"plane": "header"},
        {"block": 0},
        {"block": 3 + 2**32},
    ],
)
def test_every_part_of_the_key_matters(change):
    assert first(**{**BASE, **change}) != first(**BASE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"key": "a", "plane": "b/c"}, {"key": "a/b", "plane": "c"}),
        ({"key": "ab", "plane": "c"}, {"key": "a", "plane": "bc"}),
        ({"key": 'a", "b', "plane": "c"}, {"key": "a", "plane": 'b", "c'}),
        ({"key": "a\\", "plane": "b"}, {"key": "a", "plane": "\\b"}),
        ({"seed": 1, "trial": 23}, {"seed": 12, "trial": 3}),
        ({"seed": 1, "trial": 2}, {"seed": 2, "trial": 1}),
        ({"trial": 1, "key": "1"}, {"trial": 11, "key": ""}),
        ({"plane": "a1", "block": 2}, {"plane": "a", "block": 12}),
        ({"key": "é"}, {"key": "e\u0301"}),  # letters that look alike
        ({"key": "é"}, {"key": "\\u00e9"}),  # and as JSON writes one
    ],
)
def test_keys_that_read_alike_are_told_apart(one, other):
    assert first(**one) != first(**other)


GOLDEN = {
    (0, 0, "w", "level", 0): (2194011753266534431, 16342950862697055690),
    (0, 1, "w", "level", 0): (12872070516910410282, 9007381973530493607),
    (7, 24, "y.then_branch/w", "level", 1): (6245802912263450031, 7400216241435456331),
    (2**40, 0, "größe", "header", 0): (11591998349739614860, 1151696859601292541),
}


def test_a_stream_begins_as_it_always_did():
    # If this fails, the scheme has changed: every result that was ever published with a seed has, too.
    assert {key: of(key)[:2] for key in GOLDEN} == GOLDEN


def test_numbers_of_numpy_are_numbers():
    assert first(np.int64(1), np.uint8(2), block=np.int32(3)) == first(1, 2, block=3)


def test_plane_and_block_have_defaults():
    assert first() == first(plane="level", block=0)


def test_a_stream_does_not_depend_on_those_drawn_before():
    alone = first(5)
    np.random.default_rng(0).random(7)
    stream(4, 0, "w").random(100)
    assert first(5) == alone


CHANGES: list[dict[str, Any]] = [
    {},
    {"seed": 2},
    {"trial": 3},
    {"key": "conv2.weight"},
    {"plane": "header"},
    {"block": 4},
]


def draws(change: dict[str, Any]) -> np.ndarray:
    named = {**BASE, **change}
    rng = stream(named["seed"], named["trial"], named["key"], plane=named["plane"], block=named["block"])
    return rng.standard_normal(N, dtype=np.float32)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_stream_is_normal(change):
    assert_law(draws(change), scipy.stats.norm.cdf)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(CHANGES, 2)), ids=str)
def test_streams_are_uncorrelated(one, other):
    assert_uncorrelated(draws(one), draws(other))
    assert_uncorrelated(draws(one) ** 2, draws(other) ** 2)
    assert_uncorrelated(draws(one)[1:], draws(other)[:-1])


def test_the_first_draws_of_many_streams_are_normal_and_independent():
    pairs = np.array([stream(0, trial, f"w{n}").standard_normal(2) for n in range(20) for trial in range(200)])
    assert_law(pairs, scipy.stats.norm.cdf)
    assert_uncorrelated(pairs[:, 0], pairs[:, 1])
    assert_uncorrelated(pairs[1:, 0], pairs[:-1, 0])  # of one trial and the next


# --------------------------------------------------------------------------------------------------- blocks


@given(st.integers(0, 20) | st.integers(0, 10**8), st.integers(-2, 2))
def test_blocks_cover_all_without_gap_or_overlap(count, near):
    for size in (count, max(0, count % 50 * BLOCK + near)):
        found = list(blocks(size))
        assert [0, *(block.stop for block in found)] == [*(block.start for block in found), size]
        assert all(block.start % BLOCK == 0 and block.step is None for block in found)
        assert all(0 < block.stop - block.start <= BLOCK for block in found)


def test_blocks_by_hand():
    assert BLOCK == 2**20
    assert list(blocks(0)) == []
    assert list(blocks(1)) == [slice(0, 1)]
    assert list(blocks(BLOCK)) == [slice(0, BLOCK)]
    assert list(blocks(BLOCK + 1)) == [slice(0, BLOCK), slice(BLOCK, BLOCK + 1)]


# ------------------------------------------------------------------------------------------------- reading

SAMPLED = Modifiers(residuals="empirical").apply(resolve("pcm"))  # no Gaussian channel: it draws in a way of its own


def protected(plain: ir.Model, *, channel: Any = QUIET, strategy: str = "redundancy", **options: Any) -> ir.Model:
    scheme = Scheme.paper(strategy, channel=channel, **options)
    ProtectPass(plan=Plan.of(scheme), selection=Selection(min_size=1))(plain)
    return plain


def large(size: int, channel: Any, *, cells: tuple[int, int] = (1, 4)) -> StoredTensor:
    """Return a tensor of `size` levels, which begin alike for all sizes, in two classes.

    The first four weights are the extremes of the classes, so that these do not depend on the others.
    """
    weight = f32(np.random.default_rng(0).uniform(0.002, 0.49, BLOCK + 1000))
    weight[:4] = 0.001, 0.3, 0.3002, 0.5
    weight[4:][(weight[4:] >= 0.3) & (weight[4:] <= 0.3002)] = 0.2
    small, big = cells
    found = protected(
        holding(w=weight[:size].reshape(1, -1)), channel=channel, cells_small=small, cells_large=big, threshold=0.3001
    )
    (tensor,) = stored_tensors(found)
    assert (tensor.count, tensor.class_counts.sum()) == (size, size)
    return tensor


@pytest.mark.parametrize("channel", [QUIET, SAMPLED], ids=["gaussian", "empirical"])
def test_each_block_is_read_from_its_own_stream(channel):
    tensor = large(BLOCK + 1000, channel)
    read = Reader(tensor).read(seed=5, trial=6)
    assert tensor.class_index is not None
    cells = np.array([1, 4])[tensor.class_index]
    for number, block in enumerate([slice(0, BLOCK), slice(BLOCK, BLOCK + 1000)]):
        rng = stream(5, 6, tensor.key, plane="level", block=number)
        expected = channel.read(tensor.level[block], cells=cells[block], rng=rng)
        assert same_bits([read[block]], [expected])


def test_a_larger_tensor_begins_with_the_same_reads():
    sizes = (BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 1000)
    reads = [Reader(large(size, QUIET)).read(seed=0, trial=0) for size in sizes]
    for read in reads[1:]:
        assert same_bits([read[: BLOCK - 1]], [reads[0]])
    assert same_bits([reads[2][BLOCK:]], [reads[3][BLOCK : BLOCK + 1]])


def test_the_second_block_is_no_copy_of_the_first():
    tensor = large(BLOCK + 1000, QUIET, cells=(1, 1))
    noise = (Reader(tensor).read(seed=0, trial=0) - tensor.level) / QUIET.sigma
    assert_uncorrelated(noise[BLOCK:], noise[:1000])
    assert_law(noise[BLOCK:], scipy.stats.norm.cdf)


@pytest.mark.parametrize("channel", [QUIET, SAMPLED], ids=["gaussian", "empirical"])
def test_reads_do_not_depend_on_the_order_of_reading(channel):
    rng = np.random.default_rng(0)
    found = protected(holding(**{name: f32(rng.normal(size=(8, 9))) for name in "abc"}), channel=channel)
    tensors = stored_tensors(found)
    wanted = list(itertools.product(range(3), range(3)))  # tensor and trial

    def read_in(order):
        readers = [Reader(tensor) for tensor in tensors]
        return {(place, trial): readers[place].read(seed=1, trial=trial).tobytes() for place, trial in order}

    once = read_in(wanted)
    assert len(set(once.values())) == len(wanted)
    assert read_in(reversed(wanted)) == once
    assert read_in(sorted(wanted, key=lambda pair: pair[::-1])) == once
    assert read_in([*wanted[4:], *wanted]) == once  # some of them twice


@pytest.mark.parametrize("names", ["abc", "cba", "b", "zbx"])
def test_reads_of_a_tensor_do_not_depend_on_its_neighbours(names):
    rng = np.random.default_rng(0)
    weights = {name: f32(rng.normal(size=(8, 9))) for name in "abcxz"}
    found = protected(holding(**{name: weights[name] for name in names}))
    read = {tensor.key: tensor.level for tensor in stored_tensors(ReadbackPass(seed=3, trial=4)(found).model)}
    (alone,) = stored_tensors(ReadbackPass(seed=3, trial=4)(protected(holding(b=weights["b"]))).model)
    assert same_bits([read["b"]], [alone.level])


def test_the_noise_of_different_tensors_and_trials_is_uncorrelated():
    weight = f32(np.linspace(-1, 1, 2500).reshape(50, 50))
    found = protected(holding(a=weight, b=weight), strategy="raw")
    noise = [
        Reader(tensor).read(seed=seed, trial=trial) - tensor.level
        for tensor, seed, trial in itertools.product(stored_tensors(found), (0, 1), (0, 1))
    ]
    assert len(noise) == 8
    for one, other in itertools.combinations(noise, 2):
        assert_uncorrelated(one, other)
    for each in noise:
        assert_law(each, scipy.stats.norm(scale=QUIET.sigma).cdf)


def test_the_channels_of_these_tests_are_of_both_kinds():
    assert isinstance(QUIET, GaussianNoise)
    assert not isinstance(SAMPLED, GaussianChannel)
