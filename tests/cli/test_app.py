import errno
import inspect
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points, version
from importlib.resources import files as packaged
from pathlib import Path
from typing import Any, NamedTuple

import click
import jsonschema
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import scipy.stats
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog import api, channels, demo, plots
from onnx_analog.channels import fitting
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.cli import main
from onnx_analog.cli.types import Finite, Floats, Integers, Seconds
from onnx_analog.coding.scheme import PRESETS, STRATEGIES
from onnx_analog.graph.accounting import account
from onnx_analog.graph.files import load
from onnx_analog.graph.manifest_json import read as read_manifest
from onnx_analog.graph.stored import is_protected, stored_tensors
from onnx_analog.graph.weights import Selection, find
from onnx_analog.run.evaluation import Evaluation
from onnx_analog.tuning import candidates
from tests.models import proto, run, same_bits, serialized

SCHEMA = json.loads((packaged("onnx_analog.graph") / "manifest.schema.json").read_text(encoding="utf-8"))
SCRIPT = Path(sys.executable).with_name("onnx-analog")

NET = """
    net (float[n, 16] x) => (float[n, 32] y)
    <float[16, 32] a = random, float[32, 32] b = 0.1 random, float[32] bias = random> {
        h = MatMul(x, a)
        r = Relu(h)
        y = Gemm(r, b, bias)
    }"""
OLD = """
    <ir_version: 6, opset_import: ["" : 10]>
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] w = random> { y = MatMul(x, w) }"""
FUNCTIONS = """
import numpy as np

def total(outputs, *, labels, clean):
    return float(outputs[0].astype(np.float64).sum())

def nothing(outputs, *, labels, clean):
    return float("nan")

def wrong(outputs, *, labels, clean):
    raise ZeroDivisionError("a\\nb")

def twice(array):
    return 2 * array

number = 3
"""
FIT = "channel fit pairs.csv --input volts --output ohms"


# ---------------------------------------------------------------------------------------------- files and calls


def write_models(folder: Path) -> None:
    onnx.save(proto(NET), folder / "model.onnx")
    onnx.save(proto(NET, seed=1), folder / "other.onnx")
    onnx.save(proto(OLD), folder / "old.onnx")
    for name in ("model", "other"):
        protected = oa.protect(folder / f"{name}.onnx")
        protected.save(folder / f"{name}.protected.onnx")
        (folder / f"{name}.manifest.json").write_text(protected.manifest.to_json(), encoding="utf-8")
    (folder / "text.onnx").write_text("this is no model\n", encoding="utf-8")
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "word.json").write_text("nothing", encoding="utf-8")
    (folder / "list.json").write_text("[1]", encoding="utf-8")


def write_statistics(folder: Path) -> None:
    columns = oa.write_image(folder / "model.protected.onnx", folder / "cells.npz").columns()
    reads = {"address": columns["address"], "value": columns["level"]}
    for name, given in (("measured", {"measured": reads, "unit": "scaled"}), ("simulated", {"trials": 2})):
        found = oa.array_statistics(folder / "model.protected.onnx", **given)
        (folder / f"{name}.json").write_text(found.to_json(), encoding="utf-8")


def write_data(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 16)).astype(np.float32)
    clean = run(load(folder / "model.onnx"), {"x": x})[0]
    np.savez(folder / "test.npz", x=x, y=clean.argmax(axis=1))  # so that the model is always right
    np.savez(folder / "unlabelled.npz", x=x)
    write_statistics(folder)
    images = rng.integers(256, size=(20, 4, 4), dtype=np.uint8)
    np.savez(folder / "images.npz", x=images)
    np.savez(folder / "scaled.npz", x=((images / 255 - 0.5) / 0.25).reshape(20, 16).astype(np.float32))
    np.savez(folder / "wide.npz", x=np.zeros((4, 17), np.float32))
    np.savez(folder / "named.npz", q=x)
    np.savez(folder / "few_labels.npz", x=x, y=np.zeros(3, np.int64))
    np.savez(folder / "objects.npz", x=np.array([{}]))


def write_pairs(folder: Path) -> None:
    rng = np.random.default_rng(1)
    volts = np.repeat(np.linspace(0, 2, 20), 20)
    ohms = 10 ** (3 + volts + 0.1 * rng.normal(size=volts.size))
    text = ["volts,ohms,device", *(f"{v},{o},{i % 4}" for i, (v, o) in enumerate(zip(volts, ohms, strict=True)))]
    (folder / "pairs.csv").write_text("\n".join(text), encoding="utf-8")
    for name, rows in CSV.items():
        (folder / name).write_text("volts,ohms\n" + rows, encoding="utf-8")


CSV = {
    "text.csv": "1,two\n2,3\n",
    "nan.csv": "1,nan\n2,1\n1,2\n",
    "infinite.csv": "1,1\n2,inf\n1,2\n",
    "level.csv": "1,1\n1,2\n1,3\n",
    "output.csv": "1,1\n2,1\n1,1\n2,1\n",
    "negative.csv": "1,-1\n2,3\n1,2\n",
    "zero.csv": "1,0\n2,3\n1,2\n",
    "no_rows.csv": "",
    "short.csv": "1,2\n3\n",
}


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """Return a folder of files that tests copy."""
    folder = tmp_path_factory.mktemp("shelf")
    write_models(folder)
    write_data(folder)
    write_pairs(folder)
    (folder / "own_functions.py").write_text(FUNCTIONS, encoding="utf-8")
    return folder


Cli = Callable[[str], Any]


@pytest.fixture
def cli(shelf, tmp_path, monkeypatch) -> Iterator[Cli]:
    """Return a function that calls the command line in an empty folder, to which it copies the files that are named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def call(line: str) -> Any:
        arguments = shlex.split(line)
        for word in arguments:
            if (shelf / word).is_file() and not Path(word).exists():
                shutil.copy(shelf / word, word)
        if "own_functions:" in line:
            shutil.copy(shelf / "own_functions.py", tmp_path)
        monkeypatch.setattr(sys, "argv", ["onnx-analog", *arguments])
        return CliRunner().invoke(main, arguments, prog_name="onnx-analog")

    yield call
    sys.modules.pop("own_functions", None)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return what lies in a folder, folders too."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def done(found: Any) -> str:
    """Return what a command printed, or fail unless it ended well and said nothing on stderr."""
    assert (found.exit_code, found.stderr) == (0, "")
    text: str = found.stdout
    return text


def body(found: Any) -> Any:
    """Return the JSON that is all that a command printed."""
    return json.loads(done(found))


def assert_refused(found: Any, code: int, said: str = "") -> None:
    """Fail unless a command ended with `code` and one line on stderr, that we foresaw; of usage, click's three before.

    A line that ends in "--debug shows where" is of an error that was not foreseen.
    """
    assert found.exit_code == code, f"exit code {found.exit_code}: {found.stderr}"
    lines = found.stderr.splitlines()
    if code == 2 and lines[0].startswith("Usage: "):
        assert lines[1].startswith("Try 'onnx-analog ")
        assert lines[2] == ""
        lines = lines[3:]
    (line,) = lines
    assert line.startswith("Error: ")
    assert said in line
    assert not line.endswith("--debug shows where")
    assert found.stdout == "", "something was printed on stdout"


class Said(NamedTuple):
    exit_code: int
    stderr: str
    stdout: str = ""


def test_what_click_says_and_one_line_are_refusals():
    assert_refused(Said(1, "Error: no such file\n"), 1, "no such")
    assert_refused(Said(2, "Usage: onnx-analog x\nTry 'onnx-analog x --help' for help.\n\nError: bad\n"), 2, "bad")


@pytest.mark.parametrize(
    "wrong",
    [
        Said(0, "Error: no such file\n"),
        Said(2, "Error: no such file\n"),
        Said(1, ""),
        Said(1, "no such file\n"),
        Said(1, "Error: another\n"),
        Said(1, "Error: no such file\nand more\n"),
        Said(1, "WARNING: odd\nError: no such file\n"),
        Said(1, "Traceback (most recent call last):\nError: no such file\n"),
        Said(1, "Error: unexpected ValueError: no such file. --debug shows where\n"),
        Said(1, "Error: no such file\n", "{}\n"),
    ],
)
def test_another_end_is_no_refusal(wrong):
    with pytest.raises((AssertionError, ValueError)):
        assert_refused(wrong, 1, "no such file")


# ------------------------------------------------------------------------------------------------------ help


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from walk(inner, (*path, name))


COMMANDS = dict(walk(main))
LEAVES = [name for name, command in COMMANDS.items() if not isinstance(command, click.Group)]


@cache
def help_of(name: str) -> str:
    found = CliRunner().invoke(main, [*name.split(), "--help"], prog_name="onnx-analog")
    return done(found)


def examples(text: str) -> list[str]:
    """Return the command lines that a help text shows."""
    return [line.strip() for line in text.splitlines() if line.startswith(" " * 6 + "onnx-analog ")]


EXAMPLES = [(name, line) for name in COMMANDS for line in examples(help_of(name))]


def described(name: str) -> dict[str, str]:
    """Return, by option, what the help of a command says of it."""
    listed = help_of(name).partition("\nOptions:\n")[2].partition("\nCommands:\n")[0]
    entries = [" ".join(entry.split()) for entry in re.split(r"^  (?=-)", listed, flags=re.MULTILINE) if entry.strip()]
    return {re.findall(r"--[a-z-]+", entry)[0]: entry for entry in entries}


def options_of(name: str) -> dict[str, click.Option]:
    found = [parameter for parameter in COMMANDS[name].params if isinstance(parameter, click.Option)]
    return {next(flag for flag in option.opts if flag.startswith("--")): option for option in found}


OPTIONS = [(name, flag) for name in COMMANDS for flag in options_of(name)]


def test_the_commands_are_these():
    groups = {"", "channel", "plan"}
    leaves = {"demo", "inspect", "prune", "protect", "readback", "evaluate", "manifest"}
    assert {*groups, *leaves, "sweep", "channel list", "channel show", "channel fit", "plan show"} <= set(COMMANDS)
    assert {name for name in COMMANDS if name not in LEAVES} == groups


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_says_what_the_command_does_and_ends_in_an_example_of_it(name):
    description = help_of(name).partition("\nOptions:\n")[0].rstrip()
    first, *_, last = description.partition("\n\n")[2].splitlines()
    assert re.fullmatch(r"  [A-Z].*", first)
    assert examples(last), f"the help of {name!r} ends in {last!r}"
    called = name.split()
    assert called == last.split()[1 : 1 + len(called)]
    assert (COMMANDS[name].help or "").partition("\n\n")[0].rstrip().endswith(".")


def test_text_that_shows_no_example_has_none():
    assert examples("  Example:\n\n  onnx-analog demo\n") == []  # click wrapped it
    assert examples("Usage: onnx-analog demo [OPTIONS]") == []
    assert examples("  Example:\n\n      onnx-analog demo\n") == ["onnx-analog demo"]


@pytest.mark.parametrize("name", LEAVES)
def test_every_argument_is_in_the_help(name):
    described = " ".join((COMMANDS[name].help or "").split())
    for argument in [p for p in COMMANDS[name].params if isinstance(p, click.Argument)]:
        shown = (argument.metavar or str(argument.name).upper()).removesuffix("...")
        assert shown in described
        assert shown in help_of(name).splitlines()[0]


@pytest.mark.parametrize(("name", "flag"), OPTIONS)
def test_every_option_says_what_it_is_for(name, flag):
    text = options_of(name)[flag].help
    assert text
    assert "".join(text.split()) in "".join(described(name)[flag].split())  # a line may end at a hyphen


# What these ask for is not asked for without them; all others say what they are by default.
NOT_BY_DEFAULT = {
    "--threshold", "--residuals", "--cells-on", "--cells-hold", "--read-after", "--write-bits", "--read-bits",
    "--reference", "--preprocess", "--at-least", "--at-most", "--check", "--plot", "--log", "--group", "--precision",
    "--config", "--save-config", "--save-plan", "--plan", "--integers", "--grid", "--bounds", "--junit",
    "--correct", "--compensate", "--relative-step", "--max-drop", "--budget", "--min-sqnr", "--protected", "--resume",
    "--write-image", "--measured", "--unit", "--time", "--statistics", "--csv", "--overlay", "--report", "--copy",
}  # fmt: skip


@pytest.mark.parametrize(("name", "flag"), OPTIONS)
def test_every_default_is_shown(name, flag):
    option, text = options_of(name)[flag], described(name)[flag]
    if option.required:
        assert text.endswith("[required]")
    elif option.is_flag or (option.multiple and flag != "--channel"):
        assert "[default" not in text
    elif isinstance(option.default, str | int | float | Path):
        assert re.search(rf"\[default: {re.escape(str(option.default))}[\];]", text)
    elif (name, flag) not in {("readback", "--channel"), ("evaluate", "--channel"), ("readback", "--data")}:
        assert ("[default: " in text) == (flag not in NOT_BY_DEFAULT)


def test_a_default_that_a_preset_sets_says_so():
    assert "[default: set by the preset]" in described("protect")["--large-fraction"]


@pytest.mark.parametrize(("name", "function"), [("protect", api.protect), ("evaluate", api.evaluate)])
def test_defaults_are_those_of_the_library(name, function):
    written = {"providers": ("CPUExecutionProvider",) * 2}  # as text
    options = {option.name: option for option in options_of(name).values()}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in options or parameter.default is inspect.Parameter.empty:
            continue
        given = options[parameter.name].to_info_dict()["default"]  # None where there is none
        if parameter.name in written:
            text, value = written[parameter.name]
            assert given == text
            assert parameter.default in (value, (value,))
        else:
            assert given == parameter.default


def test_other_defaults_are_these():
    given = {(name, flag): options_of(name)[flag].default for name, flag in OPTIONS}
    for name in ("inspect", "prune", "protect"):
        assert given[name, "--min-size"] == Selection().min_size
    for name in ("demo", "readback", "evaluate"):
        assert given[name, "--seed"] == 0
    assert (given["demo", "--trials"], given["evaluate", "--trials"]) == (10, 25)
    assert given["prune", "--prune-scope"] == "model"


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_can_show_tracebacks(name):
    assert "--debug" in described(name)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_two_names(cli, flag):
    assert done(cli(flag)) == help_of("")
    assert done(cli(f"channel show {flag}")) == help_of("channel show")


@cache
def plan_once() -> Any:
    """Return what the demo's search finds among few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "STEPS", candidates.STEPS[::4])
        return CHEAPEST(seed=0, progress=lambda _: None)


