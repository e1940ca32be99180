import importlib.util
import json

import numpy as np
import pytest

from onnx_analog import channels
from onnx_analog.channels import TableChannel
from onnx_analog.channels.pcm import _DATA, pcm, pcm_partial_reset
from tests.conftest import ROOT, data_folder, needed

PRINTED = 0.00055  # of three decimals, some of them rounded from four
POOLED = {  # input: mean, σ, as published beside the measurements: seven devices, pooled and not aligned
    -1.0: (0.648, 0.190),
    -0.8: (0.453, 0.226),
    -0.6: (0.152, 0.209),
    -0.4: (-0.062, 0.175),
    -0.2: (-0.241, 0.155),
    0.0: (-0.377, 0.142),
    0.2: (-0.423, 0.141),
    0.4: (-0.340, 0.154),
    0.6: (-0.234, 0.139),
    0.8: (-0.351, 0.189),
    1.0: (-0.606, 0.133),
}


def raw(name):
    folder = data_folder()
    return needed(folder and folder / "pcm" / name, f"the measurements {name}")


def columns(table: TableChannel) -> list[np.ndarray]:
    return [np.array(column) for column in (table.inputs, table.means, table.stds)]


# ------------------------------------------------------------------------------------------------- the 2014 array


def test_the_default_channel_is_the_pooled_array():
    assert channels.resolve(channels.DEFAULT) == pcm()
    assert (pcm().name, pcm().pairs, pcm().neighbours, pcm().cells_on) == ("pcm", 83_931, 1, "different")
    np.testing.assert_allclose(pcm().inputs, np.linspace(-1, 1, 101), rtol=0, atol=1e-12)


def test_span_and_noise_of_the_array():
    np.testing.assert_allclose(pcm().span, (-0.606, 0.648), rtol=0, atol=PRINTED)
    stds = columns(pcm())[2]
    np.testing.assert_allclose([stds.min(), stds.mean(), stds.max()], [0.133, 0.169, 0.228], rtol=0, atol=PRINTED)


@pytest.mark.parametrize("x", POOLED)
def test_rows_of_the_array(x):
    inputs, means, stds = columns(pcm())
    (row,) = np.flatnonzero(np.abs(inputs - x) < 1e-9)
    np.testing.assert_allclose((means[row], stds[row]), POOLED[x], rtol=0, atol=PRINTED)


def test_the_array_falls_rises_and_falls():
    _, means, _ = columns(pcm())
    assert np.argmax(means) == 0
    bottom = 57  # of the valley, at 0.14
    assert np.argmin(means[:80]) == bottom
    assert means[bottom] == pytest.approx(-0.427, abs=PRINTED)
    top = bottom + int(np.argmax(means[bottom:]))
    assert pcm().inputs[top] == pytest.approx(0.6, abs=0.02 + 1e-9)  # to one step of the inputs
    assert np.argmin(means) == 100


def test_three_quarters_of_the_variance_are_between_devices():
    share = np.square(pcm().between).sum() / np.square(pcm().stds).sum()
    assert share == pytest.approx(0.74, abs=0.005)
    assert (np.array(pcm().between) <= np.array(pcm().stds)).all()


def test_units_of_the_array():
    table = pcm()
    assert (table.input_scale.low, table.input_scale.high, table.input_scale.unit) == (0.7, 1.7, "input_volts")
    assert (table.output_scale.unit, table.output_scale.log) == ("resistance_ohm", True)
    volts = table.programmed(np.array(table.span))
    np.testing.assert_allclose(volts, [1.7, 0.7], rtol=1e-12)  # the extremes are at the ends


def test_the_array_says_where_it_comes_from_and_what_it_leaves_out():
    source = pcm().source
    assert "Zarcone" in source.citation
    assert "83,931 pairs of 7 devices" in source.figure
    assert "none" in source.licence
    assert "Drift is not modelled." in source.left_out
    assert "is not known" in (pcm.__doc__ or "")


