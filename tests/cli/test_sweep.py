import contextlib
import csv
import importlib
import json
import linecache
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog import channels, plots
from onnx_analog.cli import main
from onnx_analog.cli.commands import sweep
from onnx_analog.coding.scheme import STRATEGIES
from onnx_analog.graph.weights import Selection
from onnx_analog.study import run_folder
from onnx_analog.study.engines import dask_cluster, ray_cluster
from onnx_analog.study.run_folder import CONSTANTS, LOCK, PARQUET, POINTS, TRIALS
from onnx_analog.within import NOTE
from tests.cli.test_app import assert_refused, body, contents, done
from tests.conftest import ROOT
from tests.models import QUIET, proto, run
from tests.study.engines.small import alive, processes, rows, runs, until

NET = """
    net (float[n, 16] x) => (float[n, 32] y)
    <float[16, 32] a = random, float[32, 32] b = 0.1 random, float[32] bias = random> {
        h = MatMul(x, a)
        r = Relu(h)
        y = Gemm(r, b, bias)
    }"""
OWN = """
import os
import time
from pathlib import Path

from onnx_analog.errors import NothingToStore


def watched(outputs, *, labels, clean):
    if abs(outputs[0] - clean[0]).max() > 1e-4:  # without noise, they are the same but for rounding
        log = Path(os.environ["LOG"])
        with log.open("a") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(float(os.environ.get("PAUSE", 0)))
        late = len(log.read_text().split()) > int(os.environ.get("AFTER", 1000))
        while late and not Path(os.environ["GO"]).exists():
            time.sleep(0.02)
    return float(outputs[0].sum())


def nothing(outputs, *, labels, clean):
    if outputs is clean:
        return 0.0
    raise NothingToStore("there is nothing\\nhere")


def wrong(outputs, *, labels, clean):
    return 0.0 if outputs is clean else 1 / 0
"""
QUIET_WORDS = "gaussian:sigma=0.1"  # as tests.models.QUIET
SMALL = """
    net (float[n, 4] x) => (float[n, 8] y)
    <float[4, 8] a = random, float[8, 8] b = 0.1 random, float[8] bias = random> {
        h = MatMul(x, a)
        r = Relu(h)
        y = Gemm(r, b, bias)
    }"""