CHEAPEST = demo.cheapest_plan


@pytest.fixture
def brief_demo(monkeypatch):
    """Make the demo one point, of one trial, on a few images."""
    grid, images = demo.grid, demo.images

    def brief(*, seed: int) -> Any:
        return replace(grid(seed=seed), strategies=("redundancy",), cells=(1,), presets=(PRESETS["default"],))

    monkeypatch.setattr(demo, "grid", brief)
    monkeypatch.setattr(demo, "cheapest_plan", lambda **_: plan_once())
    monkeypatch.setattr(demo, "images", lambda network: images(network).head(20))


@pytest.mark.usefixtures("brief_demo")
@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_every_example_runs(cli, name, line):
    program, *words = shlex.split(line)
    assert program == "onnx-analog"
    assert done(cli(shlex.join(words)))
    written = [word for word in words if re.search(r"\.(onnx|npz|csv|json|png)$", word)]
    assert all(Path(word).stat().st_size for word in written)


@pytest.mark.usefixtures("brief_demo")
def test_the_demo_prints_json_only(cli):
    body = json.loads(done(cli("demo --trials 1 --json")))
    assert list(body) == ["accuracy", "accuracy_pruned", "points", "chosen", "command", "tuned", "plot"]
    assert len(body["points"]) == 1
    assert body["chosen"] == body["points"][0]


# ------------------------------------------------------------------------------------------------ the program

HEAVY = {
    "numpy",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "scipy",
    "rich",
    "matplotlib",
    "ml_dtypes",
    "constriction",
}


def imported(code: str) -> set[str]:
    """Return which heavy packages a fresh Python has imported after `code`."""
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return HEAVY & set(found.stderr.split())


def test_help_imports_nothing_heavy():
    calls = [*[[*name.split(), "--help"] for name in COMMANDS], ["--version"]]
    code = "".join(f"main({call!r}, standalone_mode=False)\n" for call in calls)
    assert imported(f"from onnx_analog.cli import main\n{code}") == set()


@pytest.mark.parametrize("module", ["onnx", "rich.console", "onnx_analog.channels.modifiers"])
def test_a_heavy_import_would_be_noticed(module):
    assert imported(f"import {module}")


def test_the_program_is_installed():
    (entry,) = entry_points(group="console_scripts", name="onnx-analog")
    assert entry.load() is main
    found = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True, check=True)
    assert found.stdout == f"onnx-analog, version {version('onnx-analog')}\n"


