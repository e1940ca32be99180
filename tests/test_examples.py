"""Every script of examples/ in a few steps: what it writes is there, and says what it says it does."""

import csv
import gzip
import importlib
import io
import json
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.channels import GaussianNoise
from onnx_analog.graph.protected import open_protected
from tests.conftest import ROOT
from tests.packages import needs

EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def examples(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)


def main(script, *arguments):
    """Run a script as a user does, but for the interpreter."""
    found = CliRunner().invoke(importlib.import_module(script).main, [str(word) for word in arguments])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found.stdout


def pictures(path: Path, shape: tuple[int, ...], count: int = 60) -> Path:
    """Write images whose label shows in the brightness of one row."""
    rng = np.random.default_rng(count)
    x, y = rng.integers(100, size=(count, *shape), dtype=np.uint8), np.arange(count) % 10
    x[np.arange(count), 2 * y] += 120
    np.savez(path, x=x, y=y)
    return path


@pytest.fixture
def mnist():
    return ["--data", pictures(Path("train.npz"), (28, 28)), pictures(Path("test.npz"), (28, 28), 40)]


@pytest.fixture
def cifar10():
    return ["--data", pictures(Path("train.npz"), (32, 32, 3), 30), pictures(Path("test.npz"), (32, 32, 3), 20)]


FEW = ["--epochs", "1", "--held-out", "20"]


def facts(name):
    return json.loads(Path(f"models/{name}.json").read_text(encoding="utf-8"))


