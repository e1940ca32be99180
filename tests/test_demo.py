import json
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog import channels, demo
from onnx_analog.cli import main
from onnx_analog.coding.scheme import PRESETS, STRATEGIES
from onnx_analog.graph.files import load as load_model
from onnx_analog.graph.files import write_model
from onnx_analog.run.session import Network
from onnx_analog.study.sweeps import Point, sweep
from tests.cli.test_report import point as made_point
from tests.models import of_strategy, same_bits, serialized

ON_ALL = "test_accuracy"
ON_ALL_PRUNED = "test_accuracy_pruned_80%"


@cache
def story() -> demo.Story:
    return demo.begin()


def normal(x):
    """Return MNIST images as the network takes them; the formula is the data set's usual one."""
    return ((x / np.float32(255) - np.float32(0.1307)) / np.float32(0.3081))[:, None]


def scores(model: bytes, x):
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": part})[0] for part in np.array_split(normal(x), 10)])


def packaged():
    with np.load(demo.IMAGES) as file:
        return file["x"], file["y"]


# ------------------------------------------------------------------------------------------------ the network


def test_facts_are_those_of_the_packaged_network():
    facts = demo.facts()
    weights = onnx.load(demo.MODEL).graph.initializer
    floats = [tensor for tensor in weights if tensor.data_type == onnx.TensorProto.FLOAT]
    assert sum(int(np.prod(tensor.dims)) for tensor in floats) == facts["parameters"] == 431_080
    assert (facts["mean"], facts["std"]) == (0.1307, 0.3081)
    assert (facts[ON_ALL], facts[ON_ALL_PRUNED]) == (0.9923, 0.9919)


def test_the_network_is_the_lenet_of_the_paper():
    shapes = sorted(tuple(row["shape"]) for row in oa.inspect(demo.MODEL).rows if row["reason"] is None)
    # two convolutions of 20 and 50 filters of 5 × 5, and 800 -> 500 -> 10
    assert shapes == [(10, 500), (20, 1, 5, 5), (50, 20, 5, 5), (500, 800)]


def test_the_packaged_file_names_no_folder():
    text = demo.MODEL.read_bytes()
    assert b'File "' not in text
    assert b"site-packages" not in text
    onnx.checker.check_model(onnx.load(demo.MODEL), full_check=True)


# ------------------------------------------------------------------------------------------------- the images


def test_there_are_a_hundred_images_of_each_digit():
    x, y = packaged()
    assert (x.shape, x.dtype) == ((1000, 28, 28), np.uint8)
    assert np.bincount(y).tolist() == [100] * 10


def test_images_are_the_first_of_each_digit_in_the_test_set(data_set):
    x, y = packaged()
    with np.load(data_set("mnist-test")) as file:
        all_x, all_y = file["x"], file["y"]
    for digit in range(10):
        assert np.array_equal(x[y == digit], all_x[all_y == digit][:100])
    rows = np.sort(np.concatenate([np.flatnonzero(all_y == digit)[:100] for digit in range(10)]))
    assert np.array_equal(x, all_x[rows])  # in the order of the test set


def test_images_are_normalised_as_the_network_takes_them():
    x, y = packaged()
    found = demo.images(Network(load_model(demo.MODEL)))
    assert found.labels is not None
    assert same_bits([found.inputs["input"], found.labels], [normal(x), y])


# -------------------------------------------------------------------------------------------------- the story


def test_the_story_s_accuracies_are_those_of_onnxruntime_alone():
    x, y = packaged()
    found = story()
    for accuracy, model in (
        (found.accuracy, demo.MODEL.read_bytes()),
        (found.accuracy_pruned, serialized(found.pruned.model)),
    ):
        assert accuracy == (scores(model, x).argmax(axis=1) == y).mean()
    assert 0.9 < found.accuracy_pruned < 1


def test_facts_are_those_of_the_whole_test_set(data_set):
    with np.load(data_set("mnist-test")) as file:
        x, y = file["x"], file["y"]
    for fact, model in ((ON_ALL, demo.MODEL.read_bytes()), (ON_ALL_PRUNED, serialized(story().pruned.model))):
        assert (scores(model, x).argmax(axis=1) == y).mean() == pytest.approx(demo.facts()[fact], abs=1e-9)


def test_the_story_is_pruned_by_80_percent():
    found = story().pruned
    assert (found.zeros, found.weights) == (344_400, 430_500)
    assert demo.SPARSITY == 0.8 == found.zeros / found.weights


def test_the_packaged_model_is_not_changed():
    before = demo.MODEL.read_bytes()
    demo.begin()
    assert demo.MODEL.read_bytes() == before


# ------------------------------------------------------------------------------------------- the comparison


def test_the_demo_compares_all_strategies_in_both_presets():
    grid = demo.grid(seed=9)
    assert grid.strategies == tuple(STRATEGIES)
    assert grid.presets == tuple(PRESETS.values())
    assert grid.cells == (1, 3, 10)
    assert (grid.seed, grid.channels) == (9, (channels.resolve("pcm"),))