FAST = f"model.onnx --data test.npz --strategy sign --cells 1,4 --channel {QUIET_WORDS} --trials 3 --engine serial"
TO = f"sweep {FAST} --out out"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Return a folder of files that tests copy."""
    folder = tmp_path_factory.mktemp("shelf")
    onnx.save(proto(NET), folder / "model.onnx")
    onnx.save(proto(NET, seed=1), folder / "other.onnx")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 16)).astype(np.float32)
    clean = run(proto(NET), {"x": x})[0]
    np.savez(folder / "test.npz", x=x, y=clean.argmax(axis=1))  # so that without noise the model is always right
    (folder / "own_metrics.py").write_text(OWN, encoding="utf-8")
    return folder


Cli = Callable[[str], Any]


@pytest.fixture
def cli(shelf, tmp_path, monkeypatch):
    """Return a function that calls the command line in a folder of a few files; nothing is drawn there."""
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # which other processes take from this one
    monkeypatch.setattr(plots, "can_plot", lambda: False)  # a plot takes longer than all else
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    yield lambda line: CliRunner().invoke(main, shlex.split(line), prog_name="onnx-analog")
    sys.modules.pop("own_metrics", None)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------------------------------- what comes out


def test_a_folder_has_every_trial_every_point_and_what_made_them(cli, tmp_path, monkeypatch):
    monkeypatch.undo()  # so that it is drawn
    monkeypatch.chdir(tmp_path)
    text = done(cli(TO))
    there = {PARQUET, TRIALS, POINTS, CONSTANTS, run_folder.CONFIG, run_folder.PLOT}
    assert set(contents(tmp_path / "out")) - {LOCK} == there
    assert [(row["cells"], row["trial"]) for row in table(tmp_path / "out" / TRIALS)] == [
        (cells, trial) for cells in "14" for trial in "012"
    ]
    assert [(row["cells"], row["trials"]) for row in table(tmp_path / "out" / POINTS)] == [("1", "3"), ("4", "3")]
    assert (tmp_path / "out" / run_folder.PLOT).read_bytes().startswith(b"\x89PNG")
    assert text.rstrip().endswith("trials, points and plot: out")
    assert "not installed" not in text


API: dict[str, dict[str, Any]] = {
    "": {},
    "--strategy raw,redundancy --large-factor 5": {"strategy": ["raw", "redundancy"], "large_factor": 5},
    "--strategy redundancy --scope model --large-fraction 0.2": {
        "strategy": ["redundancy"],
        "granularity": "model",
        "large_fraction": 0.2,
    },
    "--strategy mapping --preset default,isik2020": {"strategy": ["mapping"], "preset": ["default", "isik2020"]},
    "--seed 7 --trials 4": {"seed": 7, "trials": 4},
    "--samples 9 --batch 5": {"samples": 9, "batch": 5},
    "--sparsity 0.5 --prune-scope tensor": {"sparsity": 0.5, "prune_scope": "tensor"},
    "--include a --min-size 100": {"selection": Selection(include=("a",), min_size=100)},
    "--exclude a --exclude c": {"selection": Selection(exclude=("a", "c"))},
    "--write-bits 3": {"modifiers": channels.modifiers.Modifiers(write_bits=3)},
    "--metric own_metrics:watched": {"metric": "own_metrics:watched"},
    "--precision 10 --max-trials 9": {"precision": 10, "max_trials": 9},
}


@pytest.mark.parametrize("line", API)
def test_the_command_is_the_function(cli, tmp_path, line):
    found = body(cli(f"{TO} {line} --json"))
    options = {"strategy": ["sign"], "cells": [1, 4], "channel": [QUIET], "trials": 3, **API[line]}
    swept = oa.sweep("model.onnx", "test.npz", out=tmp_path / "other", engine="serial", **options)
    assert found == json.loads(json.dumps(swept.to_dict()))
    assert found["points"] == [json.loads(json.dumps(point.to_dict())) for point in swept.points]
    assert (tmp_path / "out" / TRIALS).read_bytes() == (tmp_path / "other" / TRIALS).read_bytes()


def test_every_line_above_changes_the_result(cli):
    found = [cli(f"{TO}{place} {line} --json").stdout for place, line in enumerate(API)]
    assert len(set(found)) == len(API)


def test_a_model_a_channel_and_a_file_may_be_several(cli, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(channels.resolve("rram-milo").to_dict()), encoding="utf-8")
    line = "other.onnx --channel pcm,gaussian:sigma=0.1,low=-1,high=1 --channel mine.json --trials 1 --cells 1"
    done(cli(f"{TO} {line}"))
    found = [(row["model"], row["channel"]) for row in table(tmp_path / "out" / POINTS)]
    ends = ("-0.65 to 0.75", "-1 to 1")
    first, second = (f"gaussian (σ 0.1, output range {each})" for each in ends)
    names = [first, "pcm", second, "rram-milo"]
    assert found == [(model, channel) for model in ("model", "other") for channel in names]


def test_without_a_channel_it_is_the_default(cli, tmp_path):
    done(cli(f"{TO} --trials 1".replace(f"--channel {QUIET_WORDS} ", "")))
    assert {row["channel"] for row in table(tmp_path / "out" / POINTS)} == {channels.DEFAULT}


@pytest.mark.parametrize(
    ("line", "unit", "trials"),
    [
        ("--precision 1e-9 --metric own_metrics:watched", 1, {7}),  # noise is a real number: no two are so near
        ("--precision 1e9 --metric own_metrics:watched", 1, {2}),
        ("--precision 20", 100, {4, 7}),  # accuracy, of which two values tell little: Student's t is above 12
    ],
)
def test_precision_adds_trials_until_intervals_are_narrow(cli, tmp_path, line, unit, trials):
    found = body(cli(f"{TO} --trials 2 {line} --max-trials 7 --cells 1,3,10,30 --json"))["points"]
    assert {point["trials"] for point in found} == trials
    precision = float(line.split()[1])
    for point in found:
        low, high = point["ci95"]
        assert point["trials"] == 7 or unit * (high - low) <= precision
    assert len(table(tmp_path / "out" / TRIALS)) == sum(point["trials"] for point in found)


# ------------------------------------------------------------------------------------------- what is printed


def test_only_json_is_printed(cli, tmp_path):
    found = body(cli(f"{TO} --json"))
    assert set(found) == {"points", "warnings"}
    assert [(point["strategy"], point["cells"], len(point["values"])) for point in found["points"]] == [
        ("sign", 1, 3),
        ("sign", 4, 3),
    ]


def test_tables_show_all_strategies_and_what_each_is_above_the_first(cli):
    text = done(cli(f"{TO} --strategy {','.join(STRATEGIES)}"))
    points, between, differences = text.partition(f"difference from {next(iter(STRATEGIES))}")
    assert between
    assert "1 cell" in points
    assert "4 cells" in points
    assert [name for name in STRATEGIES if f" {name} " in points] == list(STRATEGIES)
    assert [name for name in STRATEGIES if f" {name} " in differences] == list(STRATEGIES)[1:]


def test_one_strategy_has_nothing_to_be_above(cli):
    assert "above" not in done(cli(TO))


def test_without_matplotlib_there_is_no_plot_and_that_is_told(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "can_plot", lambda: False)
    assert "pip install 'onnx-analog[report]'" in done(cli(TO))
    assert run_folder.PLOT not in contents(tmp_path / "out")
    assert TRIALS in contents(tmp_path / "out")


@pytest.mark.parametrize("verbose", ["", " --verbose"])
def test_without_pyarrow_there_is_no_parquet_and_that_is_told_on_demand(cli, tmp_path, monkeypatch, caplog, verbose):
    monkeypatch.setattr(run_folder, "can_parquet", lambda: False)
    assert "arquet" not in done(cli(f"{TO}{verbose}"))
    assert ("pip install 'onnx-analog[parquet]'" in caplog.text) == bool(verbose)
    assert PARQUET not in contents(tmp_path / "out")
    assert TRIALS in contents(tmp_path / "out")


def test_without_trials_there_are_costs_and_no_plot(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "can_plot", lambda: True)
    text = done(cli(f"{TO} --trials 0 --engine dask"))  # which no trial needs
    assert "no trial" in text
    assert set(contents(tmp_path / "out")) - {LOCK} == {POINTS, CONSTANTS, run_folder.CONFIG}


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--strategy none", "strategy is 'none'; choose from"),
        ("--strategy sign,sign", "sign twice"),
        ("--strategy sign,,raw", "invalid value for '--strategy'"),
        ("--cells 1,1", "1 twice"),
        ("--preset paper", "preset is 'paper'; choose from default, isik2020"),
        ("--scope layer", "invalid value for '--granularity' / '--scope'"),
        ("--channel ''", "invalid value for '--channel'"),
        ("--channel gaussian:sigma=0.1,gaussian:sigma=0.1", "twice"),
        (
            "--strategy mapping --preset default,isik2020 --scope model --large-fraction 0.1",
            "the presets default, isik2020 do not differ",
        ),
        ("--include '('", "'('"),
        ("--trials 1 --precision 1", "with precision, trials must be from 2 to --max-trials"),
        (
            "--trials 9 --precision 1 --max-trials 8",
            "trials must be from 2 to --max-trials; trials is 9, and --max-trials 8",
        ),
        ("--engine spark", "invalid value for '--engine'"),
        ("--workers 2", "workers is an option of the engine local, and the engine is serial"),
        ("--scheduler tcp://host:8786", "scheduler is an option of the engine dask, and the engine is serial"),
        ("--address auto", "address is an option of the engine ray, and the engine is serial"),
        ("--engine dask --workers 2", "workers is an option of the engine local, and the engine is dask"),
        ("--metric own_metrics", "no metric is called 'own_metrics'"),
        ("--metric own_metrics:none", "own_metrics:none"),
        ("--preprocess nowhere:function", "nowhere:function"),
        ("--providers NoProvider", "NoProvider"),
        ("model.onnx", "two models are called 'model'"),
        ("--nonsense", "no such option"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(cli, tmp_path, line, said):
    before = contents(tmp_path)
    assert_refused(cli(f"{TO} {line}"), 2, said)
    assert {name for name in contents(tmp_path) if not name.startswith("__pycache__")} == set(before)


@pytest.mark.parametrize("missing", ["model.onnx ", "--data test.npz ", " --out out"])
def test_what_is_needed_is_asked_for(cli, missing):
    assert_refused(cli(TO.replace(missing, "")), 2, "missing")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("own_metrics.py", 1, "own_metrics.py"),
        ("--channel none", 2, "no channel is called 'none'"),
        ("--min-size 100000", 3, "nothing to store"),
        ("--data model.onnx", 1, "model.onnx"),
        ("--out model.onnx", 1, "model.onnx"),
        ("--metric own_metrics:nothing", 3, "there is nothing here"),
        ("--metric own_metrics:nothing --engine local --workers 1", 3, "there is nothing here"),
    ],
)
def test_what_fails_is_one_line(cli, line, code, said):
    assert_refused(cli(f"{TO} {line}"), code, said)


def test_an_error_that_was_not_foreseen_is_one_line_too(cli):
    found = cli(f"{TO} --metric own_metrics:wrong")
    assert found.exit_code == 1
    said = "the metric 'own_metrics:wrong' failed with ZeroDivisionError: division by zero. --debug shows where"
    assert found.stderr == f"Error: {said}\n"


@pytest.mark.parametrize(("name", "module"), [("dask", dask_cluster), ("ray", ray_cluster)])
def test_an_engine_that_is_not_installed_is_told(cli, monkeypatch, name, module):
    monkeypatch.setattr(module, "find_spec", lambda package: None)
    assert_refused(cli(f"{TO} --engine {name}"), 2, f"pip install 'onnx-analog[{name}]'")


# ------------------------------------------------------------------------------------------ a file of options

ENTRIES = [
    ("cells = [1, 4]", "--cells 1,4"),
    ("cells = 4", "--cells 4"),
    ('cells = "1,4"', "--cells 1,4"),
    ('strategy = ["raw", "sign"]', "--strategy raw,sign"),
    ('strategy = "raw,sign"', "--strategy raw,sign"),
    ('preset = "isik2020"', "--preset isik2020"),
    ("large-fraction = 0.1", "--large-fraction 0.1"),
    ("large_fraction = 0.1", "--large-fraction 0.1"),
    ("large_fraction = 1", "--large-fraction 1"),
    ('scope = "model"', "--scope model"),
    ("seed = 3", "--seed 3"),
    ("mean = [0.1, 0.2, 0.3]", "--mean 0.1,0.2,0.3"),
    ("mean = 0.5", "--mean 0.5"),
    ('channel = ["rram-milo", "gaussian:sigma=0.1"]', "--channel rram-milo,gaussian:sigma=0.1"),
    ('channel = ["gaussian:sigma=0.1,low=-1,high=1"]', "--channel gaussian:sigma=0.1,low=-1,high=1"),
    ('channel = ["pcm-drift"]\nread-after = "1h"', "--channel pcm-drift --read-after 1h"),
    ('channel = ["pcm-drift"]\nread_after = 3600', "--channel pcm-drift --read-after 3600"),
    ('include = ["a", "b"]', "--include a --include b"),
    ('providers = ["One", "Other"]', "--providers One,Other"),
    ('engine = "local"\nworkers = 2\nthreads = 1', "--engine local --workers 2 --threads 1"),
    ('engine = "dask"\nscheduler = "tcp://host:8786"', "--engine dask --scheduler tcp://host:8786"),
    ('metric = "own_metrics:watched"', "--metric own_metrics:watched"),
    ("# nothing", ""),
    ('channel = "rram-milo"', "--channel rram-milo"),
    ('include = "a"', "--include a"),
]


def asked(line: str) -> dict[str, Any]:
    """Return what the options of a command line are."""
    found = dict(sweep.command.make_context("sweep", shlex.split(line)).params)
    return {**found, "channel": [spec for specs in found["channel"] for spec in specs]}


@pytest.mark.parametrize(("text", "flags"), ENTRIES)
def test_an_entry_is_what_its_flag_is(cli, text, flags):
    Path("c.toml").write_text(text, encoding="utf-8")
    models = "" if text.startswith("models") else " model.onnx"
    rest = "--data test.npz --out out" + models
    assert asked(f"{rest} --config c.toml") == asked(f"{rest} {flags}")
    assert (asked(f"{rest} {flags}") != asked(rest + (" model.onnx" * (not models)))) == bool(flags)


def test_everything_may_be_in_the_file(cli, tmp_path):
    text = 'models = ["model.onnx"]\ndata = "test.npz"\nout = "out"\ntrials = 0\ncells = 7\nchannel = "rram-milo"\n'
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    done(cli("sweep --config c.toml"))
    assert [row["cells"] for row in table(tmp_path / "out" / POINTS)] == ["7"] * len(STRATEGIES)


def test_flags_win_over_the_file(cli):
    Path("c.toml").write_text('cells = [1]\nstrategy = "raw"\nchannel = "pcm"\nmodels = "other.onnx"\ndata = "none"\n')
    found = asked("model.onnx --data test.npz --out out --cells 5 --channel rram-milo --config c.toml")
    assert (found["cells"], found["channel"], found["models"]) == ((5,), ["rram-milo"], (Path("model.onnx"),))
    assert found["strategy"] == ("raw",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("large-factor = 3\nlarge_factor = 4", "has the entry 'large_factor' twice, under two names"),
        ("cells = true", "the --config file has true; it must be a number or text, or a list of them"),
        ("trials = 1e3", "'1000.0' is not a whole number"),
        ("cell = 1", "c.toml has an entry 'cell', which cannot be set there: did you mean 'cells'?"),
        ("config = 'c.toml'", "'config'"),
        ("save-config = 'd.toml'", "'save-config'"),
        ("json = true", "'json'"),
        ("debug = true", "'debug'"),
        ("[sweep]\ncells = 1", "'sweep'"),
        ("cells = ", "c.toml is not valid TOML"),
        ("cells = 1\ncells = 2", "c.toml is not valid TOML"),
        (f"cells = {'[' * 5000}{']' * 5000}", "c.toml is not valid TOML: it is nested too deeply"),
        (f"cells = 0x{'f' * 5000}", "a number of more than 64 bits"),
        (f"cells = {'9' * 5000}", "c.toml is not valid TOML"),
        (f"{'x' * 5000} = 1", "has an entry 'xxx"),
        ("#" * 2**17 + "\n", "has 131,073 bytes, more than the 131,072"),
        ('out = "a\\u0000b"', "a path cannot hold a zero byte"),
        ('data = "a\\u0000b"', "a path cannot hold a zero byte"),
        ('save_config = "-"', "'save_config'"),
        ('out = "-"', "would be a file, not the standard output"),
        ('trials = "many"', "--trials"),
        ("trials = -1", "--trials"),
        ('cells = ["one"]', "--cells"),
        ("cells = [0]", "--cells"),
        ("cells = []", "cells must not be empty"),
        ('precision = "narrow"', "--precision"),
        ("precision = nan", "--precision"),
        ('mean = ["a"]', "--mean"),
        ('large_fraction = "half"', "--large-fraction"),
        ("scope = 1", "--scope"),
        ('scope = "layer"', "--scope"),
        ('engine = "spark"', "--engine"),
        ("read_after = [1]", "--read-after"),
        ('data = "none.npz"', "--data"),
        ('models = ["none.onnx"]', "MODELS"),
        ("trials = [2]", "--"),
        ("trials = 1979-05-27", "--"),
        ("strategy = 3", "--"),
        ("channel = [1]", "--"),
        ("large_fraction = [0.1]", "--"),
        ("data = 5", "--"),
        ('data = ["test.npz"]', "--"),
        ("out = 5", "--"),
        ("models = [5]", "MODELS"),
        ("trials = 2.5", "--"),
        ("trials = true", "--"),
        ("seed = true", "--"),
        ("seed = 1.5", "--"),
        ("cells = [1.5]", "--"),
        ("cells = [true]", "--"),
        ("large_fraction = true", "--"),
        ("write_bits = true", "--"),
        ("strategy = {sign = 1}", "--"),
    ],
)
def test_a_file_that_is_wrong_is_refused(cli, tmp_path, text, said):
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    name = text.partition(" ")[0]
    given = {
        "models": "model.onnx",
        "data": "--data test.npz",
        "out": "--out out",
        "trials": "--trials 0",
        "strategy": "--strategy sign",
        "cells": "--cells 1",
        "channel": f"--channel {QUIET_WORDS}",
    }
    line = " ".join(words for option, words in given.items() if option != name)
    assert_refused(cli(f"sweep {line} --config c.toml"), 2, said)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_text_is_refused(cli, tmp_path):
    (tmp_path / "c.toml").write_bytes(b"cells = 1 # \xff")
    assert_refused(cli(f"{TO} --config c.toml"), 2, "'c.toml' is not UTF-8 text")


@pytest.mark.parametrize("path", ["none.toml", "."])
def test_a_file_that_is_not_there_is_refused(cli, path):
    assert_refused(cli(f"{TO} --config {path}"), 2, "--config")


ALL = (
    "--strategy raw,redundancy --cells 2,5 --large-factor 7 --preset isik2020 --scope tensor --large-fraction 0.25 "
    "--channel pcm,gaussian:sigma=0.1,low=-1,high=1 --write-bits 6 --read-bits 5 --include '[ab]' "
    "--exclude c --min-size 9 --sparsity 0.25 --prune-scope tensor --trials 2 --precision 0.001 --max-trials 3 "
    "--seed 11 --mean 0.1 --std 0.5,0.25,2,1 --metric own_metrics:watched --samples 20 --batch 7 --engine serial "
    "--threads 2 --correct gain --counting paper"
)


def test_what_is_saved_gives_the_same_sweep(cli, tmp_path):
    onnx.save(proto(SMALL), tmp_path / "model.onnx")  # each level of a channel without closed form takes 20,000 reads
    onnx.save(proto(SMALL, seed=1), tmp_path / "other.onnx")
    np.savez(tmp_path / "test.npz", x=np.random.default_rng(0).integers(256, size=(60, 4), dtype=np.uint8))
    done(cli(f"sweep model.onnx other.onnx --data test.npz {ALL} --out one --save-config saved.toml"))
    saved = tomllib.loads((tmp_path / "saved.toml").read_text(encoding="utf-8"))
    assert saved == tomllib.loads((tmp_path / "one" / run_folder.CONFIG).read_text(encoding="utf-8"))
    for place, path in enumerate(["saved.toml", f"one/{run_folder.CONFIG}"]):
        done(cli(f"sweep --config {path} --out again{place}"))
        for name in (TRIALS, POINTS, CONSTANTS):
            assert (tmp_path / f"again{place}" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_defaults_that_do_nothing_are_not_saved(cli, tmp_path):
    (tmp_path / "i8.json").write_text(oa.Plan.of(oa.Scheme.int8()).to_json(), encoding="utf-8")
    model, data = str(tmp_path / "model.onnx"), str(tmp_path / "test.npz")
    done(cli("sweep model.onnx --data test.npz --cells 1 --grid strategy=raw,sign --trials 0 --out varied"))
    oa.sweep(model, data, strategy=[], plan=str(tmp_path / "i8.json"), trials=0, out=tmp_path / "plans")
    for name in ("varied", "plans"):
        done(cli(f"sweep --config {name}/{run_folder.CONFIG} --out again-{name}"))
        assert (tmp_path / f"again-{name}" / POINTS).read_bytes() == (tmp_path / name / POINTS).read_bytes()


@pytest.mark.parametrize(
    ("more", "others"),
    [
        ("", set()),
        ("--rivals", {"int8 per tensor"}),
        ("--strategy raw --cells 1", {"raw"}),
        ("--cells 1", set(STRATEGIES)),
        ("--grid cells_small=1", set(STRATEGIES)),
    ],
)
def test_plans_are_compared_alone_unless_strategies_are_asked_for(cli, tmp_path, more, others):
    (tmp_path / "i8.json").write_text(oa.Plan.of(oa.Scheme.int8()).to_json(), encoding="utf-8")
    found = body(cli(f"sweep model.onnx --data test.npz --plan i8.json --trials 0 {more} --json --out out"))
    names = {point["strategy"] for point in found["points"]}
    assert names >= {"i8", *others}
    assert (names & set(STRATEGIES)) == (others & set(STRATEGIES))
    assert (names == {"i8"}) == (more == "")
    done(cli(f"sweep --config out/{run_folder.CONFIG} --out again"))
    assert (tmp_path / "again" / POINTS).read_bytes() == (tmp_path / "out" / POINTS).read_bytes()


def test_plans_alone_have_a_table_of_their_correction(cli, tmp_path):
    (tmp_path / "i8.json").write_text(oa.Plan.of(oa.Scheme.int8()).to_json(), encoding="utf-8")
    shown = done(cli("sweep model.onnx --data test.npz --plan i8.json --trials 2 --correct gain --out out"))
    assert "correction by the law of the channel: plans" in shown


def test_a_channel_beside_plans_alone_is_refused(cli, tmp_path):
    (tmp_path / "i8.json").write_text(oa.Plan.of(oa.Scheme.int8()).to_json(), encoding="utf-8")
    said = "--channel is given, and only plans are compared, which have their own: leave it out, or name strategies"
    assert_refused(cli("sweep model.onnx --data test.npz --plan i8.json --channel pcm --trials 0 --out out"), 2, said)


def test_all_options_are_saved_but_those_of_saving(cli, tmp_path):
    line = f"model.onnx --data test.npz {ALL} --out out --read-after 1h --cells-on different --residuals gaussian "
    line += "--cells-hold level --preprocess a:b --output y --class-axis 1 --correct gain --rivals --limit "
    line += "--max-drop 3 --lower-is-better --correct-samples 256 --compensate-samples 256 "
    line += "--report r.html --compensate test.npz "
    line += "--save-config saved.toml --workers 2 --scheduler a --address b"  # exclude each other
    context = sweep.command.make_context("sweep", shlex.split(line))
    names = {parameter.name for parameter in sweep.command.params} - {"config", "save_config", "force", "as_json"}
    saved = names - {"debug", "load", "verbose", "quiet"}
    assert set(tomllib.loads(sweep._toml(context))) == saved
    assert set(tomllib.loads(sweep._toml(context, without=("report",)))) == saved - {"report"}


def test_the_cheapest_point_within_a_limit_is_named(cli, tmp_path):
    line = f"sweep model.onnx --data test.npz --channel {QUIET_WORDS} --cells 1,4 --trials 3 --max-drop 100"
    shown = done(cli(f"{line} --out out --report out.html"))
    (answer,) = oa.sweep("model.onnx", "test.npz", channel=QUIET_WORDS, cells=[1, 4], trials=3).within(100)
    assert answer.holds is True
    told, note = (" ".join(text.split()) for text in (str(answer), NOTE))
    assert f"{told} {note}" in " ".join(shown.split())
    (entry,) = json.loads(done(cli(f"{line} --out out --json")))["within"]
    assert (entry["line"], entry["point"]["cells_per_weight"]) == (str(answer), answer.point.honest_cost)
    assert f"{str(answer)[1:]}." in (tmp_path / "out.html").read_text(encoding="utf-8")
    (paper,) = json.loads(done(cli(f"{line} --out out --json --counting paper")))["within"]
    assert paper["counting"] == "paper"
    assert tomllib.loads((tmp_path / "out" / run_folder.CONFIG).read_text(encoding="utf-8"))["max_drop"] == 100


def test_a_limit_of_what_has_no_loss_is_refused(cli, tmp_path):
    refused = cli("sweep model.onnx --data test.npz --metric sqnr_db --max-drop 1 --out out")
    assert_refused(refused, 2, "--max-drop is given, and sqnr_db compares with the outputs of the original")
    assert not (tmp_path / "out").exists()


def test_a_saved_file_is_there_even_if_the_sweep_fails(cli, tmp_path):
    assert_refused(cli(f"{TO} --metric own_metrics:nothing --save-config saved.toml"), 3)
    assert tomllib.loads((tmp_path / "saved.toml").read_text(encoding="utf-8"))["cells"] == [1, 4]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--save-config model.onnx --force", "'model.onnx' is an input"),
        ("--save-config test.npz --force", "'test.npz' is an input"),
        ("--save-config c.toml --config c.toml --force", "'c.toml' is an input"),
        ("--save-config c.toml", "'c.toml' already exists: replace it with --force"),
        ("--save-config none/c.toml", "cannot write in the folder 'none'"),
        ("--save-config pipe --force", "is a device, a pipe or a socket"),
        ("--channel mine.json --save-config mine.json --force", "'mine.json' is an input"),
        ("--grid channel=pcm,mine.json --save-config mine.json --force", "'mine.json' is an input"),
        ("--grid side-channel=none,mine.json --save-config mine.json --force", "'mine.json' is an input"),
    ],
)
def test_options_are_not_saved_over_what_is_read_or_there(cli, tmp_path, line, said):
    (tmp_path / "c.toml").write_text("seed = 0\n", encoding="utf-8")
    (tmp_path / "mine.json").write_text(json.dumps(channels.resolve("gaussian").to_dict()), encoding="utf-8")
    os.mkfifo(tmp_path / "pipe")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert_refused(cli(f"{TO} {line}"), 1, said)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "out").exists()


def test_saved_options_are_replaced_by_force_and_are_no_result(cli, tmp_path):
    (tmp_path / "c.toml").write_text("old", encoding="utf-8")
    assert_refused(cli(f"{TO} --save-config out/{POINTS}"), 2, "would be the same file")
    assert_refused(cli(f"{TO} --save-config out"), 2, "'out' would be a file and a folder")
    done(cli(f"{TO} --trials 0 --save-config c.toml --force"))
    assert tomllib.loads((tmp_path / "c.toml").read_text(encoding="utf-8"))["trials"] == 0


@pytest.mark.parametrize("name", [TRIALS, POINTS, CONSTANTS, "points.png", "sweep.toml"])
def test_a_result_is_not_written_over_an_input(cli, tmp_path, name):
    (tmp_path / "out").mkdir()
    shutil.copy(tmp_path / "model.onnx", tmp_path / "out" / name)
    before = (tmp_path / "out" / name).read_bytes()
    line = FAST.replace("model.onnx", f"out/{name}")
    assert_refused(cli(f"sweep {line} --out out"), 1, "is an input")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "out").iterdir()] == [(name, before)]


@pytest.mark.parametrize("line", ["--metric own_metrics:nothing", "--metric own_metrics:wrong", "--workers 2"])
def test_nothing_is_left_after_a_refusal_that_computed_nothing(cli, tmp_path, line):
    before = set(contents(tmp_path))
    assert cli(f"{TO}/deep/er {line}").exit_code
    assert set(contents(tmp_path)) - {"__pycache__", "log"} == before - {"__pycache__", "log"}


# --------------------------------------------------------------------------------------- again, and interrupted


def test_what_is_there_is_not_computed_again(cli, tmp_path):
    line = f"{TO} --metric own_metrics:watched"
    done(cli(line))
    before, log = contents(tmp_path / "out"), tmp_path / "log"
    assert processes(log).total() == 6
    done(cli(line))
    assert contents(tmp_path / "out") == before
    assert processes(log).total() == 6
    done(cli(f"{line} --cells 1,2,4 --trials 4"))
    assert processes(log).total() == 6 + 4 + 2


@pytest.mark.parametrize(("line", "said"), [("--seed 1", 0), ("--samples 9", 60), ("--batch 9", 64)])
def test_a_folder_of_another_sweep_is_refused_and_kept(cli, tmp_path, line, said):
    done(cli(TO))
    before = contents(tmp_path / "out")
    assert_refused(
        cli(f"{TO} {line}"), 1, f"Error: {line.replace(' ', ' is ')}, and it is {said} in the sweep of 'out'"
    )
    assert contents(tmp_path / "out") == before


def test_a_folder_of_images_that_were_normalised_otherwise_names_the_option(cli, tmp_path):
    np.savez("bytes.npz", x=np.full((9, 16), 51, np.uint8), y=np.zeros(9, int))
    line = TO.replace("test.npz", "bytes.npz")
    done(cli(line))
    assert_refused(cli(f"{line} --mean 0.5"), 1, "Error: --mean is 0.5, and it is 0.0 in the sweep of 'out': choose")


def test_a_folder_of_a_metric_that_was_changed_is_refused_and_kept(cli, tmp_path):
    line = f"{TO} --metric own_metrics:watched"
    done(cli(line))
    before = contents(tmp_path / "out")
    other = OWN.replace("outputs[0].sum()", "outputs[0].max()")
    (tmp_path / "own_metrics.py").write_text(other, encoding="utf-8")
    sys.modules.pop("own_metrics")
    linecache.clearcache()
    assert_refused(cli(line), 1, "holds a sweep with another function as metric")
    assert contents(tmp_path / "out") == before


def test_a_folder_of_inputs_that_were_made_in_another_way_is_refused(cli, tmp_path):
    line = f"{TO} --preprocess own_inputs:made"
    for factor, code in ((1, 0), (2, 1)):
        (tmp_path / "own_inputs.py").write_text(f"def made(array):\n    return {factor} * array\n", encoding="utf-8")
        importlib.invalidate_caches()
        found = cli(line)
        assert found.exit_code == code
        sys.modules.pop("own_inputs")
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    assert "holds a sweep with other inputs of the model" in found.stderr


WATCHED = FAST.replace("--trials 3 --engine serial", "--trials 5 --metric own_metrics:watched --out out")
TEN = 10  # trials of these


def begun(folder: Path, engine: str, **variables: object) -> subprocess.Popen[str]:
    """Return the command, as it runs in a process of its own; its workers are those of its group."""
    line = [sys.executable, "-m", "onnx_analog", "sweep", *shlex.split(WATCHED), *shlex.split(engine)]
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    found = {"PYTHONPATH": str(ROOT), "TMPDIR": str(scratch), "GO": str(folder / "go"), **variables}
    env = {**os.environ, **{name: str(value) for name, value in found.items()}}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(line, cwd=folder, env=env, start_new_session=True, preexec_fn=heed_interrupts, **pipes)


def heed_interrupts() -> None:
    """Take interrupts, which a process in the background ignores (`nohup make test &`), and all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code and what is on stderr."""
    _, error = process.communicate(timeout=120)
    return process.returncode, error


@pytest.fixture
def start(cli, tmp_path):
    """Return `begun`, in this test's folder; whatever is left of it is killed."""
    running = []

    def call(engine, **variables):
        running.append(begun(tmp_path, engine, **variables))
        return running[-1]

    yield call
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def whole(cli, tmp_path, monkeypatch):
    """Return the files of a sweep that was never interrupted."""
    monkeypatch.setenv("LOG", str(tmp_path / "whole-log"))
    done(cli(f"sweep {WATCHED} --engine serial --out whole"))
    return {name: (tmp_path / "whole" / name).read_bytes() for name in (TRIALS, POINTS, CONSTANTS)}