def test_python_runs_the_package_as_the_command_does():
    done = subprocess.run(
        [sys.executable, "-m", "onnx_analog", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("onnx-analog, version ")


def test_the_program_keeps_stdout_for_json_and_stderr_for_warnings(shelf, tmp_path):
    shutil.copy(shelf / "model.onnx", tmp_path)
    line = "protect model.onnx --large-fraction 0 --json"
    found = subprocess.run([SCRIPT, *line.split()], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout)["command"] == f"onnx-analog {line}"
    assert found.stderr.splitlines() == [
        f"WARNING: {name}: no weight is large, so that class is empty" for name in ("a", "b")
    ]


def test_the_program_ends_in_one_line_and_an_exit_code(shelf, tmp_path):
    shutil.copy(shelf / "model.onnx", tmp_path)
    line = "protect model.onnx --include none"
    found = subprocess.run([SCRIPT, *line.split()], cwd=tmp_path, capture_output=True, text=True)
    assert_refused(Said(found.returncode, found.stderr, found.stdout), 3, "nothing to store")
    assert set(contents(tmp_path)) == {"model.onnx"}


def test_what_cannot_be_written_in_the_encoding_of_a_pipe_is_no_error(shelf):
    """As on Windows, where a pipe has no α and no σ."""
    for line in ("protect --help", f"manifest {shelf / 'model.manifest.json'}"):
        found = subprocess.run(
            [SCRIPT, *line.split()], capture_output=True, env={"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
        )
        assert (found.returncode, found.stderr) == (0, b"")


# ----------------------------------------------------------------------------------------------------- protect


def test_protect_writes_a_model_and_its_manifest_beside_the_input(cli, tmp_path):
    text = done(cli("protect model.onnx --cells-small 1 --cells-large 20"))
    assert set(contents(tmp_path)) == {"model.onnx", "model.protected.onnx", "model.manifest.json"}
    assert text.endswith("model: model.protected.onnx\nmanifest: model.manifest.json\n")
    assert "what it costs" in text


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("", {}),
        ("--cells-small 2 --cells-large 7", {"cells_small": 2, "cells_large": 7}),
        ("--strategy mapping --cells-small 3", {"strategy": "mapping", "cells_small": 3}),
        ("--preset isik2020", {"preset": "isik2020"}),
        ("--preset isik2020 --scope tensor", {"preset": "isik2020", "granularity": "tensor"}),
        ("--scope model --large-fraction 0.1", {"granularity": "model", "large_fraction": 0.1}),
        ("--threshold 0.2", {"threshold": 0.2}),
        ("--sparsity 0.8", {"sparsity": 0.8}),
        ("--sparsity 0.8 --prune-scope tensor", {"sparsity": 0.8, "prune_scope": "tensor"}),
        ("--bits-per-cell 3", {"side_bits_per_cell": 3}),
        ("--channel gaussian:sigma=0.2", {"channel": "gaussian:sigma=0.2"}),
        ("--channel pcm-drift --read-after 1h", {"channel": "pcm-drift", "modifiers": Modifiers(read_after_s=3600.0)}),
        (
            "--channel pcm-drift --cells-hold residual",
            {"channel": "pcm-drift", "modifiers": Modifiers(cells_hold="residual")},
        ),
        ("--residuals empirical", {"modifiers": Modifiers(residuals="empirical")}),
        (
            "--cells-on same --write-bits 5 --read-bits 6",
            {"modifiers": Modifiers(cells_on="same", write_bits=5, read_bits=6)},
        ),
        (
            "--side-channel gaussian --side-cells 2 --side-copies 3",
            {"side_channel": "gaussian", "side_cells": 2, "side_copies": 3},
        ),
        ("--include ^a --include ^b --exclude b", {"selection": Selection(include=("^a", "^b"), exclude=("b",))}),
        ("--min-size 513", {"selection": Selection(min_size=513)}),
    ],
)
def test_protect_gives_what_the_library_gives(cli, line, options):
    command = f"protect model.onnx {line}".strip()
    done(cli(command))
    expected = oa.protect("model.onnx", command=shlex.join(["onnx-analog", *shlex.split(command)]), **options)
    assert serialized(onnx.load("model.protected.onnx")) == serialized(expected.model)
    assert Path("model.manifest.json").read_text(encoding="utf-8") == expected.manifest.to_json() + "\n"


def test_the_settings_of_the_library_are_told_apart(shelf):
    """The test above compares bytes, so each option must change some."""
    plain = oa.protect(shelf / "model.onnx")
    assert serialized(plain.model) != serialized(oa.protect(shelf / "model.onnx", side_channel="gaussian").model)
    assert serialized(plain.model) != serialized(
        oa.protect(shelf / "model.onnx", modifiers=Modifiers(write_bits=5)).model
    )


def test_the_protected_model_computes_what_the_model_does(cli, shelf):
    done(cli("protect model.onnx"))
    x = np.load(shelf / "test.npz")["x"]
    found, clean = (run(onnx.load(name), {"x": x})[0] for name in ("model.protected.onnx", "model.onnx"))
    # Each weight is off by 4·u·(|w| + S/α), some u of the largest weight (1.2), through two sums of 16 and 32 terms
    # of magnitude below 5 and 20: less than 32·(16·5 + 20)·8·u < 2e-3 of outputs that differ by 1 where noise is in.
    assert np.abs(found - clean).max() < 2e-3 < np.abs(clean).max()


@pytest.mark.parametrize(
    ("line", "model", "manifest"),
    [
        ("protect model.onnx -o sub/p.onnx", "sub/p.onnx", "sub/p.manifest.json"),
        ("protect model.onnx -o sub/p.protected.onnx", "sub/p.protected.onnx", "sub/p.manifest.json"),
        ("protect model.onnx --output p", "p", "p.manifest.json"),
        ("protect model.onnx --manifest sub/m.json", "model.protected.onnx", "sub/m.json"),
        ("protect model.onnx -o sub/p.onnx --manifest m.json", "sub/p.onnx", "m.json"),
    ],
)
def test_outputs_go_where_they_are_asked_to(cli, tmp_path, line, model, manifest):
    Path("sub").mkdir()
    assert f"model: {model}\nmanifest: {manifest}\n" in done(cli(line))
    assert set(contents(tmp_path)) == {"sub", "model.onnx", model, manifest}
    read_manifest(Path(manifest)).compare(account(load(model)))


def test_the_output_of_a_model_elsewhere_lies_beside_it(cli, shelf, tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    shutil.copy(shelf / "model.onnx", folder)
    command = "protect 'a folder/model.onnx' --json"
    assert body(cli(command))["command"] == f"onnx-analog {command}"
    assert set(contents(folder)) == {"model.onnx", "model.protected.onnx", "model.manifest.json"}


def test_the_json_of_protect_is_the_manifest_and_fits_the_schema(cli):
    found = body(cli("protect model.onnx --sparsity 0.5 --json"))
    jsonschema.validate(found, SCHEMA)
    assert found == json.loads(Path("model.manifest.json").read_text(encoding="utf-8"))
    assert set(found) >= MANIFEST
    assert set(found["tensors"][0]) >= TENSOR
    assert set(found["tensors"][0]["classes"][0]) >= CLASS
    assert set(found["totals"]) >= TOTALS


MANIFEST = {"format", "tensors", "totals"}
TENSOR = {"name", "shape", "stored", "classes"}
CLASS = {"low", "high", "alpha", "beta", "count", "cells"}
TOTALS = {
    "original_weights", "stored_weights", "analog_cells", "r_avg", "side_cells", "mask_cells", "mask_bitmap_bits",
    "codebook_cells", "all_in_cells", "stored_cells_per_stored_weight", "all_in_cells_per_stored_weight",
    "all_in_cells_per_original_weight",
}  # fmt: skip


# ------------------------------------------------------------------------------------------ nothing is overwritten

WRITES = {
    "prune model.onnx --sparsity 0.5": ["model.pruned.onnx"],
    "protect model.onnx": ["model.protected.onnx", "model.manifest.json"],
    "readback model.protected.onnx": ["model.readback.onnx"],
    "readback model.protected.onnx --trials 2": ["model.readback/trial-0000.onnx", "model.readback/trial-0001.onnx"],
    "channel show gaussian --plot c.png": ["c.png"],
    FIT: ["pairs.channel.json"],
}
TARGETS = [(line, target) for line, targets in WRITES.items() for target in targets]


@pytest.mark.parametrize(("line", "target"), TARGETS)
def test_nothing_is_overwritten_without_force(cli, tmp_path, line, target):
    Path(target).parent.mkdir(exist_ok=True)
    Path(target).write_text("mine", encoding="utf-8")
    assert_refused(cli(line), 1, f"{target!r} already exists: replace it with --force")
    assert Path(target).read_text(encoding="utf-8") == "mine"
    assert {*contents(tmp_path)} <= {target, str(Path(target).parent), *line.split()}
    done(cli(f"{line} --force"))
    assert all(Path(name).read_bytes()[:4] != b"mine" for name in WRITES[line])


OVER_INPUTS = [
    "prune model.onnx --sparsity 0.5 -o model.onnx",
    "prune model.onnx --sparsity 0.5 -o folder/../model.onnx",
    "prune apart.onnx --sparsity 0.5 -o out.onnx",  # its tensors lie in out.onnx.data
    "prune apart.onnx --sparsity 0.5 -o out.onnx.data",
    "protect apart.onnx -o out.onnx",
    "protect apart.onnx --manifest out.onnx.data",
    "protect model.onnx --manifest model.onnx",
    "protect model.onnx -o mine.json --channel mine.json",
    "protect model.onnx --manifest mine.json --side-channel mine.json",
    "readback model.protected.onnx -o model.protected.onnx",
    "readback folder/trial-0001.onnx --trials 2 -o folder",
    "readback model.protected.onnx -o mine.json --channel mine.json",
    "readback model.protected.onnx --measured pairs.csv --unit scaled -o pairs.csv",
    f"{FIT} -o pairs.csv",
    f"{FIT} --plot pairs.csv",
]


@pytest.mark.parametrize("line", OVER_INPUTS)
def test_no_command_writes_over_what_it_reads(cli, shelf, tmp_path, line):
    Path("folder").mkdir()
    for name in ("model.onnx", "model.protected.onnx", "pairs.csv"):
        shutil.copy(shelf / name, name)
    shutil.copy("model.protected.onnx", "folder/trial-0001.onnx")
    ir.save(load("model.onnx"), "apart.onnx", external_data="out.onnx.data", size_threshold_bytes=0)
    assert Path("out.onnx.data").stat().st_size
    Path("mine.json").write_text(json.dumps(channels.resolve("gaussian").to_dict()), encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert_refused(cli(f"{line} --force"), 1, "is an input")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("line", [line for line in WRITES if "--trials" not in line])
def test_a_device_or_a_link_is_not_replaced_even_by_force(cli, line):
    option = "--plot" if "--plot" in line else "-o"
    os.mkfifo("pipe")
    Path("link").symlink_to("nowhere")
    for name in ("pipe", "link", "/dev/null"):
        assert_refused(cli(f"{line} {option} {name} --force"), 1, "replaced")
    assert Path("pipe").is_fifo()
    assert Path("link").is_symlink()
    assert not Path("nowhere").exists()


def test_a_model_whose_name_is_no_text_is_pruned_and_protected(shelf, tmp_path, monkeypatch):
    name = os.fsdecode(b"m\xff.onnx")
    shutil.copy(shelf / "model.onnx", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for line in (["prune", name, "--sparsity", "0.5"], ["protect", name]):
        monkeypatch.setattr(sys, "argv", ["onnx-analog", *line])
        assert CliRunner().invoke(main, line).exit_code == 0
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("line", WRITES)
def test_a_dash_is_no_file(cli, tmp_path, line):
    option = "--plot" if "--plot" in line else "-o"
    assert_refused(cli(f"{line} {option} -"), 2, "'-' would be a file, not the standard output")
    assert not Path("-").exists()


@pytest.mark.parametrize("line", WRITES)
def test_every_command_that_writes_names_what_it_wrote(cli, tmp_path, line):
    text = done(cli(line))
    targets = WRITES[line]
    folder = {str(Path(target).parent) for target in targets} - {"."}
    inputs = {word for word in line.split() if word.startswith(("model.", "pairs."))}
    assert set(contents(tmp_path)) == {*targets, *folder, *inputs}
    assert all(name in text for name in (folder or targets))
    assert all(Path(target).read_bytes().startswith(b"\x89PNG") for target in targets if target.endswith(".png"))


@pytest.mark.parametrize("line", WRITES)
def test_a_disk_that_is_full_leaves_nothing_behind(cli, tmp_path, monkeypatch, line):
    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert_refused(cli(line), 1, "No space left on device. Nothing was changed")
    assert {*contents(tmp_path)} <= {*line.split()}


@pytest.mark.parametrize("line", WRITES)
def test_a_folder_that_may_not_be_written_is_one_line(cli, tmp_path, monkeypatch, line):
    def denied(**_: Any) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", denied)
    assert_refused(cli(line), 1, "Permission denied")
    assert {*contents(tmp_path)} <= {*line.split()}


# ---------------------------------------------------------------------------------------------- inspect, prune


def test_inspect_says_what_would_be_stored_and_why_not_the_rest(cli):
    found = body(cli("inspect model.onnx --json"))
    assert found == oa.inspect("model.onnx").to_dict()
    assert [row["name"] for row in found["stored"]] == ["a", "b"]
    assert [(row["name"], row["reason"]) for row in found["skipped"]] == [("bias", "rank 1, below 2")]
    text = done(cli("inspect model.onnx"))
    assert re.search(r"^  total +1,536 *$", text, re.MULTILINE)
    assert "rank 1, below 2" in text
    assert text.endswith("opset 18, IR 10; BatchNorm: none, and no convolution that it could be folded into\n")


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("--include ^a", ["a"]),
        ("--include ^a --include ^b", ["a", "b"]),
        ("--exclude ^a", ["b"]),
        ("--min-size 512", ["a", "b"]),
        ("--min-size 513", ["b"]),
        ("--include none", []),
    ],
)
def test_inspect_selects_as_it_is_told(cli, line, names):
    assert [row["name"] for row in body(cli(f"inspect model.onnx --json {line}"))["stored"]] == names


def test_inspect_says_what_can_be_done_about_subnormal_weights(cli):
    text = done(cli(f"inspect {demo.MODEL}"))
    assert "To set the smallest weights to zero: onnx-analog prune MODEL --sparsity SHARE" in " ".join(text.split())


def test_inspect_of_a_protected_model_shows_what_is_stored(cli):
    found = body(cli("inspect model.protected.onnx --json"))
    assert found["protected"] is True
    assert [row["name"] for row in found["stored"]] == ["a", "b"]
    assert re.search(r"^  stored ", done(cli("inspect model.protected.onnx")), re.MULTILINE)


@pytest.mark.parametrize("decoded", ["", "--decoded"])
def test_inspect_says_that_a_model_was_read_back(cli, decoded):
    assert body(cli("inspect model.protected.onnx --json"))["read_back"] is None
    done(cli(f"readback model.protected.onnx --seed 3 -o read.onnx {decoded}"))
    told = body(cli("inspect read.onnx --json"))["read_back"]
    assert told.startswith("seed 3, trial 0, channel pcm")
    assert done(cli("inspect read.onnx")).endswith(f"read from noisy cells: {told}\n")


@pytest.mark.parametrize("line", ["readback", "readback --trials 2", "evaluate --data test.npz"])
def test_a_model_that_was_read_back_is_not_read_again(cli, line):
    done(cli("readback model.protected.onnx"))
    name, *options = line.split(maxsplit=1)
    found = cli(" ".join([name, "model.readback.onnx", *options]))
    assert_refused(found, 1, "read from noisy cells already (seed 0, trial 0, channel pcm")


@pytest.mark.parametrize("decoded", ["", " --decoded"])
def test_a_model_that_was_read_back_is_no_original(cli, decoded):
    """Its noise would count as the original's; all commands say so in the same words and with the same code."""
    done(cli(f"readback model.protected.onnx{decoded}"))
    for line, which, remedy in (
        ("check --max-drop 1", "", "protected model"),
        ("sensitivity", "", "protected model"),
        ("tune --max-drop 1", "", "original"),
        ("sweep --trials 1 --out swept", " 'model.readback'", "original"),
    ):
        name, *options = line.split(maxsplit=1)
        found = cli(" ".join([name, "model.readback.onnx --data test.npz", *options]))
        said = f"the model{which} was read from noisy cells already (seed 0, trial 0, channel pcm"
        assert_refused(found, 2, said)
        assert f"Name the {remedy}" in found.stderr
    assert not Path("swept").exists()


@pytest.mark.parametrize("line", ["readback", "manifest", "evaluate --data test.npz --read-bits 4"])
def test_plain_weights_that_were_read_back_are_not_to_be_protected(cli, line):
    """What reads a memory asks for the protected model."""
    done(cli("readback model.protected.onnx --decoded"))
    name, *options = line.split(maxsplit=1)
    found = cli(" ".join([name, "model.readback.onnx", *options]))
    assert_refused(found, 1, "the model was read from noisy cells already (seed 0, trial 0, channel pcm")
    assert "Name the protected model" in found.stderr


@pytest.mark.parametrize("line", ["protect MODEL -o new.onnx", "prune MODEL --sparsity 0.5 -o new.onnx"])
def test_what_is_made_of_weights_that_were_read_back_is_not_of_the_original(cli, line, caplog):
    done(cli(line.replace("MODEL", "model.onnx")))
    done(cli("readback model.protected.onnx --decoded"))
    assert caplog.messages == []
    assert cli(f"{line.replace('MODEL', 'model.readback.onnx')} --force").exit_code == 0
    (warning,) = caplog.messages
    assert "the model was read from noisy cells (seed 0, trial 0, channel pcm" in warning
    assert warning.endswith("its weights are those that were read, not the original's")


def zeros(path: str) -> list[int]:
    return [int((weight.array() == 0).sum()) for weight in find(load(path)).weights]


def test_prune_sets_the_smallest_weights_to_zero(cli):
    assert done(cli("prune model.onnx --sparsity 0.5")) == "768 of 1,536 weights are zero (50.0 %): model.pruned.onnx\n"
    assert sum(zeros("model.pruned.onnx")) == 768
    expected = oa.prune("model.onnx", sparsity=0.5).model
    assert serialized(onnx.load("model.pruned.onnx")) == serialized(expected)


def test_magnitudes_compete_where_they_are_told_to(cli):
    done(cli("prune model.onnx --sparsity 0.5 --prune-scope tensor -o t.onnx"))
    done(cli("prune model.onnx --sparsity 0.5 --prune-scope model -o m.onnx"))
    assert zeros("t.onnx") == [256, 512]
    assert zeros("m.onnx")[0] < 256  # b is ten times smaller
    done(cli("prune model.onnx --sparsity 0.5 --exclude b -o a.onnx"))
    assert zeros("a.onnx") == [256, 0]


# ---------------------------------------------------------------------------------------- readback and evaluate


def levels(model: Any) -> list[Any]:
    return [tensor.level for tensor in stored_tensors(load(model))]


def arrays(model: Any) -> list[Any]:
    return [weight.array() for weight in find(load(model)).weights]


def test_readback_writes_trial_0_as_a_model_that_decodes_itself(cli):
    assert done(cli("readback model.protected.onnx --seed 3")) == (
        "protected model as read from noisy cells: seed 3, trial 0: model.readback.onnx\n"
    )
    expected = oa.readback("model.protected.onnx", seed=3).model
    assert same_bits(levels("model.readback.onnx"), levels(expected))
    assert not same_bits(levels("model.readback.onnx"), levels("model.protected.onnx"))
    assert not same_bits(levels("model.readback.onnx"), levels(oa.readback("model.protected.onnx").model))


def test_readback_decoded_writes_plain_weights(cli):
    done(cli("readback model.protected.onnx --decoded -o plain.onnx"))
    assert not is_protected(load("plain.onnx"))
    assert len(onnx.load("plain.onnx").functions) == 0
    assert same_bits(arrays("plain.onnx"), arrays(oa.readback("model.protected.onnx", decoded=True).model))


@pytest.mark.parametrize("options", ["", "--channel gaussian:sigma=0.3,low=-1,high=1", "--read-bits 4"])
def test_the_weights_that_readback_writes_are_those_that_evaluate_used(cli, options):
    line = "evaluate model.protected.onnx --data test.npz --metric own_functions:total --json"
    evaluated = body(cli(f"{line} --seed 5 --trials 3 {options}"))
    written = done(cli(f"readback model.protected.onnx --seed 5 --trials 3 --decoded -o trials {options}"))
    assert written == "3 models, seed 5: trials\n"
    paths = [f"trials/trial-{trial:04}.onnx" for trial in range(3)]
    assert sorted(contents(Path("trials"))) == [Path(path).name for path in paths]
    lines = [f"evaluate {path} --data test.npz --metric own_functions:total --json" for path in paths]
    assert [body(cli(line))["stored"] for line in lines] == evaluated["values"]
    assert len({*evaluated["values"], evaluated["stored"]}) == 4


def test_another_channel_replaces_the_stored_one_if_its_span_covers_it(cli):
    done(cli("readback model.protected.onnx -o quiet.onnx --channel gaussian:sigma=1e-3,low=-1,high=1"))
    pairs = zip(levels("quiet.onnx"), levels("model.protected.onnx"), strict=True)
    # 1,536 levels are off by at most 6 standard deviations (2e-9 a level); pcm's are 0.13 and more.
    assert max(float(np.abs(one - other).max()) for one, other in pairs) < 6e-3


def test_trials_go_into_a_folder_that_is_there(cli, tmp_path):
    Path("model.readback").mkdir()
    Path("model.readback/notes").touch()
    done(cli("readback model.protected.onnx --trials 1"))
    assert set(contents(tmp_path / "model.readback")) == {"notes", "trial-0000.onnx"}


EVALUATION = {"metric", "original", "stored", "trials", "mean", "std", "ci95", "values"}


def test_evaluate_prints_what_it_found(cli):
    found = body(cli("evaluate model.protected.onnx --data test.npz --trials 5 --json"))
    assert set(found) >= EVALUATION
    assert found == oa.evaluate("model.protected.onnx", "test.npz", trials=5).to_dict()
    assert (found["metric"], found["stored"], found["trials"], found["original"]) == ("top1", 1.0, 5, None)
    values = np.array(found["values"])
    assert ((values >= 0) & (values < 1)).all()
    assert np.isclose(found["mean"], values.mean(), rtol=1e-12)
    assert np.isclose(found["std"], values.std(ddof=1), rtol=1e-12)
    interval = scipy.stats.t.interval(0.95, 4, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(5))
    assert np.allclose(found["ci95"], interval, rtol=1e-12)
    text = done(cli("evaluate model.protected.onnx --data test.npz --trials 5"))
    assert re.search(r"top1 on 200 samples +value", text)
    assert f"{100 * found['mean']:.2f} %" in text
    assert "they leave out the error of a finite test set" in " ".join(text.split())


def test_one_trial_has_no_spread(cli):
    found = body(cli("evaluate model.protected.onnx --data test.npz --trials 1 --json"))
    assert (found["std"], found["ci95"], len(found["values"])) == (None, None, 1)


def test_no_trials_leave_the_clean_model(cli):
    found = body(cli("evaluate model.protected.onnx --data test.npz --trials 0 --json"))
    assert (found["stored"], found["trials"], found["mean"], found["values"]) == (1.0, 0, None, [])


def test_a_plain_model_is_evaluated_as_it_is(cli):
    found = body(cli("evaluate model.onnx --data test.npz --json"))
    assert (found["original"], found["trials"], found["mean"], found["ci95"]) == (1.0, 0, None, None)


def test_without_labels_outputs_are_compared_with_the_clean_ones(cli):
    found = body(cli("evaluate model.protected.onnx --data unlabelled.npz --trials 2 --json"))
    assert found["metric"] == "agreement"
    assert found["values"] == body(cli("evaluate model.protected.onnx --data test.npz --trials 2 --json"))["values"]


def test_the_reference_is_another_model_on_the_same_data(cli):
    line = "evaluate model.protected.onnx --data test.npz --trials 1 --json --reference other.onnx"
    found = body(cli(line))
    assert found["original"] == body(cli("evaluate other.onnx --data test.npz --json"))["original"] < 1
    assert "original model" in done(cli(line.replace("--json", "")))


@pytest.mark.parametrize(
    ("before", "reference", "why"),
    [
        (
            "readback model.protected.onnx --decoded -o noisy.onnx",
            "noisy.onnx",
            "was read from noisy cells (seed 0, trial",
        ),
        ("readback model.protected.onnx -o noisy.onnx", "noisy.onnx", "was read from noisy cells (seed 0, trial"),
        ("manifest model.protected.onnx", "model.protected.onnx", "is protected: name the plain original"),
    ],
)
def test_a_reference_that_cannot_be_the_original_is_refused(cli, before, reference, why):
    done(cli(before))
    found = cli(f"evaluate model.protected.onnx --data test.npz --trials 1 --reference {reference}")
    assert_refused(found, 1, why)
    assert f"the reference, {reference!r}, " in found.stderr


def test_the_help_says_where_the_manifest_goes():
    assert "the output with .manifest.json in place of .protected.onnx" in " ".join(help_of("protect").split())


@pytest.mark.parametrize("flag", ["--cells-small", "--cells-large"])
def test_both_ends_of_the_numbers_of_cells_are_in_the_help(flag):
    assert "[1<=x<=1,000,000,000,000]" in " ".join(help_of("protect").split(f"\n  {flag} ")[1].split())[:300]


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("--seed 7", {"seed": 7}),
        ("--samples 50", {"samples": 50}),
        ("--channel gaussian:sigma=0.5,low=-1,high=1", {"channel": "gaussian:sigma=0.5,low=-1,high=1"}),
        ("--read-bits 2", {"modifiers": Modifiers(read_bits=2)}),
        ("--write-bits 2", {"modifiers": Modifiers(write_bits=2)}),
        (
            "--channel pcm --residuals empirical",
            {"channel": "pcm", "modifiers": Modifiers(residuals="empirical")},
        ),
        ("--preprocess own_functions:twice", {"preprocess": "own_functions:twice"}),
    ],
)
def test_options_of_evaluate_reach_the_library(cli, line, options):
    command = "evaluate model.protected.onnx --data test.npz --trials 2 --metric own_functions:total --json"
    found = body(cli(f"{command} {line}"))
    expected = oa.evaluate("model.protected.onnx", "test.npz", trials=2, metric="own_functions:total", **options)
    assert found == expected.to_dict()
    assert found["values"] != body(cli(command))["values"]


