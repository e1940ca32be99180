from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from onnx_analog.channels import from_pairs
from onnx_analog.channels.fitting import choose_neighbours, fit, goodness
from onnx_analog.errors import ChannelError, MeasurementError
from tests.conftest import data_folder, needed

PAGE = (Path(__file__).parents[2] / "docs" / "own_measurements.md").read_text(encoding="utf-8")


def write(path, columns):
    header = ",".join(columns)
    np.savetxt(path, np.column_stack(list(columns.values())), delimiter=",", header=header, comments="", fmt="%s")
    return path


def pairs(reads, inputs=41, sigma=0.1, seed=0):
    rng = np.random.default_rng(seed)
    x = np.repeat(np.linspace(-1, 1, inputs), reads)
    return x, np.clip(0.8 * x + sigma * rng.standard_normal(x.size), -1, 1)


def test_few_reads_need_more_neighbours_than_many():
    few, many = (choose_neighbours(*pairs(reads)).neighbours for reads in (2, 400))
    assert few > many


def test_one_read_an_input_cannot_do_with_one_neighbour():
    found = choose_neighbours(*pairs(1, inputs=200))
    assert found.scores[1] == np.inf
    assert found.neighbours > 1


def test_score_is_the_likelihood_of_held_out_reads():
    x, y = pairs(2000, inputs=11, sigma=0.05)
    entropy = 0.5 * np.log(2 * np.pi * np.e * 0.05**2)  # of the true law; nothing can do better but by chance
    # the mean of n squared standard normals has standard error √(2/n); a fit of 1,600 reads costs 1/1600 more
    assert choose_neighbours(x, y).scores[1] == pytest.approx(entropy, abs=4 * np.sqrt(2 / x.size) / 2 + 1 / 1600)


def test_choice_does_not_depend_on_the_order_of_rows():
    x, y = pairs(5)
    order = np.random.default_rng(1).permutation(x.size)
    assert choose_neighbours(x, y) == choose_neighbours(x[order], y[order])


def test_normal_reads_are_not_rejected():
    x, y = pairs(300, sigma=0.05)
    found = goodness(x, y)
    assert found.rejected == 0
    assert found.warning(str) is None