@pytest.mark.parametrize("engine", ["--engine serial", "--engine local --workers 2"])
def test_a_sweep_that_is_killed_goes_on_where_it_was(start, whole, tmp_path, engine):
    out = tmp_path / "out"
    killed = start(engine, LOG=tmp_path / "one", AFTER=3)
    until(lambda: rows(out) and processes(tmp_path / "one").total() > 3)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    kept = rows(out)
    assert 1 <= len(kept) <= 3
    assert ended(start(engine, LOG=tmp_path / "two")) == (0, "")
    assert {name: (out / name).read_bytes() for name in whole} == whole
    assert set(kept) <= set(rows(out))
    assert processes(tmp_path / "two").total() == TEN - len(kept)


def numbers(folder: Path) -> dict[str, bytes]:
    """Return the files that do not depend on where and how a sweep ran."""
    return {name: (folder / name).read_bytes() for name in (TRIALS, POINTS, CONSTANTS)}


KILLS = 16
PAUSE = 0.05  # s, of a trial
SIXTY = 60  # trials of these
HANDS = 0.5 / PAUSE + 1  # trials of half a second, which a worker has in its hands
# Of two workers, as much of what they ended may be on its way.
UNDER_WAY = {"--engine serial": HANDS, "--engine local --workers 2": 2 * 2 * HANDS}