@needs("torch")
@pytest.mark.parametrize(
    ("options", "name"),
    [([], "mlp"), (["--noise", "0.1"], "mlp-gaussian"), (["--noise", "channel"], "mlp-channel"),
     (["--sparsity", "0.5"], "mlp-pruned"), (["--sparsity", "0.5", "--mask", "layers"], "mlp-pruned"),
     (["--sparsity", "0.5", "--mask", "seed"], "mlp-pruned"), (["--mask", "2:4"], "mlp-pruned"),
     (["--plan", "plan.json"], "mlp-plan")],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_mnist_networks_are_trained_and_exported(mnist, options, name):
    Path("plan.json").write_text(oa.Plan(default=oa.Scheme.int4()).to_json(), encoding="utf-8")
    main("train_mnist", "mlp", *mnist, *FEW, *options)
    found = oa.evaluate(f"models/{name}.onnx", "test.npz", mean=facts(name)["mean"], std=facts(name)["std"])
    assert found.original == pytest.approx(facts(name)["test_accuracy"])
    assert facts(name)["parameters"] == 89_610
    assert facts(name)["command"].startswith("python ")


@needs("torch")
def test_options_change_the_recipe(mnist):
    main("train_mnist", "mlp", *mnist, *FEW, "--weight-decay", "0.01", "--patience", "3", "--seed", "7")
    recipe = facts("mlp")["recipe"]
    assert {name: recipe[name] for name in ("weight_decay", "patience", "seed", "epochs", "held_out", "rate")} == {
        "weight_decay": 0.01, "patience": 3, "seed": 7, "epochs": 1, "held_out": 20, "rate": 1e-3,
    }  # fmt: skip


@needs("torch")
def test_a_student_has_a_teacher_and_a_killed_run_goes_on(mnist):
    main("train_mnist", "lenet", *mnist, *FEW)
    teacher = ["--teacher", "models/lenet.onnx", "--checkpoints", "run"]
    main("train_mnist", "mlp", *mnist, *FEW, *teacher)
    assert (facts("mlp-kd")["teacher"], facts("mlp-kd")["epochs"]) == ("lenet.onnx", 1)
    main("train_mnist", "mlp", *mnist, *FEW, *teacher, "--epochs", "2")
    assert facts("mlp-kd")["epochs"] == 2
    assert sorted(path.name for path in Path("run").iterdir()) == ["checkpoint.pt", "metrics.jsonl", "teacher.npz"]


@needs("torch")
def test_cifar10_networks_fold_batch_norm(cifar10):
    main("train_cifar10", "resnet20", *cifar10, *FEW, "--folded")
    assert oa.inspect("models/resnet20.onnx").batch_norms == 0


@needs("torch")
def test_cifar10_networks_keep_batch_norm_apart_and_pruning_starts_from_a_checkpoint_and_holds(cifar10):
    main("train_cifar10", "resnet20", *cifar10, *FEW, "--checkpoints", "run")
    assert oa.inspect("models/resnet20.onnx").batch_norms == 21
    main("train_cifar10", "resnet20", *cifar10, *FEW, "--start", "run/checkpoint.pt", "--sparsity", "0.8")
    totals = oa.protect("models/resnet20-pruned.onnx").manifest.totals
    assert totals.stored_weights == totals.original_weights - round(0.8 * totals.original_weights)


@needs("torch")
def test_training_starts_from_a_model_of_onnx(cifar10):
    main(
        "train_cifar10", "resnet20-padded", *cifar10, *FEW, "--folded", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2"
    )
    start = ["--start", "models/resnet20-padded.onnx", "--rate", "1e-9", "--shift", "2", "--name", "again"]
    main("train_cifar10", "resnet20-padded", *cifar10, *FEW, *start, "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2")
    before, after = facts("resnet20-padded"), facts("again")
    assert (after["mean"], after["std"], after["start"]) == ([0.5] * 3, [0.2] * 3, "resnet20-padded.onnx")
    assert (after["recipe"]["rate"], after["recipe"]["shift"]) == (1e-9, 2)
    weights = [
        {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in onnx.load(f"models/{name}.onnx").graph.initializer
        }
        for name in ("resnet20-padded", "again")
    ]
    for name, weight in weights[0].items():
        if weight.ndim >= 2:
            np.testing.assert_allclose(weights[1][name], weight, atol=1e-4)
    assert before["start"] is None


@needs("torch")
def test_a_mask_that_follows_from_a_seed_is_stored_as_the_seed(mnist):
    main("train_mnist", "mlp", *mnist, *FEW, "--sparsity", "0.9", "--mask", "seed", "--seed", "3")
    tensors = oa.protect("models/mlp-pruned.onnx", oa.Scheme.entropy_coded(1, mask_seed=3)).manifest.tensors
    assert [tensor.streams["mask seed"] for tensor in tensors] == [64] * 3
    assert [tensor.stored for tensor in tensors] == [
        tensor.original - round(0.9 * tensor.original) for tensor in tensors
    ]
    others = oa.protect("models/mlp-pruned.onnx", oa.Scheme.entropy_coded(1, mask_seed=4)).manifest.tensors
    assert not any("mask seed" in tensor.streams for tensor in others)


@needs("torch")
def test_the_epoch_that_is_told_is_one_with_the_last_masks(mnist):
    main(
        "train_mnist", "mlp", *mnist, "--held-out", "20", "--epochs", "6", "--sparsity", "0.99", "--checkpoints", "run"
    )
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found = facts("mlp-pruned")
    assert found["epoch"] >= 3
    assert (
        found["held_out_accuracy"] == rows[found["epoch"] - 1]["held_out"] == max(row["held_out"] for row in rows[2:])
    )


@needs("torch")
def test_a_mask_of_patterns_is_stored_as_such(mnist):
    main("train_mnist", "mlp", *mnist, *FEW, "--mask", "1:4")
    (first, *_) = oa.protect("models/mlp-pruned.onnx", oa.Scheme.entropy_coded(0.25)).manifest.tensors
    assert first.original == 78_400
    groups = 78_400 // 4
    assert first.streams["mask"] == 12 + 2 * groups  # a pattern of 1:4 takes two bits


def test_what_training_buys_is_measured_and_measured_once(monkeypatch):
    Path("lenet.onnx").write_bytes(demo.MODEL.read_bytes())
    oa.prune(demo.MODEL, sparsity=0.8).save("pruned.onnx")
    images = ["--data", demo.IMAGES, "--train", demo.IMAGES, "--mean", "0.1307", "--std", "0.3081", "--samples", "200"]
    command = ["trained", "lenet", "lenet.onnx", "pruned.onnx", *images, "--out", "out", "--steps"]
    main(*command, "1,4")
    found = importlib.import_module("trained").read(Path("out/training-lenet.csv"))
    assert len(found) == 2 * 2 * 2
    for model in ("lenet", "pruned"):
        for stored in ("plain", "compensated"):
            fine, coarse = (row for row in found if (row.model, row.stored) == (model, stored))
            assert (fine.step, coarse.step) == (1, 4)
            assert fine.cells > coarse.cells > coarse.correction_cells
            assert fine.lost < coarse.lost
            assert fine.low <= fine.lost <= fine.high
            assert fine.kept == 1 if model == "lenet" else coarse.kept < fine.kept < 0.2  # what is read as 0 is pruned
            assert (fine.correction_cells > 0) == (stored == "compensated")
    by_hand = oa.evaluate(
        oa.protect("pruned.onnx", oa.Scheme.entropy_coded(1, channel="pcm")).model, demo.IMAGES, mean=[0.1307],
        std=[0.3081], samples=200, trials=1, reference="lenet.onnx",
    )  # fmt: skip
    (row,) = [row for row in found if (row.model, row.stored, row.step) == ("pruned", "plain", 1)]
    assert row.lost == pytest.approx(100 * (by_hand.original - by_hand.mean))
    monkeypatch.setattr("trained.measured", lambda *_: pytest.fail("measured again"))
    text = main(*command, "1,4")
    assert "| lenet | plain | 1 |" in text
    with pytest.raises(pytest.fail.Exception):
        main(*command, "1,2,4")


def test_cells_at_a_loss_lie_on_a_line_between_points():
    trained = importlib.import_module("trained")

    def row(cells, lost, low, high):
        return trained.Row("m", "d", "plain", 1.0, 1.0, cells, 0.0, 100, lost, low, high)

    rows = [row(2.0, 0.0, -0.5, 0.5), row(1.0, 2.0, 1.0, 3.0)]
    assert trained.cells_at(rows, 1.0, "lost") == pytest.approx(1.5)
    assert trained.cells_at(rows, 0.25, "low") == pytest.approx(1.5)
    assert trained.cells_at(rows, 0.5, "high") == pytest.approx(2.0)
    assert trained.cells_at(rows, 3.0, "lost") is None  # all points are better
    assert trained.cells_at(rows, -1.0, "lost") is None  # none is
    assert trained._span(rows, 1.0) == "1.500 (below 1.000 to 1.800)"
    assert trained._span(rows, 0.4) == "1.800 (1.400 to -)"
    assert trained._span(rows, 4.0) == "below 1.000"
    assert trained._span(rows, -1.0) == "-"


@needs("torch")
def test_a_plan_in_training_excludes_other_noise(mnist):
    Path("plan.json").write_text(oa.Plan().to_json(), encoding="utf-8")
    command = ["mlp", *mnist, *FEW, "--plan", "plan.json", "--noise", "0.1"]
    found = CliRunner().invoke(importlib.import_module("train_mnist").main, [str(word) for word in command])
    assert found.exit_code == 2
    assert "--plan and --noise exclude each other" in found.output


def test_the_demo_s_network_is_packaged(data_set):
    """That the facts of the demo are those of the whole test set is tested with the demo."""
    test = Path("first.npz")
    with np.load(data_set("mnist-test")) as whole:
        np.savez(test, x=whole["x"][:1500], y=whole["y"][:1500])  # which have 100 images of each digit
    Path("lenet.onnx").write_bytes(demo.MODEL.read_bytes())
    recipe = {"parameters": 1, "epoch": 1, "held_out_accuracy": 1, "recipe": {"seed": 0}, "command": "c"}
    Path("lenet.json").write_text(json.dumps({**recipe, "mean": [0.1307], "std": [0.3081]}), encoding="utf-8")
    main("package_lenet", "lenet.onnx", "--data", test, "--out", "package")
    found = json.loads(Path("package/lenet-mnist.json").read_text(encoding="utf-8"))
    models = {"test_accuracy": demo.MODEL, "test_accuracy_pruned_80%": oa.prune(demo.MODEL, sparsity=0.8).model}
    assert {name: found[name] for name in found if "accuracy" in name and "held" not in name} == {
        name: oa.evaluate(of, test, mean=[0.1307], std=[0.3081]).original for name, of in models.items()
    }
    assert models.keys() == {name for name in demo.facts() if name.startswith("test_accuracy")}
    with np.load("package/mnist-1000.npz") as one, np.load(demo.IMAGES) as other:
        assert all(np.array_equal(one[name], other[name]) for name in ("x", "y"))


IMAGES = ["--data", demo.IMAGES, "--mean", "0.1307", "--std", "0.3081", "--samples", "20", "--trials", "2"]


@needs("matplotlib")
def test_strategies_are_compared():
    main("compare", demo.MODEL, *IMAGES, "--cells", "1", "--out", "out")
    with Path("out/lenet-mnist.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * 2  # strategies, presets, trials
    assert Path("out/lenet-mnist.png").read_bytes().startswith(b"\x89PNG")
    assert "| redundancy |" in Path("out/lenet-mnist.md").read_text(encoding="utf-8")


def test_side_information_is_compared():
    main("analog_side_information", demo.MODEL, *IMAGES, "--out", "side.md")
    rows = [line for line in Path("side.md").read_text(encoding="utf-8").splitlines() if line.startswith("| pcm")]
    assert len(rows) == len(importlib.import_module("analog_side_information").ROWS)


# ----------------------------------------------------------------------------------------- the paper's tables


@pytest.fixture
def models():
    folder = Path("networks")
    folder.mkdir()
    (folder / "lenet.onnx").write_bytes(demo.MODEL.read_bytes())
    return folder


def rows(table):
    with Path(f"out/{table}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table8(models, *options):
    data = ["--models", models, "--data", demo.IMAGES, "--samples", "20", "--trials", "2", "--out", "out"]
    return main("paper", "table8", *data, *options)


def test_a_table_is_the_same_after_a_kill_from_many_processes_and_one_granularity_at_a_time(models):
    text = table8(models)
    whole = rows("table8")
    assert len(whole) == 1 + 2 * 4 * 5 * 2  # no noise; scopes, strategies, cells, trials
    assert "98.70" in text
    lines = Path("out/table8.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    Path("out/table8.csv").write_text("".join(lines[:-6]), encoding="utf-8")  # all but three entries
    assert table8(models) == text
    assert rows("table8") == whole
    Path("out/table8.csv").unlink()
    table8(models, "--granularity", "tensor")
    assert {row["granularity"] for row in rows("table8")} == {"", "tensor"}
    assert table8(models, "--workers", "2") == text
    assert sorted(rows("table8"), key=str) == sorted(whole, key=str)


@pytest.mark.parametrize(("option", "name"), [(("--samples", "10"), "samples 20"), (("--seed", "1"), "seed 0")])
def test_lines_of_another_run_are_not_gone_on_from(models, option, name):
    table8(models, "--row", "no noise")
    before = Path("out/table8.csv").read_bytes()
    command = ["table8", "--models", models, "--data", demo.IMAGES, "--samples", "20", "--out", "out", *option]
    found = CliRunner().invoke(importlib.import_module("paper").main, list(map(str, command)))
    assert found.exit_code == 2
    assert f"has lines with {name}, and this run has {option[1]}" in " ".join(found.output.split())
    assert Path("out/table8.csv").read_bytes() == before


def test_data_that_are_no_npz_file_are_refused_in_one_line(models):
    table8(models, "--row", "no noise")
    Path("t.npz").write_text("hello", encoding="utf-8")
    command = ["table8", "--models", str(models), "--data", "t.npz", "--out", "out"]
    found = CliRunner().invoke(importlib.import_module("paper").main, command)
    assert (found.exit_code, found.stderr) == (
        1,
        "Error: 't.npz' is not an npz file of plain arrays. Save it with numpy.savez\n",
    )


def test_one_row_of_a_table_is_made_alone(models):
    table8(models, "--row", "+ sign protection", "--granularity", "model")
    assert {(row["row"], row["granularity"]) for row in rows("table8")} == {("+ sign protection", "model")}


@pytest.mark.parametrize("option", ["--row", "--network"])
def test_a_row_or_network_that_a_table_does_not_have_is_refused(models, option):
    command = ["table8", "--models", str(models), "--data", str(demo.IMAGES), "--out", "out", option, "nonsense"]
    found = CliRunner().invoke(importlib.import_module("paper").main, command)
    assert found.exit_code == 2
    assert "its rows are no noise, PCM noise" in " ".join(found.output.split())
    assert not Path("out/table8.md").exists()


def test_a_network_that_is_not_there_is_one_line(tmp_path):
    command = ["table8", "--models", str(tmp_path), "--data", str(demo.IMAGES), "--out", "out"]
    found = CliRunner().invoke(importlib.import_module("paper").main, command)
    assert found.exit_code == 1
    assert found.stderr.strip().splitlines()[-1] == f"Error: there is no file {str(tmp_path / 'lenet.onnx')!r}"
    assert not list(Path("out").iterdir())


def test_a_number_of_a_table_can_be_had_again_from_the_library(models):
    table8(models, "--row", "+ adaptive redundancy", "--granularity", "model")
    pruned = oa.prune(demo.MODEL, sparsity=0.8).model
    kept = oa.protect(pruned, strategy="redundancy", preset="isik2020", cells_small=3, cells_large=60).model
    found = oa.evaluate(kept, demo.IMAGES, mean=[0.1307], std=[0.3081], samples=20, trials=2)
    key = ("+ adaptive redundancy", "3 cells", "model")
    mine = [float(row["value"]) for row in rows("table8") if (row["row"], row["column"], row["granularity"]) == key]
    assert mine == list(found.values)


def test_gaussian_noise_without_protection_is_added_to_the_weights():
    tables = importlib.import_module("paper_tables")
    model = oa.prune(demo.MODEL, sparsity=0.5).model
    scheme = tables.entry("+ noise", "KD", "lenet", None, {"gaussian": 0.1}).scheme(model)
    for tensor in open_protected(oa.protect(model, scheme).model).tensors:
        assert (tensor.alpha.tolist(), tensor.beta.tolist()) == ([[1.0]], [[0.0]])
    assert isinstance(scheme.channel, GaussianNoise)
    assert scheme.channel.sigma == 0.1


@pytest.mark.parametrize("table", ["table1", "table2", "table2-decay", "table7", "table8", "table9"])
def test_no_number_of_a_table_is_there_twice(table):
    entries = importlib.import_module("paper_tables").TABLES[table].entries
    assert len({entry.key for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.paper is None or 8 < entry.paper <= 100


@needs("matplotlib")
@pytest.mark.parametrize("figure", ["figure1", "figure2"])
def test_figures_of_the_channel_are_drawn(figure):
    main("paper", figure, "--out", "out")
    assert Path(f"out/{figure}.png").read_bytes().startswith(b"\x89PNG")


@needs("matplotlib")
def test_figure3_shows_the_weights_that_a_network_holds():
    paper_figures = importlib.import_module("paper_figures")
    for name in ("resnet18-cifar10", "resnet18-cifar10-pruned"):
        onnx.save(onnx.load(demo.MODEL), f"{name}.onnx")
    paper_figures.draw("figure3", Path(), Path(), Path("figure3.png"))
    assert Path("figure3.png").read_bytes().startswith(b"\x89PNG")


@needs("matplotlib")
def test_figure4_is_drawn_from_what_is_there():
    main("paper", "figure4", "--out", "out")
    assert Path("out/figure4.png").read_bytes().startswith(b"\x89PNG")


@needs("matplotlib")
def test_figure4_has_a_line_for_each_row_and_the_papers_beside_it():
    keys = ["row", "column", "granularity", "value"]
    rows = [
        ("+ adaptive mapping", "20 cells", "model", 0.875),
        ("+ adaptive mapping", "20 cells", "model", 0.625),
        ("+ adaptive mapping", "1 cell", "model", 0.25),
        ("+ sign protection", "3 cells", "tensor", 0.5),
    ]
    paper, tables = (importlib.import_module(name) for name in ("paper", "paper_tables"))
    paper.write(Path("table1.csv"), tables.TABLES["table1"], [dict(zip(keys, row, strict=True)) for row in rows])
    first, second, *_ = importlib.import_module("paper_figures").figure4(Path()).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in first.lines}
    assert lines["+ adaptive mapping"] == [[20, 75], [1, 25]]
    assert lines["+ sign protection"] == []
    dashed = [line.get_xydata().tolist() for line in first.lines if line.get_linestyle() == "--"]
    assert dashed[2][:2] == [[30, 93.12], [20, 92.98]]
    assert {line.get_label(): line.get_xydata().tolist() for line in second.lines}["+ sign protection"] == [[3, 50]]


def without(module, script):
    """Run a script, and say what it is for a user who has not installed `module`."""
    code = f"import runpy, sys; sys.modules[{module!r}] = None; sys.argv = {[str(word) for word in script]!r}; "
    code += f"sys.path.insert(0, {str(EXAMPLES)!r}); runpy.run_path({str(EXAMPLES / script[0])!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_tables_need_no_matplotlib_and_figures_say_so():
    table = ["paper.py", "table8", "--models", demo.MODEL.parent, "--data", pictures(Path("t.npz"), (28, 28))]
    found = without("matplotlib", [*table, "--trials", 2, "--network", "none"])
    assert (found.returncode, "no such entry" in found.stderr) == (2, True), found.stderr
    found = without("matplotlib", ["paper.py", "figure1", "--out", "out"])
    assert found.returncode == 1
    assert found.stderr == "Error: no plot: matplotlib is not installed (pip install 'onnx-analog[report]')\n"
    assert not Path("out").exists()


def test_compare_without_matplotlib_says_that_there_is_no_plot():
    data = pictures(Path("t.npz"), (28, 28))
    found = without(
        "matplotlib", ["compare.py", demo.MODEL, "--data", data, "--trials", 2, "--cells", 1, "--out", "out"]
    )
    assert (found.returncode, "no plot: matplotlib is not installed" in found.stderr) == (0, True), found.stderr
    assert sorted(path.suffix for path in Path("out").iterdir()) == [".csv", ".md"]


@pytest.mark.parametrize("script", ["train_mnist.py", "train_cifar10.py"])
def test_training_without_torch_says_what_to_install(script):
    found = without("torch", [script, "--help"])
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == "Error: training needs PyTorch: pip install 'onnx-analog[train]'\n"


def write_idx(path, array):
    """Write an IDX file of bytes, gzipped, as MNIST's page describes it."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))


@pytest.fixture
def published_mnist():
    """Write the files of MNIST, with few images, and return what they hold."""
    rng, held = np.random.default_rng(0), {}
    for split, prefix, count in (("train", "train", 7), ("test", "t10k", 3)):
        held[split] = rng.integers(256, size=(count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8)
        write_idx(Path(f"{prefix}-images-idx3-ubyte.gz"), held[split][0])
        write_idx(Path(f"{prefix}-labels-idx1-ubyte.gz"), held[split][1])
    return held


def test_mnist_is_made_from_its_files(published_mnist):
    main("make_data", "mnist", ".")
    for split, (x, y) in published_mnist.items():
        with np.load(f"mnist-{split}.npz") as made:
            np.testing.assert_array_equal(made["x"], x)
            np.testing.assert_array_equal(made["y"], y)


def write_cifar10(count=2):
    """Write the archive of CIFAR-10, with few images, and return what its batches hold."""
    rng, held = np.random.default_rng(0), {}
    with tarfile.open("cifar-10-binary.tar.gz", "w:gz") as archive:
        for name in [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]:
            x = rng.integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
            y = rng.integers(10, size=count, dtype=np.uint8)
            body = b"".join(
                bytes([label]) + b"".join(image[:, :, colour].tobytes() for colour in range(3))
                for image, label in zip(x, y, strict=True)
            )
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
            held[name] = x, y
    return held


def test_cifar10_is_made_from_its_archive():
    held = write_cifar10()
    main("make_data", "cifar10", ".")
    parts = {"train": list(held)[:5], "test": list(held)[5:]}
    for split, names in parts.items():
        with np.load(f"cifar10-{split}.npz") as made:
            np.testing.assert_array_equal(made["x"], np.concatenate([held[name][0] for name in names]))
            np.testing.assert_array_equal(made["y"], np.concatenate([held[name][1] for name in names]))


def refused(*arguments):
    """Return the line by which make_data refuses, having written nothing."""
    found = CliRunner().invoke(importlib.import_module("make_data").main, [str(word) for word in arguments])
    assert found.exit_code == 1
    assert not list(Path().glob("*.npz"))
    assert found.stderr.count("\n") == 1
    return found.stderr


def spoil(path, change):
    path = Path(path)
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda body: body[:-1], "holds 2,351 bytes, not 2,352"),
        (lambda body: b"\0\0\x0d" + body[3:], "no IDX file of bytes"),
        (lambda body: body[:10], "no IDX file of bytes"),
        (lambda body: body[:7] + b"\x02" + body[8 : -28 * 28], "2 images have 3 labels"),
    ],
)
def test_a_file_of_mnist_that_is_not_whole_is_refused(published_mnist, change, said):
    spoil("t10k-images-idx3-ubyte.gz", change)
    assert said in refused("mnist", ".")


def test_what_is_missing_or_cannot_be_unpacked_is_named(published_mnist):
    assert "cifar-10-binary.tar.gz is not in" in refused("cifar10", ".")
    write_cifar10(count=0)
    assert "data_batch_1.bin of cifar-10-binary.tar.gz holds 0 bytes" in refused("cifar10", ".")
    archive = Path("cifar-10-binary.tar.gz")
    archive.write_bytes(archive.read_bytes()[:20])
    assert "cannot unpack 'cifar-10-binary.tar.gz'" in refused("cifar10", ".")
    with tarfile.open(archive, "w:gz"):
        pass
    assert "has no data_batch_1.bin, " in refused("cifar10", ".")
    labels = Path("train-labels-idx1-ubyte.gz")
    labels.write_bytes(labels.read_bytes()[:-9])
    assert "cannot unpack 'train-labels-idx1-ubyte.gz'" in refused("mnist", ".")
    labels.unlink()
    assert "train-labels-idx1-ubyte.gz is not in" in refused("mnist", ".")


def test_data_that_are_there_are_kept(published_mnist):
    Path("mnist-test.npz").write_bytes(b"mine")
    found = CliRunner().invoke(importlib.import_module("make_data").main, ["mnist", "."])
    assert (found.exit_code, "already exists" in found.stderr) == (1, True)
    assert Path("mnist-test.npz").read_bytes() == b"mine"
    assert not Path("mnist-train.npz").exists()


def test_the_page_of_trained_networks_is_what_its_script_writes():
    folder = EXAMPLES / "models"
    assert importlib.import_module("list_models").text(folder) == (folder / "README.md").read_text(encoding="utf-8")


def test_a_network_that_is_not_the_one_that_was_trained_is_noticed(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"another")
    (tmp_path / "a.json").write_text('{"sha256": "0"}', encoding="utf-8")
    with pytest.raises(click.ClickException, match="not the network"):
        importlib.import_module("list_models").text(tmp_path)


@pytest.mark.parametrize("name", sorted(path.stem for path in (EXAMPLES / "models").glob("mlp*.onnx")))
def test_trained_networks_are_as_good_as_they_say(data_set, name):
    path = EXAMPLES / "models" / f"{name}.onnx"
    said = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    found = oa.evaluate(path, data_set("mnist-test"), mean=said["mean"], std=said["std"]).original
    # One score in 5,000 may lie within rounding of another.
    assert found == pytest.approx(said["test_accuracy"], abs=2e-4)
