"""check_channel on every channel that is installed, and on what modifiers make of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnx_analog.channels import Channel, GaussianNoise, TableChannel, available, from_pairs, resolve
from onnx_analog.channels.empirical import EmpiricalChannel
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.residual import ResidualCells
from onnx_analog.channels.rram import RramMilo, RramWan
from onnx_analog.channels.statistical import FITS, StatisticalPcm
from onnx_analog.testing import check_channel

DRAWS = 3_000
DAY_S, YEAR_S = 86_400.0, 31_557_600.0
BIASED = {"biased": True}
DEPENDENT = {"independent": False}


def table(name: str = "pcm", **changes: Any) -> TableChannel:
    found = Modifiers(**changes).apply(resolve(name))
    assert isinstance(found, TableChannel)
    return found


def of_a_file(folder: Any) -> Channel:
    rng = np.random.default_rng(0)
    rows = [(x, 10 ** (x + 0.2 * rng.standard_normal())) for x in range(1, 32) for _ in range(20)]
    path = folder / "pairs.csv"
    path.write_text("v,ohm\n" + "".join(f"{x},{y!r}\n" for x, y in rows))
    return resolve(f"measured:csv={path},input=v,output=ohm,log=true,neighbours=3")


def two_branches() -> TableChannel:
    rng = np.random.default_rng(0)
    inputs = np.repeat(np.linspace(0, 1, 21), 40)
    up_and_down = np.sin(5 * inputs) + (0.05 + 0.2 * inputs) * rng.standard_normal(inputs.size)
    return from_pairs(inputs, up_and_down, devices=np.tile(np.arange(4), inputs.size // 4), neighbours=2)


# What each name gives, with options other than the defaults where it has some; and what it says of itself.
INSTALLED: dict[str, tuple[Callable[[Any], Channel], dict[str, bool]]] = {
    "empirical": (lambda _: EmpiricalChannel(table=two_branches()), {}),
    "gaussian": (lambda _: GaussianNoise(sigma=2.0, low=-10.0, high=-9.0), {}),
    "measured": (of_a_file, {}),
    "pcm": (lambda _: resolve("pcm"), {}),
    "pcm-drift": (lambda _: StatisticalPcm(fit="hermes", read_after_s=DAY_S), BIASED),
    "pcm-partial-reset": (lambda _: resolve("pcm-partial-reset"), {}),
    "precision": (lambda _: LimitedPrecision(inner=GaussianNoise(sigma=0.05), read_bits=3), BIASED),
    "residual": (
        lambda _: ResidualCells(inner=StatisticalPcm(fit="hermes", read_after_s=DAY_S), verify_reads=20),
        BIASED | DEPENDENT,
    ),
    "rram-milo": (lambda _: RramMilo(), {}),
    "rram-wan": (lambda _: RramWan(read_after_s=DAY_S), {}),
    "table": (lambda _: two_branches(), {}),
}


def test_every_channel_of_ours_is_checked():
    assert set(INSTALLED) == {name for name, entry in available().items() if entry.value.startswith("onnx_analog.")}


@pytest.mark.parametrize("name", INSTALLED)
def test_installed(name, tmp_path):
    make, how = INSTALLED[name]
    check_channel(make(tmp_path), **how, draws=DRAWS)


@pytest.mark.parametrize("cells", [2, 3, 16])
@pytest.mark.parametrize("channel", [table(), EmpiricalChannel(table=table("pcm-partial-reset"))], ids=str)
def test_any_number_of_cells(channel, cells):
    check_channel(channel, cells=cells, draws=DRAWS)


# ------------------------------------------------------------------------------------------------------- modified


@pytest.mark.parametrize("name", ["pcm", "pcm-partial-reset"])
def test_residuals_as_measured(name):
    check_channel(Modifiers(residuals="empirical").apply(resolve(name)), draws=DRAWS)


@pytest.mark.parametrize(
    "inner",
    [
        table(),
        table("pcm-partial-reset"),
        two_branches(),
        EmpiricalChannel(table=table("pcm-partial-reset")),
        GaussianNoise(sigma=0.05),
        GaussianNoise(sigma=0.05, low=-0.20981658328406483, high=0.7470452622414643),  # the 16th of 16 steps rounds up
        RramWan(),
    ],
    ids=lambda inner: f"{type(inner).__name__} {inner}",
)
@pytest.mark.parametrize(
    ("bits", "how"),
    [
        ({}, {}),
        ({"write_bits": 16}, {}),  # a step of 2^-16 of the inputs is far below the noise of 3,000 draws
        ({"write_bits": 1}, BIASED),
        ({"write_bits": 4}, BIASED),
        ({"read_bits": 1}, BIASED),
        ({"read_bits": 5}, BIASED),
        ({"read_bits": 16}, BIASED),  # the converter clips
        ({"write_bits": 3, "read_bits": 2}, BIASED),
        ({"write_bits": 16, "read_bits": 16}, BIASED),
    ],
    ids=str,
)
def test_limited_precision(inner, bits, how):
    check_channel(LimitedPrecision(inner=inner, **bits), **how, draws=DRAWS)


@pytest.mark.parametrize("inner", [table(cells_on="same"), Modifiers(cells_on="same").apply(two_branches())], ids=str)
@pytest.mark.parametrize("bits", [None, {}, {"write_bits": 6}, {"write_bits": 4, "read_bits": 4}], ids=str)
def test_cells_on_one_device(inner, bits):
    channel = inner if bits is None else LimitedPrecision(inner=inner, **bits)
    check_channel(channel, **DEPENDENT, biased=bool(bits), draws=DRAWS)


@pytest.mark.parametrize("differential", [False, True])
@pytest.mark.parametrize("time_s", [0.0, 1e-3, 1.0, DAY_S, YEAR_S])
@pytest.mark.parametrize("fit", FITS)
def test_drift(fit, time_s, differential):
    channel = StatisticalPcm(fit=fit, read_after_s=time_s, differential=differential)
    check_channel(channel, **BIASED, draws=DRAWS)


@pytest.mark.parametrize("differential", [False, True])
@pytest.mark.parametrize("time_s", [0.0, DAY_S])
def test_compensated_drift(time_s, differential):
    """One factor is taken from all cells that are read together, so the cells of all weights have it in common."""
    channel = StatisticalPcm(read_after_s=time_s, compensated=True, differential=differential)
    check_channel(channel, **BIASED, **DEPENDENT, draws=DRAWS)


@pytest.mark.parametrize("bits", [{"read_bits": 6}, {"write_bits": 4}, {"write_bits": 5, "read_bits": 5}], ids=str)
@pytest.mark.parametrize("differential", [False, True])
def test_drift_of_limited_precision(differential, bits):
    inner = StatisticalPcm(read_after_s=DAY_S, differential=differential)
    check_channel(LimitedPrecision(inner=inner, **bits), **BIASED, draws=DRAWS)


@pytest.mark.parametrize("time_s", [1.0, DAY_S, 2 * DAY_S])
def test_rram_at_its_times(time_s):
    check_channel(Modifiers(read_after_s=time_s).apply(RramWan()), draws=DRAWS)


# --------------------------------------------------------------------------------- what the arguments are needed for


@pytest.mark.parametrize(
    "channel",
    [
        StatisticalPcm(read_after_s=DAY_S),
        StatisticalPcm(read_after_s=DAY_S, differential=True),
        LimitedPrecision(inner=table(), write_bits=2),
        LimitedPrecision(inner=table(), read_bits=1),
        LimitedPrecision(inner=GaussianNoise(sigma=0.05), read_bits=2),
    ],
    ids=str,
)
def test_a_bias_must_be_said(channel):
    with pytest.raises(AssertionError, match="mean"):
        check_channel(channel, draws=DRAWS)


@pytest.mark.parametrize(
    ("channel", "how"),
    [
        (table(cells_on="same"), {}),
        (LimitedPrecision(inner=table(cells_on="same")), {}),
        (LimitedPrecision(inner=table(cells_on="same"), write_bits=4, read_bits=4), BIASED),
    ],
    ids=str,
)
def test_what_cells_share_must_be_said(channel, how):
    with pytest.raises(AssertionError, match="4 cells are not read as the average of 4 reads of one"):
        check_channel(channel, **how, draws=DRAWS)
