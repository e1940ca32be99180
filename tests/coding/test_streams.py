"""Digital streams, and the cells that they take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.channels import GaussianNoise
from onnx_analog.channels.statistical import StatisticalPcm
from onnx_analog.coding.codes import best_code, repeated
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import (
    DECODING,
    Payload,
    Stream,
    apportioned,
    code_of,
    hardest,
    honest_lines,
    honest_split,
    kernel_of,
)

QUIET, NOISY = (GaussianNoise(sigma=sigma, low=-1, high=1) for sigma in (0.1, 0.4))
SIGN, CLASS = Stream("sign", 5000, entropy_coded=False), Stream("class", 700, entropy_coded=True)


def test_a_pair_takes_twice_the_devices():
    single, pair = (
        honest_lines([Payload(Scheme(channel=StatisticalPcm(differential=flag)), 0, 0, (SIGN, CLASS))])
        for flag in (False, True)
    )
    for one, two in zip(single, pair, strict=True):
        code = code_of(Scheme(channel=StatisticalPcm(differential=True)), two.name, entropy_coded=False)
        assert two.cells == 2 * code.cells(two.bits)
        assert one.bits == two.bits


def test_bits_whose_errors_spread_are_repeated_where_there_is_no_code():
    scheme = Scheme(channel=NOISY, code="none")
    raw, safe = best_code(NOISY, "none"), repeated(NOISY, scheme.block_failure / scheme.block_bits)
    assert raw != safe
    for name in ("sign", "class"):
        assert code_of(scheme, name, entropy_coded=False) == raw
        assert code_of(scheme, name, entropy_coded=True) == safe
    for name in ("mask", "codebook"):
        assert code_of(scheme, name, entropy_coded=False) == safe


def test_streams_of_one_name_and_code_share_blocks():
    scheme = Scheme(channel=QUIET)
    code = best_code(QUIET, "bch")
    (line,) = honest_lines([Payload(scheme, 0, 0, (Stream("sign", 100, entropy_coded=False),))] * 3)
    assert line.cells == code.cells(300) < 3 * code.cells(100)


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [((8, 4, 3, 3), (3, 3)), ((8, 4, 5), (1, 5)), ((8, 4), None), ((8, 4, 1, 1), None), ((7,), None)],
)
def test_kernels_are_those_of_convolutions(shape, kernel):
    assert kernel_of(shape) == kernel


def test_the_hardest_part_decides():
    assert hardest([]) == "none"
    assert [hardest(DECODING[: n + 1]) for n in range(4)] == list(DECODING)


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**9), min_size=1, max_size=8))
def test_cells_are_shared_out_by_bits_to_the_last_one(cells, bits):
    parts, whole = apportioned(cells, bits), sum(bits)
    assert sum(parts) == (cells if whole else 0)
    for part, own in zip(parts, bits, strict=True):
        assert abs(part * whole - cells * own) < max(whole, 1)  # less than one cell from its share
        assert part == 0 or own


def test_the_cells_of_tensors_add_up_to_those_of_the_lines():
    pcm, quiet = (Scheme(channel=channel, code="bch") for channel in (StatisticalPcm(), QUIET))
    payloads = [Payload(pcm, 100, 0, (SIGN, CLASS)), Payload(quiet, 7, 0, (SIGN,)), Payload(pcm, 3, 0, (SIGN, CLASS))]
    split = honest_split(payloads)
    lines = honest_lines(payloads)
    for name in ("levels", "sign", "class"):
        assert sum(each.get(name, 0) for each in split) == sum(line.cells for line in lines if line.name == name)
    assert abs(split[0]["sign"] - split[2]["sign"]) <= 1  # as many bits in the same blocks