@pytest.mark.parametrize("line", ["--batch 7", "--threads 1", "--providers CPUExecutionProvider"])
def test_how_it_is_run_changes_no_accuracy(cli, line):
    command = "evaluate model.protected.onnx --data test.npz --trials 2 --json"
    assert body(cli(f"{command} {line}"))["values"] == body(cli(command))["values"]


@pytest.mark.parametrize(
    ("line", "keyword", "value"),
    [
        ("--batch 7", "batch", 7),
        ("--threads 3", "threads", 3),
        ("--providers A,B", "providers", ("A", "B")),
        ("--mean 0.1,0.2,0.3", "mean", (0.1, 0.2, 0.3)),
        ("--std 2", "std", (2.0,)),
    ],
)
def test_how_it_is_run_reaches_the_library(cli, monkeypatch, line, keyword, value):
    taken: dict[str, Any] = {}

    def evaluate(*arguments: Any, **options: Any) -> Any:
        taken.update(options)
        return Evaluation(metric="m", samples=1, stored=1.0, values=())

    monkeypatch.setattr(api, "evaluate", evaluate)
    done(cli(f"evaluate model.onnx --data test.npz {line}"))
    assert taken[keyword] == value


def test_images_are_normalised(cli):
    lines = [
        f"evaluate model.onnx --json --metric own_functions:total --data {data}"
        for data in ("images.npz --mean 0.5 --std 0.25", "scaled.npz", "images.npz")
    ]
    images, scaled, plain = [body(cli(line))["original"] for line in lines]
    # Inputs below 2 in magnitude, rounded in another order: a few u of each, in sums of 20·32 outputs below 50 made of
    # 512 terms; 20·32·50·512·2^-22 would be the worst case in one direction, and √ of the terms is what comes.
    assert abs(images - scaled) < 0.5 < abs(images - plain)