def test_the_demo_tells_what_evaluating_the_pruned_network_finds():
    data = story().data.head(100)
    told = demo.Story(**{**vars(story()), "data": data})
    grid = replace(demo.grid(seed=2), cells=(3,))
    points = list(sweep(demo.plan(told, grid, trials=1)))
    assert len(points) == len(grid) == 8
    for point in (points[0], points[3], points[7]):
        large = 20 * point.cells
        preset = point.setting.preset
        choices = {"granularity": preset.granularity, "large_fraction": preset.large_fraction}
        stored = oa.protect(
            story().pruned.model, **of_strategy(point.strategy, cells_small=point.cells, cells_large=large, **choices)
        )
        assert point.evaluation.values == oa.evaluate(stored.model, data, trials=1, seed=2).values


def test_the_packaged_files_are_evaluated_as_any_others():
    assert oa.evaluate(demo.MODEL, demo.IMAGES, mean=[0.1307], std=[0.3081]).original == story().accuracy


# ------------------------------------------------------------------------------------------- what it ends with


def test_the_network_and_its_images_are_copied(tmp_path):
    folder = tmp_path / "new" / "folder"
    answer = CliRunner().invoke(main, ["demo", "--copy", str(folder), "--json"])
    assert (answer.exit_code, answer.stderr) == (0, "")
    copies = [Path(json.loads(answer.stdout)[name]) for name in ("model", "data")]
    assert [each.read_bytes() for each in copies] == [each.read_bytes() for each in (demo.MODEL, demo.IMAGES)]
    assert sorted(folder.iterdir()) == sorted(copies)


@pytest.mark.parametrize("there", ["model.onnx", "test.npz"])
def test_copies_replace_no_file_unasked(there, tmp_path):
    (tmp_path / there).write_text("mine")
    answer = CliRunner().invoke(main, ["demo", "--copy", str(tmp_path)])
    assert answer.exit_code == 1
    assert [each.read_text() for each in tmp_path.iterdir()] == ["mine"]
    assert CliRunner().invoke(main, ["demo", "--copy", str(tmp_path), "--force"]).exit_code == 0
    assert (tmp_path / "model.onnx").read_bytes() == demo.MODEL.read_bytes()


@pytest.mark.parametrize("option", ["--trials 5", "--seed 3", "--plot x.png"])
def test_copies_take_no_options_of_the_demo(option, tmp_path):
    refused = CliRunner().invoke(main, ["demo", "--copy", str(tmp_path), *option.split()])
    assert refused.exit_code == 2
    assert f"--copy only copies: leave {option.split()[0]} out" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def planted(means: dict[tuple[str, int, str], float]) -> list[Point]:
    """Return points of the demo's grid with these means, ± 0.1 points of 100, and costs that rise as given."""
    found = []
    for cost, ((strategy, cells, preset), mean) in enumerate(means.items(), start=1):
        one = made_point(strategy, cells, PRESETS[preset], values=(mean, mean), analog=100 * cost // cells)
        found.append(replace(one, ci95=(mean - 0.001, mean + 0.001)))
    return found


GOOD = {
    ("raw", 1, "default"): 0.1,
    ("mapping", 1, "default"): 0.985,
    ("redundancy", 1, "isik2020"): 0.986,
    ("redundancy", 3, "default"): 0.9865,
}


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, "--strategy mapping --cells-small 1"),
        ({("mapping", 1, "default"): 0.97}, "--strategy redundancy --cells-small 1 --cells-large 20 --preset isik2020"),
        (
            {("mapping", 1, "default"): 0.97, ("redundancy", 1, "isik2020"): 0.9},
            "--strategy redundancy --cells-small 3 --cells-large 60",
        ),
        ({("raw", 1, "default"): 0.986}, "--strategy raw --cells-small 1"),
    ],
)
def test_what_is_recommended_follows_from_the_points(changes, command):
    points = planted({**GOOD, **changes})
    assert demo.command(demo.choice(points)) == f"onnx-analog protect model.onnx --sparsity 0.8 {command}"


def test_the_command_that_is_recommended_makes_the_point(tmp_path, monkeypatch):
    grid = replace(demo.grid(seed=0), cells=(3,))
    told = replace(story(), data=story().data.head(20))
    points = list(sweep(demo.plan(told, grid, trials=1)))
    write_model(load_model(demo.MODEL), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    for one in points:
        words = shlex.split(demo.command(one))
        main([*words[1:], "--force"], standalone_mode=False)
        made = oa.account("model.protected.onnx")
        assert made.totals == one.totals == demo.protect(told, one).manifest.totals


def test_the_strategies_are_told_by_what_they_add():
    assert demo.steps() == (
        "raw: PCM + inverse channel; sign: + sign protection; mapping: + adaptive mapping; "
        "redundancy: + adaptive redundancy"
    )