def by_hand(path):
    """Return inputs, means and standard deviations of each voltage of the CSV file, on the scale of -1 to 1."""
    device, volts, ohm = np.loadtxt(path, delimiter=",", skiprows=1).T
    assert np.unique(device).size == 7
    outputs = 2 * (np.log10(ohm) - np.log10(ohm.min())) / np.log10(ohm.max() / ohm.min()) - 1
    distinct = np.unique(volts)
    parts = [outputs[volts == x] for x in distinct]
    return 2 * (distinct - 0.7) - 1, [np.mean(part) for part in parts], [np.std(part) for part in parts]


def test_the_shipped_table_is_what_the_measurements_give():
    for found, expected in zip(columns(pcm()), by_hand(raw("pcm_array_2014.csv")), strict=True):
        # Cumulative sums of 83,931 numbers round by 1e-11 at most, and variances of 0.02 or more are their difference.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_the_example_reduces_the_measurements_to_the_shipped_table(tmp_path):
    path = ROOT / "examples" / "reduce_pcm.py"
    spec = importlib.util.spec_from_file_location("reduce_pcm", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(raw("pcm_array_2014.csv")), str(tmp_path / "pcm.json")], standalone_mode=False)
    found, shipped = (json.loads((folder / "pcm.json").read_text("utf-8")) for folder in (tmp_path, _DATA))
    numeric = ("inputs", "means", "stds", "between")
    for name in numeric:  # log10 of another machine may differ in the last place
        np.testing.assert_allclose(found.pop(name), shipped.pop(name), rtol=0, atol=1e-9)
    # residuals are kept to four decimals, which may then fall to the other side
    np.testing.assert_allclose(found.pop("residuals"), shipped.pop("residuals"), rtol=0, atol=1.001e-4)
    assert found == shipped


# -------------------------------------------------------------------------------------------------- partial reset


def test_span_and_noise_of_partial_reset():
    table = pcm_partial_reset()
    assert channels.resolve("pcm-partial-reset") == table
    assert (table.name, table.pairs, len(table.inputs)) == ("pcm-partial-reset", 15_200, 40)
    np.testing.assert_allclose(table.span, (-0.530, 0.903), rtol=0, atol=PRINTED)
    stds = columns(table)[2]
    np.testing.assert_allclose([stds.min(), stds.mean(), stds.max()], [0.015, 0.049, 0.141], rtol=0, atol=PRINTED)


def test_partial_reset_rises_to_a_plateau_and_then_steeply():
    inputs, means, _ = columns(pcm_partial_reset())
    first = int(np.argmin(np.abs(inputs - -0.49)))
    assert means[0] == pytest.approx(-0.53, abs=0.005)
    assert means[first] == pytest.approx(-0.203, abs=PRINTED)
    plateau = means[(inputs > -0.35) & (inputs < 0.35)]
    np.testing.assert_allclose(plateau, -0.24, rtol=0, atol=0.03)
    steep = means[inputs > 0.44]
    assert (np.diff(steep) > 0).all()
    assert steep[-1] == means.max() == pytest.approx(0.903, abs=PRINTED)


def test_partial_reset_is_quieter_than_the_array():
    assert np.mean(pcm_partial_reset().stds) < np.mean(pcm().stds) / 3


def test_units_of_partial_reset():
    table = pcm_partial_reset()
    assert (table.input_scale.low, table.input_scale.high, table.input_scale.unit) == (1.0, 2.95, "input_volts")
    assert (table.output_scale.low, table.output_scale.high) == pytest.approx((10.6e3, 3.16e6), rel=0.005)
    assert (table.output_scale.unit, table.output_scale.log) == ("resistance_ohm", True)


def test_the_shipped_pairs_are_those_that_were_measured():
    assert (_DATA / "pcm_partial_reset.csv").read_bytes() == raw("pcm_partial_reset.csv").read_bytes()


def test_the_licence_of_partial_reset_is_shipped_with_it():
    licence = (_DATA / "LICENSE-partial-reset").read_text("utf-8")
    assert "rzarcone" in licence
    assert "Redistribution and use in source and binary forms" in licence
    assert "BSD-2-Clause" in pcm_partial_reset().source.licence
    assert "kurtosis" in pcm_partial_reset().source.left_out