@pytest.mark.parametrize(
    "line", ["evaluate model.onnx --data test.npz", "evaluate model.protected.onnx --data test.npz --trials 0"]
)
def test_the_value_of_a_model_without_trials_is_checked(cli, line):
    assert "holds: top1 is at least 100 %" in done(cli(f"{line} --at-least 1"))
    assert "holds" not in done(cli(line))
    assert_refused(cli(f"{line} --at-least 90"), 2, "--at-least is 90, and top1 is a share from 0 to 1")
    assert_refused(cli(f"{line} --at-most 0.5"), 2, "higher is better for top1: ask for --at-least")
    found = cli(f"{line} --metric own_functions:total --at-least 1e9 --json")
    shown = json.loads(found.stdout)
    value = shown["original"] if shown["stored"] is None else shown["stored"]
    assert_refused(
        Said(found.exit_code, found.stderr), 1, f"own_functions:total is {round(value, 6)}, below 1000000000"
    )
    found = cli(f"{line} --metric own_functions:total --at-most -1e9 --json")
    assert_refused(Said(found.exit_code, found.stderr), 1, "above -1000000000")
    assert json.loads(found.stdout)["higher_is_better"] is None
    lower = f"{line} --metric own_functions:total --lower-is-better"
    assert json.loads(done(cli(f"{lower} --at-most 1e9 --json")))["higher_is_better"] is False
    assert_refused(cli(f"{lower} --at-least 1"), 2, "lower is better for own_functions:total: ask for --at-most")
    assert_refused(cli(f"{line} --lower-is-better"), 2, "--lower-is-better is given, and --metric is not")


def test_what_was_measured_is_told(cli):
    text = done(cli("evaluate model.protected.onnx --data test.npz --trials 3"))
    assert re.search(r"output +y\b", text)
    assert re.search(r"class axis +1\b", text)
    assert "Inputs: 'x' as given (float32)." in " ".join(text.split())
    found = body(cli("evaluate model.protected.onnx --data test.npz --trials 3 --json"))
    assert (found["output"], found["class_axis"], found["model"]) == ("y", 1, "model.protected.onnx")
    assert_refused(cli("evaluate model.onnx --data test.npz --output z"), 2, "no output 'z': it has 'y'")
    assert_refused(cli("evaluate model.onnx --data test.npz --class-axis 7"), 2, "--class-axis is 7")


@pytest.mark.parametrize("trials", [1, 4])
def test_the_interval_s_lower_end_is_checked_or_the_only_trial(cli, trials):
    line = f"evaluate model.protected.onnx --data test.npz --trials {trials} --json"
    found = body(cli(line))
    least = found["ci95"][0] if trials > 1 else found["mean"]
    assert least < 1
    enough = body(cli(f"{line} --at-least {least!r}"))
    asked = {"at_least", "holds", "verdict"}
    assert {name: enough[name] for name in set(found) - asked} == {name: found[name] for name in set(found) - asked}
    assert (enough["at_least"], enough["holds"], found["holds"]) == (least, True, None)
    above = cli(f"{line} --at-least {np.nextafter(least, 1).item()!r}")
    assert json.loads(above.stdout)["holds"] is False
    what = "the lower end of the 95 % interval of top1" if trials > 1 else "top1, mean of 1 trial,"
    assert_refused(Said(above.exit_code, above.stderr), 1, f"{what} is {100 * round(least, 6):.15g} %, below")


def test_a_value_that_is_no_number_is_never_enough(cli):
    line = "evaluate model.protected.onnx --data test.npz --metric own_functions:nothing --at-least -1e9 --json"
    for trials in (0, 1, 3):
        found = cli(f"{line} --trials {trials}")
        assert set(json.loads(found.stdout)["values"]) <= {None}
        assert_refused(
            Said(found.exit_code, found.stderr), 1, "is not a number, so it cannot be compared with -1000000000"
        )


def test_a_function_that_fails_is_told_in_one_line(cli):
    found = cli("evaluate model.onnx --data test.npz --metric own_functions:wrong")
    assert (found.exit_code, found.stdout) == (1, "")
    said = "the metric 'own_functions:wrong' failed with ZeroDivisionError: a b. --debug shows where"
    assert found.stderr == f"Error: {said}\n"


def test_debug_shows_where_it_failed(cli):
    line = "evaluate model.onnx --data test.npz --metric own_functions:wrong"
    found = cli(f"{line} --debug")
    assert 'own_functions.py", line' in found.stderr
    assert found.stderr.endswith(cli(line).stderr)
    assert found.exit_code == 1


# ---------------------------------------------------------------------------------------------------- manifest


WITH_CORRECTION = re.compile(
    r"A correction by samples is not included: its ([\d,]+) numbers take ([\d.]+) cells per original weight more, "
    r"([\d.]+) in all, as the memory allows\. "
)


def test_the_manifest_of_a_model_and_its_file_are_one(cli):
    """But for what a correction takes, which follows from the layers of the model."""
    of_model, of_file = (cli(f"manifest {name}") for name in ("model.protected.onnx", "model.manifest.json"))
    unknown = "A correction is not included: give the model in place of its manifest to see what one takes. "
    flat, flat_of_file = (" ".join(done(each).split()) for each in (of_model, of_file))
    assert WITH_CORRECTION.sub("", flat) == flat_of_file.replace(unknown, "")
    assert len(WITH_CORRECTION.findall(flat)) == flat_of_file.count(unknown) == 1
    assert "cells as the paper counts" in of_model.stdout
    assert "as the memory allows" in of_model.stdout
    of_model, of_file = (body(cli(f"manifest {n} --json")) for n in ("model.protected.onnx", "model.manifest.json"))
    assert of_model == of_file == json.loads(oa.account("model.protected.onnx").to_json())
    jsonschema.validate(of_model, SCHEMA)