def part_of(process: subprocess.Popen[str], log: Path, took: float, number: int) -> None:
    """Wait for a part of the time, or for a part of the trials; early and late ones are mixed."""
    part = (7 * number % KILLS + 0.5) / KILLS
    if number % 2:
        time.sleep(took * part)
    else:
        until(lambda: process.poll() is not None or processes(log).total() >= SIXTY * part)


def kill(process: subprocess.Popen[str], log: Path, out: Path, *, all_of_it: bool) -> tuple[int, list[str]]:
    """Kill a sweep, and then its workers; return how many trials had begun, and the rows that are there."""
    (os.killpg if all_of_it else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    begun_now, there = processes(log).total(), rows(out)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return begun_now, there


@pytest.mark.slow(reason="a sweep is killed at sixteen moments and resumed after each: 3 min, 600 MB")
@pytest.mark.parametrize("engine", UNDER_WAY)
@pytest.mark.parametrize("all_of_it", [False, True], ids=["the command", "all of its processes"])
def test_a_sweep_that_is_killed_at_any_time_loses_what_is_under_way_at_most(start, cli, tmp_path, engine, all_of_it):
    most, engine, started = UNDER_WAY[engine], f"{engine} --trials 30", time.monotonic()
    assert ended(start(f"{engine} --out whole", LOG=tmp_path / "whole-log", PAUSE=PAUSE)) == (0, "")
    took, whole, out, met = time.monotonic() - started, tmp_path / "whole", tmp_path / "out", set()
    for number in range(KILLS):
        kept, log = rows(out), tmp_path / f"log{number}"
        process = start(engine, LOG=log, PAUSE=PAUSE)
        part_of(process, log, took, number)
        if process.poll() is None:
            begun_now, there = kill(process, log, out, all_of_it=all_of_it)
            there = [row for row in there if row in rows(whole)]  # the last may be half a row
            assert set(kept) <= set(there)
            assert begun_now - (len(there) - len(kept)) <= most
            met.add(len(there))
        else:
            assert process.returncode == 0
            assert numbers(out) == numbers(whole)
            shutil.rmtree(out)
    assert met & set(range(1, SIXTY)), "all were killed before anything was done, or after"
    assert ended(start(engine, LOG=tmp_path / "last", PAUSE=PAUSE)) == (0, "")
    assert numbers(out) == numbers(whole)


@pytest.mark.slow(reason="eight sweeps of 60 trials of 0.05 s, with a worker killed in each: 2 min, 600 MB")
def test_a_worker_that_is_killed_at_any_time_changes_nothing(start, cli, tmp_path):
    engine = "--engine local --workers 2 --trials 30"
    began = time.monotonic()
    assert ended(start(f"{engine} --out whole", LOG=tmp_path / "whole-log", PAUSE=PAUSE)) == (0, "")
    took, killed = time.monotonic() - began, 0
    for number in range(0, KILLS, 2):
        out, log = tmp_path / f"out{number}", tmp_path / f"log{number}"
        process = start(f"{engine} --out {out.name}", LOG=log, PAUSE=PAUSE)
        time.sleep(took * (number + 0.5) / KILLS)
        for worker in list(processes(log))[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                killed += 1
        assert ended(process) == (0, "")
        assert numbers(out) == numbers(tmp_path / "whole")
    assert killed


def test_workers_of_a_killed_sweep_end_soon_and_what_they_share_goes_with_them(start, tmp_path):
    log = tmp_path / "one"
    killed = start("--engine local --workers 1", LOG=log, AFTER=1)
    until(lambda: processes(log).total() > 1)
    assert shared(tmp_path)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    until(lambda: not any(map(runs, processes(log))), seconds=10)
    until(lambda: not shared(tmp_path), seconds=10)


def shared(folder: Path) -> list[Path]:
    """Return what processes of one sweep share, in the folder of their temporary files."""
    return list((folder / "scratch").glob("onnx-analog-*"))


def test_a_sweep_that_is_interrupted_ends_with_its_workers(start, whole, tmp_path):
    out, log = tmp_path / "out", tmp_path / "one"
    process = start("--engine local --workers 2", LOG=log, AFTER=3)
    until(lambda: rows(out) and processes(log).total() > 3)
    os.kill(process.pid, signal.SIGINT)
    code, error = ended(process)
    assert (code, error.strip()) == (
        1,
        "Error: stopped. Completed trials are kept: run the same command again to continue",
    )
    until(lambda: not any(map(alive, processes(log))))
    assert shared(tmp_path) == []
    assert ended(start("--engine serial", LOG=tmp_path / "two")) == (0, "")
    assert {name: (out / name).read_bytes() for name in whole} == whole


def test_a_second_sweep_on_a_folder_is_told_and_the_first_goes_on(start, cli, whole, tmp_path):
    out = tmp_path / "out"
    process = start("--engine serial", LOG=tmp_path / "one", AFTER=1)
    until(lambda: processes(tmp_path / "one").total() > 1)
    before = contents(out)
    assert_refused(cli(f"sweep {WATCHED} --engine serial"), 1, "another sweep writes to 'out'")
    assert contents(out) == before
    (tmp_path / "go").touch()
    assert ended(process) == (0, "")
    assert {name: (out / name).read_bytes() for name in whole} == whole
