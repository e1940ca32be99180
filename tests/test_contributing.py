"""Runs the examples of CONTRIBUTING.md as scripts of a user, in a folder that has no package."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.settings import settings_of
from tests.conftest import ROOT
from tests.models import model

NET = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 16] b = 2 random> {
        h = MatMul(x, a)
        y = MatMul(h, b)
    }"""
LOAD = ("--load", "my_channel:Rising", "--load", "my_estimator:Shrunk")
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SCRIPTS = dict(re.findall(r"```python\n# (my_\w+\.py)\n(.*?)```", PAGE, flags=re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the scripts, a model and data."""
    found = tmp_path_factory.mktemp("own")
    for name, text in SCRIPTS.items():
        (found / name).write_text(text, encoding="utf-8")
    oa.Model(model(NET)).save(found / "model.onnx")
    rng = np.random.default_rng(0)
    np.savez(found / "test.npz", x=rng.normal(size=(40, 16)).astype(np.float32), y=rng.integers(4, size=40))
    return found


def run(folder: Path, *words: str, program: tuple[str, ...] = ("-m", "onnx_analog")) -> str:
    done = subprocess.run([sys.executable, *program, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_an_example_of_each_kind():
    assert set(SCRIPTS) == {f"my_{kind}.py" for kind in ("strategy", "channel", "metric", "estimator", "command")}


def test_a_strategy_of_ones_own_protects_and_is_compared(folder):
    run(folder, "protect", "model.onnx", "--plan", "my_strategy:three_classes", "-o", "s.onnx")
    (scheme,) = oa.load(folder / "s.onnx").plan.schemes
    assert (scheme.classes, scheme.cells) == (3, (1, 5, 20))
    text = run(
        folder, "sweep", "model.onnx", "--data", "test.npz", "--strategy", "sign", "--cells", "1", "--trials", "2",
        "--plan", "my_strategy:three_classes", "--engine", "serial", "--out", "results", "--json",
    )  # fmt: skip
    assert [point["strategy"] for point in json.loads(text)["points"]] == ["sign", "three_classes"]


def test_channel_metric_and_estimator_of_ones_own_are_used_together(folder):
    run(
        folder, "protect", "model.onnx", "--channel", "my_channel:Rising:sigma=0.05", "--estimator",
        "my_estimator:Shrunk", "-o", "c.onnx",
    )  # fmt: skip
    plain = run(folder, "protect", "model.onnx", "-o", "plain.onnx", "--json")
    own = json.loads(run(folder, "manifest", "c.manifest.json", "--json", *LOAD))
    assert own["schemes"][0]["estimator"] == "my_estimator:Shrunk"
    extra = own["totals"]["codebook_cells"] - json.loads(plain)["totals"]["codebook_cells"]
    assert extra == 2 * 32 // 2  # two tensors, each with a table of 32 bits, 2 bits a cell
    text = run(
        folder, "evaluate", "c.onnx", "--data", "test.npz", "--metric", "my_metric:worst_class", "--channel",
        "my_channel:Rising:sigma=0.05", "--load", "my_estimator:Shrunk", "--trials", "3", "--json",
    )  # fmt: skip
    found = json.loads(text)
    assert (found["metric"], found["share"], found["higher_is_better"]) == ("my_metric:worst_class", True, True)
    assert len(found["values"]) == 3


def test_a_command_of_ones_own_stands_beside_all_others(folder):
    assert run(folder, "shapes", "model.onnx", program=("my_command.py",)) == "a [16, 16]\nb [16, 16]\n"
    text = run(folder, "--help", program=("my_command.py",))
    assert all(re.search(rf"^  {name} ", text, flags=re.MULTILINE) for name in ("shapes", "protect", "sweep"))


def test_a_setting_is_declared_once_and_everything_follows():
    """As CONTRIBUTING says: option, keyword, axis, plan, manifest and check come from the one declaration."""
    from onnx_analog.cli import main
    from onnx_analog.study import axes

    options = {str(param.name) for param in main.commands["protect"].params}
    names = set(settings_of(oa.Scheme))
    assert names <= options
    assert names <= set(axes.SETTINGS)
    assert names == set(oa.Scheme().to_dict())
    for name in names:
        with pytest.raises(oa.AnalogError):
            oa.protect(model(NET), **{name: {}})


def test_the_declaration_in_contributing_is_that_of_the_code():
    shown = next(line.strip() for line in PAGE.splitlines() if line.strip().startswith("step: "))
    declared, _, default = settings_of(oa.Scheme)["step"]
    assert f"setting({default}, above={declared.above:g}" in shown