def test_a_metric_that_ends_the_program_is_no_success(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quits.py").write_text("import sys\ndef f(outputs, labels, clean): sys.exit(0)\n", encoding="utf-8")
    found = cli("evaluate model.protected.onnx --data test.npz --metric quits:f --at-least 2")
    assert found.exit_code == 2  # as code 1 is an answer
    assert found.stderr == "Error: the metric 'quits:f' failed with SystemExit: 0. --debug shows where\n"


def test_what_a_correction_takes_is_what_evaluations_keep_and_check_counts(cli):
    """Of gains and shifts: protect, manifest and plan show say the same, and check counts it."""
    corrected = "--data test.npz --correct test.npz --reference model.onnx --json"
    checked = body(cli(f"check model.protected.onnx {corrected} --max-drop 90"))
    numbers = body(cli(f"evaluate model.protected.onnx {corrected} --trials 1"))["correction"]["numbers"]
    without = oa.account("model.protected.onnx").totals.ratios()["honest_cells_per_original_weight"]
    assert checked["correction_numbers"] == numbers
    assert checked["cells_per_weight"] > without
    added = f"{checked['cells_per_weight'] - without:.3f}"
    expected = (f"{numbers:,}", added, f"{checked['cells_per_weight']:.3f}")
    for line in ("protect model.onnx --force", "manifest model.protected.onnx", "plan show model.protected.onnx"):
        found = " ".join(f"{done(cli(line))} ".split())
        assert WITH_CORRECTION.findall(f"{found}. ") == [expected], line


def test_check_says_that_a_manifest_describes_a_model(cli):
    line = "manifest model.protected.onnx --check model.manifest.json"
    told = done(cli(line))
    assert told == f"model.manifest.json describes model.protected.onnx: {oa.account('model.protected.onnx')}\n"
    assert body(cli(f"{line} --json")) == json.loads(oa.account("model.protected.onnx").to_json())


def test_a_manifest_describes_what_was_written_whatever_was_read(cli):
    done(cli("readback model.protected.onnx"))
    done(cli("manifest model.readback.onnx --check model.manifest.json"))


# ---------------------------------------------------------------------------------------------------- channels


def test_the_list_says_how_channels_of_files_are_named(cli):
    text = done(cli("channel list"))
    assert "Name measured:csv=pairs.csv,input=volts,output=ohms,log=true." in text
    assert "Name any channel, with write bits or read bits." in text


def test_all_channels_are_listed(cli):
    found = body(cli("channel list --json"))
    assert [row["name"] for row in found] == list(channels.available())
    text = done(cli("channel list"))
    for row in found:
        assert row["summary"] == channels.summary(row["name"])
        assert re.search(rf"^  {row['name']} +{re.escape(row['summary'])} *$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["pcm", "gaussian:sigma=0.2", "pcm-drift", "rram-wan"])
def test_a_channel_is_shown_with_its_source(cli, name):
    channel = channels.resolve(name)
    text = " ".join(done(cli(f"channel show {name}")).split())
    assert " ".join(str(channel.source).split()) in text
    assert f"output range {channel.span[0]:.4f} to {channel.span[1]:.4f}" in text
    assert text.endswith("for a plot, add --plot FILE")


def test_the_json_of_a_channel_makes_the_channel(cli):
    found = body(cli("channel show pcm --write-bits 4 --cells-on same --json"))
    expected = Modifiers(write_bits=4, cells_on="same").apply(channels.resolve("pcm"))
    assert found.pop("span") == list(expected.span)
    normal, measured = (found.pop(f"capacity_bits_per_cell{law}") for law in ("", "_measured"))
    assert 0 < normal < 4
    assert measured is None  # cells that share a device draw no residuals
    assert channels.from_dict(found) == expected


@pytest.mark.parametrize("residuals", ["", " --residuals empirical"])
def test_a_fit_and_its_channel_say_the_same_capacities(cli, residuals):
    fitted = body(cli(f"{FIT} --json -o mine.json"))
    shown = body(cli(f"channel show mine.json{residuals} --json"))
    for name in ("capacity_bits_per_cell", "capacity_bits_per_cell_measured"):
        assert shown[name] == fitted[name] > 0
    text = " ".join(done(cli(f"channel show mine.json{residuals}")).split())
    normal, measured = (f"{fitted[f'capacity_bits_per_cell{law}']:.2f}" for law in ("", "_measured"))
    assert f"capacity {normal} bits per cell for normal reads, {measured} for residuals as measured" in text


def test_of_the_likelihoods_of_a_fit_the_lowest_is_chosen(cli):
    found = body(cli(f"{FIT} --json"))
    scores = found["held_out_negative_log_likelihood"]
    assert scores[str(found["neighbours"])] == min(score for score in scores.values() if score is not None)


def test_every_field_of_a_fit_is_documented(cli):
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    section = page.partition("## Output of `channel fit --json`")[2].partition("## ")[0]
    found = body(cli(f"{FIT} --json"))
    assert [name for name in {*found, *found["levels"][0]} if f"`{name}`" not in section] == []


def test_a_fit_is_drawn_and_both_files_are_named(cli, tmp_path):
    text = done(cli(f"{FIT} -o mine.json --plot c.png"))
    assert set(contents(tmp_path)) == {"pairs.csv", "mine.json", "c.png"}
    assert "mine.json" in text
    assert "c.png" in text


def test_of_a_fit_and_its_plot_none_is_written_where_one_is_there(cli, tmp_path):
    Path("c.png").touch()
    assert_refused(cli(f"{FIT} --plot c.png"), 1, "'c.png' already exists")
    assert set(contents(tmp_path)) == {"pairs.csv", "c.png"}


def test_the_json_of_a_fit_is_what_it_found(cli):
    found = body(cli(f"{FIT} --group device --json"))
    expected = fitting.fit(Path("pairs.csv"), input="volts", output="ohms", group="device")
    assert found == json.loads(json.dumps(expected.to_dict()))


def test_the_json_of_a_fit_of_few_reads_is_json(cli, shelf):
    """Two reads at each input: k = 1 leaves a single read that is held out against, of which no spread is known."""
    lines = (shelf / "pairs.csv").read_text(encoding="utf-8").splitlines()
    few = [lines[0], *(line for place, line in enumerate(lines[1:]) if place % 20 < 2)]
    Path("few.csv").write_text("\n".join(few), encoding="utf-8")
    line = FIT.replace("pairs", "few")
    assert done(cli(line)).endswith("channel: few.channel.json\n")
    assert body(cli(f"{line} --json --force"))["span"] == list(channels.resolve("few.channel.json").span)


def test_a_fitted_channel_is_a_channel_anywhere(cli):
    text = done(cli(f"{FIT} --log output -o mine.json"))
    assert "400, 20" in text
    assert text.endswith("channel: mine.json\n")
    done(cli("protect model.onnx --channel mine.json"))
    assert read_manifest(Path("model.manifest.json")).schemes[0].channel.name == "pairs"
    assert done(cli("channel show mine.json")).startswith("pairs\n")


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("", {}),
        ("--log output", {"log": True}),
        ("--neighbours 3", {"neighbours": 3}),
        ("--group device", {"group": "device"}),
    ],
)
def test_fit_gives_what_the_library_gives(cli, line, options):
    text = done(cli(f"{FIT} {line}"))
    expected = fitting.fit(Path("pairs.csv"), input="volts", output="ohms", **options)
    assert channels.resolve("pairs.channel.json") == expected.channel
    assert ("by cross-validation" in text) == ("neighbours" not in options)
    assert ("variance between devices" in text) == ("group" in options)


def test_reads_that_are_not_normal_are_a_warning(cli, caplog):
    caplog.set_level(logging.WARNING)
    rng = np.random.default_rng(2)
    rows = [f"{x},{x + rng.exponential()}" for x in (0, 1, 2) for _ in range(200)]
    Path("odd.csv").write_text("\n".join(["volts,ohms", *rows]), encoding="utf-8")
    done(cli(FIT.replace("pairs", "odd")))
    message, outliers = caplog.messages
    assert message.startswith("reads are not normal at 3 of 3 inputs (worst at ")
    assert outliers.startswith("3 reads of 600 off by more than 6 σ")
    done(cli(f"{FIT.replace('pairs', 'odd')} --skip-outliers --force"))
    assert caplog.messages[-1].startswith("left out: 3 reads of 600 off by more than 6 σ")
    caplog.clear()
    done(cli(f"{FIT} --log output"))  # normal by its making
    assert caplog.messages == []


def test_a_plot_and_a_channel_are_two_files(cli, tmp_path):
    found = cli(f"{FIT} -o one.png --plot one.png")
    assert_refused(found, 2, "the same file")
    assert set(contents(tmp_path)) == {"pairs.csv"}


@pytest.mark.parametrize("line", ["channel show pcm --plot c.png", f"{FIT} --plot c.png"])
def test_without_matplotlib_a_plot_is_refused_in_clear_words(cli, tmp_path, monkeypatch, line):
    monkeypatch.setattr(plots, "can_plot", lambda: False)
    assert_refused(cli(line), 1, "matplotlib is not installed (pip install 'onnx-analog[report]')")
    assert set(contents(tmp_path)) <= {"pairs.csv"}


@pytest.mark.parametrize("line", ["channel show pcm --plot there.png", "demo --plot there.png"])
def test_a_plot_that_is_there_is_refused_without_an_option_that_is_not(cli, line):
    Path("there.png").touch()
    found = cli(line)
    assert_refused(found, 1, "'there.png' already exists: replace it with --force, or choose another")
    assert " -o" not in found.stderr


# -------------------------------------------------------------------------------------------------------- demo


def test_the_demo_tells_the_whole_story(cli, tmp_path, monkeypatch):
    images = demo.images
    monkeypatch.setattr(demo, "images", lambda network: images(network).head(200))
    monkeypatch.setattr(demo, "cheapest_plan", lambda **_: plan_once())
    text = done(cli("demo --trials 1 --plot story.png"))
    assert set(contents(tmp_path)) == {"story.png"}
    assert Path("story.png").read_bytes().startswith(b"\x89PNG")
    share = r"(100\.0|9\d\.\d) %"
    assert re.match(
        rf"LeNet classifies {share} of 200 MNIST test images correctly, and {share} after 80 % of its ", text
    )
    assert text.count("accuracy in %") == len(PRESETS)
    for strategy in STRATEGIES:
        # accuracy and cost at 1, 3 and 10 cells, by either preset
        rows = re.findall(rf"^  {strategy} +((?: +\d+\.\d\d \[\d+\.\d\d / \d+\.\d\d\]){{3}}) *$", text, re.MULTILINE)
        assert len(rows) == len(PRESETS)
        assert f"{strategy}: {STRATEGIES[strategy].row}" in text
    for said in ("what it costs", "float32, pruned", "channel pcm: Zarcone", "plot: story.png"):
        assert said in text
    assert f"it finds {plan_once().best.cells:.2f} cells per weight: at most {demo.MOST_LOST} points are lost" in text
    assert examples("      " + text.rstrip().splitlines()[-1])


@pytest.mark.usefixtures("brief_demo")
def test_the_demo_without_matplotlib_says_how_to_get_its_plot(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "can_plot", lambda: False)
    assert done(cli("demo")).startswith(f"{plots.NO_PLOTS}\nLeNet classifies ")  # before the wait
    assert contents(tmp_path) == {}


def test_options_of_the_demo_reach_its_grid(cli, monkeypatch):
    taken: dict[str, Any] = {}

    def plan(story: Any, grid: Any, *, trials: int) -> Any:
        taken.update(seed=grid.seed, trials=trials)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "plan", plan)
    assert cli("demo --trials 3 --seed 4").exit_code == 1
    assert taken == {"trials": 3, "seed": 4}


# ----------------------------------------------------------------------------------------------- ranges of options