def test_reads_of_two_points_are_rejected_everywhere():
    x, _ = pairs(300)
    found = goodness(x, np.tile([0.2, -0.2], x.size // 2))
    assert found.rejected == 1
    np.testing.assert_allclose(found.excess_kurtosis, -2, atol=1e-12)  # of two equally likely points
    assert found.warning(str) is not None
    assert "not normal at 41 of 41 inputs (worst" in found.warning(str)


def test_tails_that_the_distance_does_not_see_are_rejected_too():
    reads = scipy.stats.norm.ppf((np.arange(400) + 0.5) / 400)
    assert not goodness(np.zeros(400), reads).rejects
    reads[[0, 1, -2, -1]] *= 2
    found = goodness(np.zeros(400), reads)
    assert found.rejects
    assert found.p > 0.9


def test_few_reads_have_no_test_of_moments():
    few, enough = (goodness(np.zeros(count), np.random.default_rng(0).normal(size=count)) for count in (19, 20))
    assert few.moments_p == 1
    assert 0 < enough.moments_p < 1


def test_a_fit_tells_each_level_in_the_device_s_own_unit(tmp_path):
    x, y = pairs(300, inputs=11, sigma=0.05)
    found = fit(write(tmp_path / "pairs.csv", {"volts": 2 + x, "amps": 5 * y}), input="volts", output="amps")
    rows = found.levels()
    np.testing.assert_allclose([row["input"] for row in rows], np.linspace(1, 3, 11))
    np.testing.assert_allclose([row["mean"] for row in rows], found.channel.means)
    np.testing.assert_allclose([row["std"] for row in rows], found.channel.stds)
    assert set(found.to_dict()) >= {"pairs", "neighbours", "span", "rejected", "levels"}


def test_partial_reset_is_rejected_where_it_is_known_to_be_far_from_normal():
    folder = data_folder()
    path = needed(folder and folder / "pcm" / "pcm_partial_reset.csv", "the partial-reset measurements")
    found = fit(path, input="input_volts", output="resistance_ohm", log=True)
    assert found.goodness.excess_kurtosis.max() == pytest.approx(43, abs=0.5)
    assert found.goodness.skew.min() == pytest.approx(-4.4, abs=0.05)
    assert found.goodness.rejects.sum() == 29  # docs/own_measurements.md says so
    assert f"σ is a factor: {found.levels()[0]['output_spread']:.4g}, at {found.levels()[0]['input']:g} V" in PAGE


def test_variance_between_devices_of_the_array():
    folder = data_folder()
    path = needed(folder and folder / "pcm" / "pcm_array_2014.csv", "the 2014 PCM array")
    found = fit(path, input="input_volts", output="resistance_ohm", log=True, group="device", neighbours=1)
    assert found.between_share == pytest.approx(0.74, abs=0.005)


def test_devices_that_differ_by_known_offsets(tmp_path):
    rng = np.random.default_rng(0)
    device = np.tile(["a", "b"], 11 * 500)
    x = np.repeat(np.linspace(0, 1, 11), 1000)
    y = x + np.where(device == "a", 0.3, -0.3) + 0.1 * rng.standard_normal(x.size)
    path = write(tmp_path / "two.csv", {"v": x, "r": y, "who": device})
    found = fit(path, input="v", output="r", group="who", neighbours=1)
    scale = 2 / (y.max() - y.min())
    # Means of 500 reads have a standard error of 0.1/√500, and a difference of squares of them twice that at most.
    np.testing.assert_allclose(found.channel.between, 0.3 * scale, rtol=5 * 0.1 / np.sqrt(500) / 0.3)
    assert found.between_share == pytest.approx(0.09 / 0.10, abs=0.01)


def test_the_table_is_that_of_from_pairs(tmp_path):
    x, y = pairs(20)
    path = write(tmp_path / "line.csv", {"v": x, "r": y})
    found = fit(path, input="v", output="r", neighbours=3)
    assert found.choice is None
    expected = from_pairs(x, y, neighbours=3, name="line", units=("v", "r"), source=found.channel.source)
    assert found.channel == expected


def test_very_many_distinct_inputs_make_a_table_of_1024():
    rng = np.random.default_rng(0)
    x = rng.random(5000)
    channel = from_pairs(x, x + 0.01 * rng.standard_normal(5000), neighbours=200)
    assert len(channel.inputs) == 1024
    truth = channel.output_scale.apply(channel.input_scale.undo(np.array(channel.inputs)))
    # 200 neighbours of 5,000 are 4 % of a range of 2; at an end they are all on one side, so off by half of it, give or
    # take how evenly 200 of 5,000 random inputs lie (a standard error of √200/5000), and the reads' own noise.
    reach = 0.04 + 5 * (2 * np.sqrt(200) / 5000 + 0.02 / np.sqrt(200))
    assert np.abs(np.array(channel.means) - truth).max() < reach


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v,r\n1,2\n2,3\n", "shows no spread"),
        ("v,r\n1,2\n", "'v' holds fewer than two distinct values"),
        ("v,r\n", "has no rows"),
        ("", "names no columns: it needs a header line, and rows of numbers below it"),
        ("a,r\n1,2\n2,3\n", "has no column 'v'; its columns are a, r"),
        ("v,r\n1,x\n2,3\n", "line 2: column 'r' holds 'x', which is not a finite number"),
        ("v,r\n1,nan\n2,3\n", "line 2: column 'r' holds 'nan'"),
        ("v,r\n1,2\n1,3\n", "'v' holds fewer than two distinct values"),
        ("v,r\n1\n2,3\n", "line 2 has 1 value, and the header names 2 columns"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ChannelError, match=message) as caught:
        fit(path, input="v", output="r")
    assert "\n" not in str(caught.value)


def test_a_negative_resistance_has_no_logarithm(tmp_path):
    path = write(tmp_path / "negative.csv", {"v": [1, 2, 3], "r": [5, -3, 4]})
    with pytest.raises(ChannelError, match="line 3: column 'r' holds -3, which has no logarithm"):
        fit(path, input="v", output="r", log=True)


def test_comments_quotes_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "odd.csv"
    path.write_text('\ufeff# measured in spring\n"v", r ,note\n1,2,"a, b"\n# a pause\n1,4,c\n2,5,d\n2,9,e\n')
    found = fit(path, input="v", output="r", neighbours=1)
    assert found.channel.pairs == 4
    assert (found.channel.input_scale.low, found.channel.output_scale.high) == (1, 9)


def test_a_column_is_not_its_own_input(tmp_path):
    x, y = pairs(10)
    path = write(tmp_path / "pairs.csv", {"v": x, "r": y})
    with pytest.raises(ChannelError, match="both column 'v'"):
        fit(path, input="v", output="v")


@pytest.mark.parametrize(("devices", "reads"), [(50, 2), (10, 10)])
def test_devices_that_do_not_differ_share_little(tmp_path, devices, reads):
    """The share is a difference of two estimates of one variance, clipped at 0 at each input: small, not half."""
    rng = np.random.default_rng(0)
    device, x = np.tile(np.repeat(np.arange(devices), reads), 21), np.repeat(np.linspace(0, 1, 21), devices * reads)
    path = write(tmp_path / "pairs.csv", {"d": device, "v": x, "r": x + 0.1 * rng.standard_normal(x.size)})
    found = fit(path, input="v", output="r", group="d", neighbours=1)
    assert found.between_share is not None
    assert found.between_share < 2 * np.sqrt(2 / (devices * (reads - 1)))  # relative error of a variance


def test_devices_that_were_read_once_are_not_told_apart(tmp_path):
    x = np.repeat(np.linspace(0, 1, 5), 9)
    columns = {"d": np.tile(np.arange(9), 5), "v": x, "r": x + 0.1 * np.sin(37 * np.arange(45))}
    path = write(tmp_path / "pairs.csv", columns)
    with pytest.raises(ChannelError, match="each device was read once at each input"):
        fit(path, input="v", output="r", group="d", neighbours=1)


def test_inputs_that_never_repeat_are_judged_with_their_neighbours(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.random(4000)
    columns = {"v": x, "r": x + 0.1 * (rng.exponential(size=4000) - 1)}
    found = fit(write(tmp_path / "pairs.csv", columns), input="v", output="r", neighbours=101)
    assert found.goodness.skew.mean() > 1
    (warning, *_) = found.warnings
    assert "not normal" in warning


def test_too_few_reads_to_judge_are_said_to_be():
    x = np.repeat(np.linspace(0, 1, 5), 3)
    assert "too few to test" in str(goodness(x, x + 0.1 * np.sin(np.arange(15))).warning(str))


def test_neighbours_are_taken_evenly_on_both_sides(tmp_path):
    """Every k that is tried is odd, so the mean of a straight line is that line, away from its ends."""
    x, y = pairs(4, inputs=61, sigma=0.2)
    choice = choose_neighbours(x, y)
    assert all(k % 2 for k in choice.scores)


def test_columns_that_are_named_twice_or_parted_otherwise_are_refused(tmp_path):
    for text, message in (("v,r,r\n1,2,3\n", "more than one column 'r'"), ("v;r\n1;2\n", "Part columns by commas")):
        (tmp_path / "pairs.csv").write_text(text)
        with pytest.raises(ChannelError, match=message):
            fit(tmp_path / "pairs.csv", input="v", output="r")


def test_a_device_without_a_name_is_refused(tmp_path):
    (tmp_path / "pairs.csv").write_text("d,v,r\na,1,2\n,1,3\na,2,4\n")
    with pytest.raises(ChannelError, match="line 3: column 'd' is empty"):
        fit(tmp_path / "pairs.csv", input="v", output="r", group="d")


# ---------------------------------------------------------------------------------- missing values, and outliers


def _with_gaps(path, gaps=()):
    rng = np.random.default_rng(5)
    rows = [f"{v},{1000 + 100 * v + rng.normal()},d{n % 3}" for v in range(5) for n in range(40)]
    for number, text in gaps:
        rows[number] = text
    path.write_text("\n".join(["volts,ohms,device", *rows]), encoding="utf-8")
    return path


@pytest.mark.parametrize("gap", ["1,,d0", ",1000,d0", "1,NaN,d0", "1,1000,"])
def test_a_row_without_a_value_is_refused_with_a_way_on(tmp_path, gap):
    path = _with_gaps(tmp_path / "p.csv", [(7, gap)])
    with pytest.raises(MeasurementError, match=r"line 9: column .* With skip_missing, such rows are left out"):
        fit(path, input="volts", output="ohms", group="device")
    found = fit(path, input="volts", output="ohms", group="device", skip_missing=True)
    assert (found.missing, found.channel.pairs) == (1, 199)


def test_what_is_left_out_changes_nothing_else(tmp_path):
    whole = fit(_with_gaps(tmp_path / "p.csv"), input="volts", output="ohms", skip_missing=True)
    assert (whole.missing, whole.outliers) == (0, 0)
    gaps = [(0, "0,,d0"), (199, "4,na,d0")]
    found = fit(_with_gaps(tmp_path / "p.csv", gaps), input="volts", output="ohms", skip_missing=True)
    np.testing.assert_allclose(found.channel.stds, whole.channel.stds, rtol=0.2)
    path = _with_gaps(tmp_path / "p.csv", [(7, "1,oops,d0")])
    with pytest.raises(MeasurementError, match=r"'oops', which is not a finite number$"):  # a typing error is no gap
        fit(path, input="volts", output="ohms", skip_missing=True)


def test_stuck_cells_are_counted_and_inputs_are_told_in_the_unit_of_the_file(tmp_path):
    stuck = [(number, f"{number // 40},5000,d0") for number in (3, 50, 199)]
    found = fit(_with_gaps(tmp_path / "p.csv", stuck), input="volts", output="ohms")
    assert found.outliers == found.to_dict()["outliers"] == 3
    normal, outliers = found.warnings
    assert re.search(r"worst at [0-4] volts: skew", normal)
    assert "3 reads of 200 off by more than 6 σ from the median of their input: are cells stuck?" in outliers


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("group", [None, "device"])
def test_without_outliers_the_fit_is_that_of_the_other_rows(tmp_path, log, group):
    """Those that are left out do not even set the scale: the channel is that of a file that never had them."""
    stuck = [(number, f"{number // 40},{5000 if number % 2 else 10},d{number % 3}") for number in (3, 50, 52, 130, 199)]
    options = {"input": "volts", "output": "ohms", "log": log, "group": group}
    path = _with_gaps(tmp_path / "p.csv", stuck)
    distorted = fit(path, **options)
    found = fit(path, **options, skip_outliers=True)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line for n, line in enumerate(lines, -1) if n not in dict(stuck)), encoding="utf-8")
    clean = fit(path, **options)
    assert (found.outliers, found.left_out, found.to_dict()["left_out"], clean.outliers) == (0, 5, 5, 0)
    assert found.channel.to_dict() | {"provenance": None} == clean.channel.to_dict() | {"provenance": None}
    assert found.channel.provenance.citation.endswith("195 pairs, 5 outliers left out")
    assert (found.channel.neighbours, found.choice) == (clean.channel.neighbours, clean.choice)
    assert max(distorted.channel.stds) > 2 * max(clean.channel.stds) / np.ptp(clean.channel.span)
    assert any(text.startswith("left out: 5 reads of 200 off by more than 6 σ") for text in found.warnings)
    assert any("give skip_outliers to leave them out" in text for text in distorted.warnings)


def test_nothing_is_left_out_where_nothing_is_far(tmp_path):
    path = _with_gaps(tmp_path / "p.csv")
    plain, skipping = (fit(path, input="volts", output="ohms", skip_outliers=skip) for skip in (False, True))
    assert skipping.channel == plain.channel
    assert (skipping.left_out, skipping.warnings) == (0, plain.warnings)


def test_a_column_may_be_the_group_too(tmp_path):
    path = tmp_path / "pairs.csv"
    rng = np.random.default_rng(0)
    rows = [f"{x},{x + rng.normal() / 50}" for x in range(8) for _ in range(12)]
    path.write_text("\n".join(["x,y", *rows, "3,", ""]), encoding="utf-8")
    found = fit(path, input="x", output="y", group="x", neighbours=5, skip_missing=True)
    assert (found.missing, found.inputs.size) == (1, 96)


def test_stuck_reads_are_counted_where_a_coarse_converter_makes_most_equal(tmp_path):
    path = tmp_path / "pairs.csv"
    rng = np.random.default_rng(0)
    rows = [f"{x},{round(x + rng.normal() / 50, 1)}" for x in range(8) for _ in range(12)]
    path.write_text("\n".join(["x,y", *rows, "3,90", "4,90"]), encoding="utf-8")
    assert fit(path, input="x", output="y", neighbours=5).outliers == 2