# What is taken at the ends of the range of an option, and what is refused just outside.
COUNT = (["1"], ["0", "-1", "1.5", "nan", "one"])
NATURAL = (["0"], ["-1", "0.5", "nan"])
MASK_SEED = (["0", "4294967295"], ["-1", "4294967296", "0.5"])
SHARE = (["0", "0.999"], ["-0.001", "1", "many"])
BITS = (["0", "16"], ["-1", "17"])
TIME = (["0", "0s", "1y"], ["-1s", "soon", "nan", "inf"])
NUMBERS = (["0", "0.1,0.2"], ["", "a", "0,,1"])
CHANGES = {"--read-after": TIME, "--write-bits": BITS, "--read-bits": BITS}
AXIS = (["0", "-1", "3"], ["1.5", "last"])
CORRECT: dict[str, tuple[list[str], list[str]]] = {
    "--correct-samples": (["2", "1000000"], ["1", "1000001", "2.5"]), "--mean": NUMBERS, "--std": NUMBERS,
}  # fmt: skip
COMPENSATE: dict[str, tuple[list[str], list[str]]] = {
    "--compensate-samples": (["4", "1000000"], ["3", "1000001", "4.5"])
}
IMAGES: dict[str, tuple[list[str], list[str]]] = {
    "--mean": ([], ["a", ""]),
    "--std": ([], ["a", ""]),
}  # which are refused without images
FAMILY: dict[str, tuple[list[str], list[str]]] = {
    "--side-cells": COUNT,
    "--side-copies": COUNT,
    "--side-bits-per-cell": (["1", "8"], ["0", "9"]),
    "--classes": (["2", "2"], ["0", "257", "1.5"]),
    "--shares": (["0", "0.5"], ["", "a", "0,,1"]),
    "--bounds": ([], ["", "a", "0,,1"]),
    "--step": ([], ["0", "-1", "nan"]),
    "--relative-step": ([], ["0", "-1", "nan"]),
    "--rate-weight": (["0"], ["-1", "nan"]),
    "--segment-weights": COUNT,
    "--mask-seed": MASK_SEED,
    "--block-bits": (["8", "32768"], ["7", "32769"]),
    "--block-failure": (["1e-300", "1"], ["0", "1.1", "nan"]),
    "--cells": (["1", "1,30"], ["-1", "1.5", "one", "1,,2"]),
}  # settings of a scheme
MEMORY = {  # how a model is stored and read, and with which samples
    "--seed": NATURAL,
    "--cells-small": COUNT,
    "--cells-large": COUNT,
    "--large-fraction": (["0", "1"], ["-0.001", "1.001"]),
    "--threshold": (["1e-9", "1e9"], ["0", "-1"]),
    "--sparsity": SHARE,
    **FAMILY,
    "--integers": (["2", "8"], ["1", "9"]),
    "--min-size": COUNT,
    "--samples": COUNT,
    "--batch": COUNT,
    "--threads": (["0"], ["-1", "99999999999"]),
    "--class-axis": AXIS,
    **CHANGES,
    **COMPENSATE,
}
RANGES: dict[str, dict[str, tuple[list[str], list[str]]]] = {
    "demo": {"--trials": (["1", "1000"], ["0", "1001"]), "--seed": NATURAL},
    "inspect": {"--min-size": COUNT},
    "remember": {"--mean": NUMBERS, "--std": NUMBERS},
    "prune": {"--sparsity": SHARE, "--min-size": COUNT},
    "protect": {
        "--cells-small": COUNT,
        "--cells-large": COUNT,
        "--large-fraction": (["0", "1"], ["-0.001", "1.001"]),
        "--threshold": (["1e-9", "1e9"], ["0", "-1"]),
        "--sparsity": SHARE,
        **FAMILY,
        "--integers": (["2", "8"], ["1", "9"]),
        "--min-size": COUNT,
        **CHANGES,
        **COMPENSATE,
        **IMAGES,
    },
    "readback": {
        "--seed": NATURAL,
        "--trials": (["1", "10000"], ["0", "10001", "1000000000"]),
        "--time": (["0", "1h"], ["-1", "soon", "nan"]),
        **CHANGES,
        **CORRECT,
    },
    "evaluate": {
        "--trials": NATURAL,
        "--seed": NATURAL,
        **CORRECT,
        "--samples": COUNT,
        "--batch": COUNT,
        "--threads": (["0"], ["-1", "99999999999"]),
        "--at-least": (["-1e9", "0", "1e9"], ["high", "nan"]),
        "--at-most": (["-1e9", "0", "1e9"], ["low", "nan"]),
        "--class-axis": AXIS,
        **CHANGES,
    },
    "check": {
        "--max-drop": (["1e-9", "100"], ["0", "101", "nan"]),
        "--min-sqnr": (["0", "300"], ["-1", "301", "nan"]),
        "--confidence": (["0.5", "0.999"], ["0.4", "1", "nan"]),
        "--max-trials": (["3", "10000"], ["2", "10001"]),
        **MEMORY,
        **CORRECT,
    },
    "sensitivity": {
        "--trials": (["1", "10000"], ["0", "10001"]),
        "--all-but": (["0", "10000"], ["-1", "10001"]),
        **MEMORY,
        **CORRECT,
    },
    "tune": {
        "--workers": COUNT,
        "--max-drop": (["1e-9", "100"], ["0", "101", "nan"]),
        "--budget": (["1e-9", "1e9"], ["0", "nan"]),
        "--min-sqnr": (["0", "300"], ["-1", "301", "nan"]),
        "--mask-seed": MASK_SEED,
        "--confidence": (["0.5", "0.999"], ["0.4", "1", "nan"]),
        **IMAGES,
        "--trials": (["2", "1000"], ["1", "1001"]),
        "--seed": NATURAL,
        "--min-size": COUNT,
        "--samples": COUNT,
        "--batch": COUNT,
        "--threads": (["0"], ["-1", "99999999999"]),
        "--class-axis": AXIS,
        **CHANGES,
    },
    "sweep": {
        "--cells": (["1", "1,30"], ["0", "1.5", "one", "1,,2"]),
        "--large-factor": COUNT,
        "--large-fraction": (["0", "1"], ["-0.001", "1.001"]),
        "--sparsity": SHARE,
        "--min-size": COUNT,
        "--trials": NATURAL,
        "--precision": (["1e-9", "50"], ["0", "-1", "nan", "inf"]),
        "--max-trials": (["2"], ["1", "2.5"]),
        "--max-drop": (["1e-9", "100"], ["0", "101", "nan"]),
        "--seed": NATURAL,
        **CORRECT,
        **COMPENSATE,
        "--samples": COUNT,
        "--batch": COUNT,
        "--class-axis": AXIS,
        "--workers": COUNT,
        "--threads": (["1", "1024"], ["0", "1025"]),
        **CHANGES,
    },
    "channel show": CHANGES,
    "channel fit": {"--neighbours": COUNT},
}
FULL = {
    "demo": "",
    "inspect": "model.onnx",
    "prune": "model.onnx --sparsity 0.5",
    "remember": "model.onnx --mean 0.5 --std 0.5 --output remembers.onnx",
    "protect": "model.onnx",
    "readback": "model.protected.onnx",
    "evaluate": "model.protected.onnx --data test.npz",
    "sweep": "model.onnx --data test.npz --out results",
    "check": "model.onnx --data test.npz --max-drop 1",
    "sensitivity": "model.onnx --data test.npz",
    "tune": "model.onnx --data test.npz --max-drop 1",
    "channel show": "pcm",
    "channel fit": "pairs.csv --input volts --output ohms",
}
NUMERIC = (click.types.IntParamType, click.types.FloatParamType, Finite, Floats, Integers, Seconds)
TAKEN = [(name, flag, value) for name, rows in RANGES.items() for flag, (taken, _) in rows.items() for value in taken]
OUTSIDE = [(name, flag, value) for name, rows in RANGES.items() for flag, (_, out) in rows.items() for value in out]


# options of protect that need another, or that lose something without noise, as quantisation does
NOT_ALONE = {
    "--read-after", "--side-cells", "--side-copies", "--classes", "--shares", "--integers", "--compensate-samples",
}  # fmt: skip


def test_every_option_that_is_a_number_has_a_range():
    numeric = {(name, flag) for name, flag in OPTIONS if isinstance(options_of(name)[flag].type, NUMERIC)}
    assert numeric == {(name, flag) for name, rows in RANGES.items() for flag in rows}


@pytest.mark.parametrize(("name", "flag", "value"), TAKEN)
def test_a_number_at_the_end_of_its_range_is_taken(shelf, monkeypatch, name, flag, value):
    monkeypatch.chdir(shelf)
    context = COMMANDS[name].make_context(name, [*shlex.split(FULL[name]), flag, value])
    assert context.get_parameter_source(str(options_of(name)[flag].name)) == click.core.ParameterSource.COMMANDLINE


@pytest.mark.parametrize(("name", "flag", "value"), OUTSIDE)
def test_a_number_outside_its_range_is_refused(cli, tmp_path, name, flag, value):
    found = cli(f"{name} {FULL[name]} {flag} {shlex.quote(value)}")
    assert_refused(found, 2, f"invalid value for '{flag}'")
    assert set(contents(tmp_path)) <= set(FULL[name].split())


@pytest.mark.parametrize(
    "line",
    [f"{flag} {value}" for name, flag, value in TAKEN if name == "protect" and flag not in NOT_ALONE]
    + ["--side-channel gaussian --side-cells 1 --side-copies 1", "--channel pcm-drift --read-after 0"],
)
def test_protect_works_at_the_ends_of_its_ranges(cli, line):
    done(cli(f"protect model.onnx {line}"))
    found = body(cli("evaluate model.protected.onnx --data test.npz --trials 1 --json"))
    assert (found["stored"] == 1) == ("--sparsity 0.999" not in line)
    assert 0 <= found["values"][0] <= 1


def test_a_number_of_cells_that_protect_takes_can_be_read(cli):
    found = cli(f"protect model.onnx --cells-small {10**20} -o many.onnx")
    if found.exit_code:
        assert_refused(found, 2, "--cells-small")
    else:
        assert body(cli("evaluate many.onnx --data test.npz --trials 1 --json"))["stored"] == 1


# ------------------------------------------------------------------------------------------------------ refusals

NOT_PROTECTED = "the model is not protected: protect it first"
NO_MODEL = "is not an ONNX model"
USAGE: list[tuple[str, str]] = [
    ("nothing", "no such command 'nothing'"),
    ("channel nothing", "no such command 'nothing'"),
    ("protect model.onnx --channel pcm-drift --read-after 1e999", "is longer than 1e+12 s"),
    ("protect model.onnx --channel pcm-drift --read-after 1e300d", "is longer than 1e+12 s"),
    ("protect", "missing argument 'MODEL'"),
    ("protect model.onnx --nothing", "no such option"),
    ("prune model.onnx", "missing option '--sparsity'"),
    ("evaluate model.onnx", "missing option '--data'"),
    ("channel show", "missing argument 'NAME'"),
    ("channel fit pairs.csv", "missing option '--input'"),
    ("channel fit pairs.csv --input volts", "missing option '--output'"),
    ("inspect missing.onnx", "'missing.onnx' does not exist"),
    ("prune missing.onnx --sparsity 0.5", "'missing.onnx' does not exist"),
    ("protect missing.onnx", "'missing.onnx' does not exist"),
    ("readback missing.onnx", "'missing.onnx' does not exist"),
    ("manifest missing.onnx", "'missing.onnx' does not exist"),
    ("manifest model.protected.onnx --check missing.json", "'missing.json' does not exist"),
    ("evaluate missing.onnx --data test.npz", "'missing.onnx' does not exist"),
    ("evaluate model.onnx --data missing.npz", "'missing.npz' does not exist"),
    ("evaluate model.onnx --data test.npz --reference missing.onnx", "'missing.onnx' does not exist"),
    ("channel fit missing.csv --input a --output b", "'missing.csv' does not exist"),
    ("inspect folder", "'folder' is a directory"),
    ("protect folder", "'folder' is a directory"),
    ("evaluate model.onnx --data folder", "'folder' is a directory"),
    ("protect model.onnx --strategy none", "'none' is not one of 'raw', 'sign', 'mapping', 'redundancy'"),
    ("protect model.onnx --preset none", "'none' is not one of 'default', 'isik2020'"),
    ("protect model.onnx --scope layer", "'layer' is not one of 'tensor', 'channel', 'model'"),
    ("protect model.onnx --prune-scope layer", "'layer' is not one of 'tensor', 'model'"),
    ("protect model.onnx --residuals odd", "'odd' is not one of 'gaussian', 'empirical'"),
    ("protect model.onnx --cells-on some", "'some' is not one of 'different', 'same'"),
    ("protect model.onnx --cells-hold half", "'half' is not one of 'level', 'residual'"),
    (f"{FIT} --log input", "'input' is not"),
    ("protect model.onnx -o .", "'.' is a folder; a file is needed"),
    ("protect model.onnx -o new/", "'new/' is a folder; a file is needed"),
    ("protect model.onnx --manifest /", "'/' is a folder; a file is needed"),
    ("readback model.protected.onnx --seed 9223372036854775808", "range 0<=x<=9,223,372,036,854,775,807"),
    ("protect model.onnx --cells-small 1000000000001", "is not in the range 1<=x<=1,000,000,000,000"),
    ("protect model.onnx --cells-large 0", "is not in the range 1<=x<=1,000,000,000,000"),
    ("protect model.onnx -o one --manifest one", "two outputs would be the same file, 'one'"),
    ("protect model.onnx -o one --manifest ./one", "two outputs would be the same file, 'one'"),
    ("protect model.onnx -o one --manifest folder/../one", "'one' and 'folder/../one' would be the same file"),
    ("protect model.onnx -o one --manifest one.data", "two outputs would be the same file, 'one.data'"),
    # these are found by the library
    ("protect model.onnx --threshold 0.1 --large-fraction 0.1", "--threshold and --large-fraction exclude each other"),
    (
        "protect model.onnx --classes 3 --cells 1 --shares 0.6,0.5",
        "Error: --shares add up to 1.1; they must add up to 1 or less",
    ),
    ("protect model.onnx --side-cells 2", "need a --side-channel"),
    ("protect model.onnx --side-copies 3", "need a --side-channel"),
    ("protect model.onnx --side-channel pcm --side-copies 2", "must be odd"),
    ("protect model.onnx --large-fraction nan", "'nan' is not a finite number"),
    ("protect model.onnx --threshold nan", "'nan' is not a finite number"),
    ("protect model.onnx --threshold inf", "'inf' is not a finite number"),
    ("protect model.onnx --sparsity nan", "'nan' is not a finite number"),
    ("prune model.onnx --sparsity nan", "'nan' is not a finite number"),
    ("evaluate model.onnx --data test.npz --mean nan", "it must be finite"),
    ("evaluate model.onnx --data test.npz --std 0", "--std is 0; each number must be above 0 and finite"),
    ("evaluate model.onnx --data test.npz --std 0.5,-1", "--std is 0.5, -1; each number must be above 0 and finite"),
    ("protect model.onnx --include (", "'(' is not a regular expression"),
    ("prune model.onnx --sparsity 0.5 --exclude [", "'[' is not a regular expression"),
    ("inspect model.onnx --include *", "'*' is not a regular expression"),
    ("evaluate model.onnx --data test.npz --preprocess nothing", "'nothing' is not of the form module:function"),
    (
        "evaluate model.onnx --data test.npz --preprocess no.module:f",
        "'no.module:f' cannot be imported: No module named 'no'",
    ),
    ("evaluate model.onnx --data test.npz --preprocess own_functions:f", "'own_functions:f' cannot be imported"),
    ("evaluate model.onnx --data test.npz --metric own_functions:f", "'own_functions:f' cannot be imported"),
    ("evaluate model.onnx --data test.npz --metric own_functions:number", "'own_functions:number' is not a function"),
    ("evaluate model.onnx --data test.npz --providers none", "no provider 'none' here"),
    ("evaluate model.protected.onnx --data test.npz --channel gaussian:low=0,high=1", "holds 0 to 1. Protect the"),
    ("readback model.protected.onnx --channel gaussian:low=0,high=1", "holds 0 to 1. Protect the original"),
    ("readback model.protected.onnx --trials 2 --channel gaussian:low=0,high=1", "holds 0 to 1. Protect the original"),
    ("protect model.onnx --channel none", "no channel is called 'none'"),
    ("protect model.onnx --channel gausian", "did you mean 'gaussian'?"),
    ("protect model.onnx --channel gaussian:width=1", "has no option 'width'"),
    ("protect model.onnx --channel gaussian:sigma=nan", "sigma is nan; it must be a finite number"),
    ("protect model.onnx --channel missing.json", "there is no file 'missing.json'"),
    ("protect model.onnx --side-channel none", "no channel is called 'none'"),
    ("protect model.onnx --read-after 1d", "does not change with time"),
    ("protect model.onnx --channel gaussian --residuals empirical", "has no residuals to choose"),
    ("protect model.onnx --channel gaussian --cells-on same", "does not tell devices apart"),
    ("protect model.onnx --cells-hold residual", "pcm does not separate programming from reading"),
    ("channel show none", "no channel is called 'none'"),
    ("channel show measured", "needs csv, input, output: name measured:csv=pairs.csv,input=volts,output=ohms,log=true"),
    ("channel show measured:csv=pairs.csv", "needs input, output: name measured:csv=pairs.csv,"),
    ("channel show table", "name the file that a fit wrote, such as mine.channel.json"),
    ("channel show precision", "needs inner: name any channel, with write bits or read bits"),
    ("channel fit pairs.csv --input amps --output ohms", "has no column 'amps'; its columns are volts, ohms, device"),
    ("channel fit pairs.csv --input volts --output amps", "has no column 'amps'"),
    (f"{FIT} --group amps", "has no column 'amps'"),
    (f"{FIT} --neighbours 21", "--neighbours is 21, and channel 'pairs' has 20 distinct inputs: give 1 to 20"),
    ("channel show pcm --plot folder", "'folder' is a folder"),
    ("protect model.onnx -o folder", "'folder' is a folder"),
    ("protect model.onnx -o folder --force", "'folder' is a folder"),
    ("protect model.onnx --manifest folder", "'folder' is a folder"),
    ("prune model.onnx --sparsity 0.5 -o folder", "'folder' is a folder"),
    ("readback model.protected.onnx -o folder", "'folder' is a folder"),
    (f"{FIT} -o folder", "'folder' is a folder"),
    (f"{FIT} --plot folder", "'folder' is a folder"),
]
FAILED: list[tuple[str, str]] = [
    ("channel fit empty.onnx --input volts --output ohms", "names no columns: it needs a header line"),
    ("inspect text.onnx", NO_MODEL),
    ("inspect empty.onnx", NO_MODEL),
    ("prune text.onnx --sparsity 0.5", NO_MODEL),
    ("protect text.onnx", NO_MODEL),
    ("protect empty.onnx", NO_MODEL),
    ("readback empty.onnx --trials 2", NO_MODEL),
    ("manifest text.onnx", NO_MODEL),
    ("evaluate text.onnx --data test.npz", NO_MODEL),
    ("evaluate model.onnx --data test.npz --reference text.onnx", NO_MODEL),
    ("protect model.protected.onnx", "is protected already. Protect the original"),
    ("prune model.protected.onnx --sparsity 0.5", "are levels. Prune the original"),
    ("protect old.onnx", "below opset 11"),
    ("readback model.onnx", NOT_PROTECTED),
    ("readback model.onnx --trials 2", NOT_PROTECTED),
    ("readback model.onnx --trials 2 -o one/two/three", NOT_PROTECTED),
    ("manifest model.onnx", NOT_PROTECTED),
    ("evaluate model.onnx --data test.npz --channel pcm", "so no channel reads it"),
    ("evaluate model.onnx --data test.npz --read-bits 4", "so no channel reads it"),
    ("evaluate model.onnx --data model.onnx", "'model.onnx' is an ONNX model, and an npz file of arrays is needed"),
    ("evaluate model.onnx --data wide.npz", "input 'x' takes shape (n, 16), and the data give (4, 17)"),
    ("evaluate model.onnx --data named.npz", "'named.npz' holds q, and the model takes 'x'"),
    ("evaluate model.onnx --data few_labels.npz", "differ in their number of samples"),
    ("evaluate model.onnx --data objects.npz", "is not an npz file of plain arrays"),
    ("evaluate model.onnx --data test.npz --reference old.onnx", "the reference has outputs of other shapes"),
    ("protect model.onnx --channel word.json", "cannot read a channel from 'word.json'"),
    ("protect model.onnx --channel list.json", "cannot read a channel from 'list.json'"),
    ("channel show pcm --plot c.text", "text"),
    ("channel show pcm --plot nowhere/c.png", "cannot write in the folder 'nowhere'"),
    ("protect model.onnx -o nowhere/p.onnx", "cannot write in the folder 'nowhere'"),
    ("protect model.onnx --manifest nowhere/m.json", "cannot write in the folder 'nowhere'"),
    ("protect model.onnx -o model.onnx/p.onnx", "cannot write in the folder 'model.onnx'"),
    ("protect model.onnx -o model.onnx", "'model.onnx' is an input, and is not replaced"),
    ("prune model.onnx --sparsity 0.5 -o nowhere/p.onnx", "cannot write in the folder 'nowhere'"),
    ("readback model.protected.onnx -o nowhere/p.onnx", "cannot write in the folder 'nowhere'"),
    ("readback model.protected.onnx --trials 2 -o model.protected.onnx", "'model.protected.onnx' is not a folder"),
    (f"{FIT} -o nowhere/c.json", "cannot write in the folder 'nowhere'"),
    (f"{FIT} --plot c.text", "text"),
    ("manifest word.json", "this is not a manifest"),
    ("manifest list.json", "this is not a manifest"),
    ("manifest model.protected.onnx --check word.json", "this is not a manifest"),
    ("manifest model.protected.onnx --check model.onnx", "'model.onnx' is an ONNX model, and a manifest is needed"),
    ("manifest model.protected.onnx --check other.manifest.json", "tensor 'a': low of class small is "),
    ("manifest model.protected.onnx --check other.manifest.json --json", " in other.manifest.json. W"),
    ("manifest model.manifest.json --check model.manifest.json", "is a manifest; --check needs the protected model"),
    ("channel fit model.onnx --input volts --output ohms", "'model.onnx' is an ONNX model, and a CSV table is needed"),
    (FIT.replace("pairs", "text"), "line 2: column 'ohms' holds 'two', which is not a finite number"),
    (FIT.replace("pairs", "short"), "line 3 has 1 value, and the header names 2 columns: mend or delete the line"),
    (FIT.replace("pairs", "nan"), "line 2: column 'ohms' holds 'nan', which is not a finite number"),
    (FIT.replace("pairs", "infinite"), "line 3: column 'ohms' holds 'inf', which is not a finite number"),
    (FIT.replace("pairs", "level"), "column 'volts' holds fewer than two distinct values"),
    (FIT.replace("pairs", "output"), "column 'ohms' holds fewer than two distinct values"),
    (FIT.replace("pairs", "negative") + " --log output", "column 'ohms' holds -1, which has no logarithm"),
    (FIT.replace("pairs", "zero") + " --log output", "column 'ohms' holds 0, which has no logarithm"),
    (FIT.replace("pairs", "no_rows"), "has no rows"),
]
NOTHING: list[tuple[str, str]] = [
    ("protect model.onnx --include none", "nothing to store"),
    ("protect model.onnx --exclude .", "nothing to store"),
    ("protect model.onnx --min-size 1025", "nothing to store"),
    ("protect model.onnx --sparsity 0.5 --include none", "nothing to prune"),
    ("prune model.onnx --sparsity 0.5 --include none", "nothing to prune"),
]
REFUSALS = [(line, code, said) for code, rows in ((2, USAGE), (1, FAILED), (3, NOTHING)) for line, said in rows]


@pytest.mark.parametrize("line", ["protect model.protected.onnx", "prune model.protected.onnx --sparsity 0.5"])
def test_a_remedy_that_only_the_library_has_is_not_told(cli, line):
    found = cli(line)
    assert_refused(found, 1, " the original")
    assert found.stderr.endswith(" the original\n")


@pytest.mark.parametrize(("line", "code", "said"), REFUSALS)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing_behind(cli, shelf, tmp_path, line, code, said):
    Path("folder").mkdir()
    words = [word for word in line.replace("(", "").replace("[", "").split() if (shelf / word).is_file()]
    assert_refused(cli(line), code, said)
    expected: dict[str, bytes | None] = {word: (shelf / word).read_bytes() for word in words} | {"folder": None}
    found = {name: held for name, held in contents(tmp_path).items() if not re.search("own_functions|pycache", name)}
    assert found == expected
