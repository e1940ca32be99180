"""Plans and the family of schemes on the command line."""

import csv
import json
import shlex
import sys
import tomllib
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog import channels, plots
from onnx_analog.cli import main
from onnx_analog.cli.failures import with_options
from onnx_analog.coding import estimators
from onnx_analog.settings import settings_of
from onnx_analog.study.rivals import RIVALS
from tests.models import model

NET = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 16] b = 2 random> {
        h = MatMul(x, a)
        y = MatMul(h, b)
    }"""
PROTECT = "protect model.onnx --channel gaussian:sigma=0.1"
SWEEP = "sweep model.onnx --data test.npz --channel gaussian:sigma=0.1 --trials 2 --engine serial --out out --json"
DIGITAL = SWEEP.replace("--channel gaussian:sigma=0.1 ", "")


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Return a function that calls the command line in a folder with a model, data and a plan."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "can_plot", lambda: False)
    oa.Model(model(NET)).save("model.onnx")
    rng = np.random.default_rng(0)
    np.savez("test.npz", x=rng.normal(size=(40, 16)).astype(np.float32), y=rng.integers(16, size=40))
    plan = oa.Plan(default=oa.Scheme.int4(), tensors={"a": oa.Scheme(channel="gaussian:sigma=0.1")})
    Path("plan.json").write_text(plan.to_json(), encoding="utf-8")
    yield lambda line: CliRunner().invoke(main, shlex.split(line), prog_name="onnx-analog")
    sys.modules.pop("my_plan", None)


def done(result):
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.parametrize(
    ("line", "scheme"),
    [
        ("--classes 2", oa.Scheme(channel="gaussian:sigma=0.1")),
        (
            "--classes 3 --shares 0.2,0.05 --cells 1,5,20",
            oa.Scheme(classes=3, shares=(0.2, 0.05), cells=(1, 5, 20), channel="gaussian:sigma=0.1"),
        ),
        (
            "--classes 4 --partition lloyd --cells 0,1,2,3 --sign level",
            oa.Scheme(classes=4, partition="lloyd", cells=(0, 1, 2, 3), sign="level", channel="gaussian:sigma=0.1"),
        ),
        ("--side-bits-per-cell 3 --scope channel", oa.Scheme(
            side_bits_per_cell=3, granularity="channel", channel="gaussian:sigma=0.1")),
    ],
)  # fmt: skip
def test_the_whole_family_can_be_asked_for(cli, line, scheme):
    done(cli(f"{PROTECT} {line} --save-plan saved.json"))
    assert oa.load("model.protected.onnx").plan.schemes == (scheme,)
    assert oa.Plan.read(Path("saved.json")) == oa.load("model.protected.onnx").plan


@pytest.mark.parametrize(
    ("line", "scheme"),
    [
        ("--integers 4", oa.Scheme.int4()),
        ("--integers 8 --granularity channel", oa.Scheme.int8(granularity="channel")),
        ("--classes 16 --partition lloyd --cells 0", oa.Scheme(classes=16, partition="lloyd", cells=(0,))),
    ],
)
def test_weights_can_be_quantised_without_cells(cli, line, scheme):
    done(cli(f"protect model.onnx {line} --save-plan saved.json"))
    assert oa.load("model.protected.onnx").plan.schemes == (scheme,)
    assert oa.Plan.read(Path("saved.json")) == oa.load("model.protected.onnx").plan


def test_a_plan_that_was_saved_protects_alike(cli):
    done(cli("protect model.onnx --plan plan.json --save-plan saved.json -o one.onnx"))
    done(cli("protect model.onnx --plan saved.json -o two.onnx"))
    one, two = (oa.load(name) for name in ("one.onnx", "two.onnx"))
    assert one.manifest.tensors == two.manifest.tensors
    assert one.plan.scheme_of("a") == oa.Scheme(channel="gaussian:sigma=0.1")
    assert one.plan == oa.protect("model.onnx", "plan.json").plan


def test_a_plan_can_be_a_function(cli):
    Path("my_plan.py").write_text("import onnx_analog as oa\n\ndef four():\n    return oa.Scheme.int4()\n")
    done(cli("protect model.onnx --plan my_plan:four"))
    assert oa.load("model.protected.onnx").plan.schemes == (oa.Scheme.int4(),)


def test_a_plan_takes_another_channel_and_granularity(cli, caplog):
    ended = cli(f"{PROTECT} --plan plan.json --granularity channel")
    assert ended.exit_code == 0
    assert caplog.messages == ["granularity is channel for every tensor: it replaces the plan's tensor"]
    assert {scheme.granularity for scheme in oa.load("model.protected.onnx").plan.schemes} == {"channel"}
    families = {scheme.analog: scheme.channel.family for scheme in oa.load("model.protected.onnx").plan.schemes}
    assert families["all"] == "gaussian"


def test_a_setting_beside_a_plan_says_what_it_replaces(cli, caplog):
    plan = oa.Plan(default=oa.Scheme(cells=(5, 9)), tensors={"a": oa.Scheme(cells=(3, 3)), "b": None})
    Path("cells.json").write_text(plan.to_json(), encoding="utf-8")
    ended = cli("protect model.onnx --plan cells.json --cells 3")
    assert ended.exit_code == 0
    assert caplog.messages == ["cells is 3 for every tensor: it replaces the plan's 5,9"]
    assert {scheme.cells for scheme in oa.load("model.protected.onnx").plan.schemes} == {(3,)}
    done(cli("protect model.onnx --plan cells.json --channel pcm --force"))  # as the plan has it
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--plan plan.json --strategy raw", "--plan and --strategy exclude each other"),
        ("--plan plan.json --cells-small 1", "--plan and --cells-small exclude each other"),  # though it is the default
        ("--plan plan.json --integers 4", "--plan and --integers exclude each other"),
        ("--integers 4 --cells 1", "--integers and --cells exclude each other"),
        ("--integers 4 --estimator clipped", "--estimator is given, and no weight is stored in analog cells: leave it"),
        ("--strategy raw --threshold 0.5", "--threshold is 0.5, and --strategy is 'raw', which has no large weights"),
        ("--strategy raw --cells-large 3", "--cells-large is 3, and --strategy is 'raw', which gives all weights"),
        ("--classes 2 --threshold 0.5", "--classes and --threshold exclude each other"),
        ("--classes 3 --cells-large 9", "--cells has 2 numbers, and --classes is 3; give one number, or one for each"),
        (
            "--classes 3 --cells 1",
            "--shares has 0 numbers; as --partition is 'share' and --classes is 3, it must have 2",
        ),
        ("--shares 0.1 --bounds 0.5", "--shares and --bounds exclude each other"),
        (
            "--prune-scope tensor",
            "--prune-scope is 'tensor', and --sparsity is 0, so nothing is pruned: give a sparsity",
        ),
        ("--cells 1,2 --cells-large 3", "--cells and --cells-large exclude each other"),
        ("--shares 0.1 --large-fraction 0.1", "--shares and --large-fraction exclude each other"),
        ("--classes 3 --strategy raw", "--classes and --strategy exclude each other"),
        ("--classes 3 --shares 0.1,0.1 --cells 1,2", "--cells has 2 numbers, and --classes is 3"),
        ("--plan none.json", "none.json"),
        ("--side-copies 3", "--side-copies need a --side-channel"),
    ],
)
def test_contradictions_are_refused_in_one_line_and_nothing_is_written(cli, tmp_path, line, said):
    before = sorted(path.name for path in tmp_path.iterdir())
    found = cli(f"{PROTECT} {line}")
    assert found.exit_code == 2, found.output
    assert said in found.stderr.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("channel", {"family": "gaussian", "sigma": -1.0}),
        ("channel", "pcmm"),
        ("side_channel", "pcm:width=1"),
        ("side_bits_per_cell", 9),
        ("partition", "none"),
        ("shares", [0.1, 0.2]),
    ],
    ids=str,
)
def test_what_is_refused_as_an_option_has_the_code_2_and_in_a_file_1(cli, setting, value):
    plan = {"format": "onnx-analog-plan/1", "schemes": {"mine": {setting: value}}, "default": "mine"}
    Path("wrong.json").write_text(json.dumps(plan))
    Path("own.json").write_text(json.dumps(value))
    word = "gaussian:sigma=-1" if isinstance(value, dict) else str(value).strip("[]").replace(" ", "")
    option = f"--{setting.replace('_', '-')}"
    codes = {line: cli(f"protect model.onnx {line}").exit_code for line in (f"{option} {word}", "--plan wrong.json")}
    assert list(codes.values()) == [2, 1]
    if isinstance(value, dict):
        assert cli(f"protect model.onnx {option} own.json").exit_code == 1


WRONG_PLANS = {
    "{": "it is not JSON",
    b"\xff": "is not UTF-8 text",
    " " * (16 * 2**20 + 1): "more than the 16,777,216 that are read",
    "[]": "this is not a plan",
    '{"format": "onnx-analog-plan/1", "schemes": {"s": {"cels": [1]}}}': "did you mean 'cells'?",
    '{"format": "onnx-analog-plan/1", "schemes": {}, "default": "s"}': 'the scheme "s", which it does not have',
    '{"format": "onnx-analog-plan/1", "schemes": {"s": {}}, "tensors": {"aa": "s"}}': "the plan names 'aa', which",
}


@pytest.mark.parametrize(("text", "said"), WRONG_PLANS.items(), ids=[said[-24:] for said in WRONG_PLANS.values()])
@pytest.mark.parametrize(
    ("command", "code"), [("protect", 1), (DIGITAL, 1), ("check --data test.npz --max-drop 1 --metric agreement", 2)]
)
def test_whatever_is_wrong_in_a_plan_has_one_code(cli, command, code, text, said):
    """That of a file that is at fault; 2 of `check`, whose 1 is an answer."""
    Path("wrong.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    name, _, rest = command.partition(" ")
    found = cli(f"{name} {rest.removeprefix('model.onnx')} model.onnx --plan wrong.json")
    assert said in found.stderr
    assert found.exit_code == code


@pytest.mark.parametrize("option", ["--plan", "--channel"])
def test_a_file_that_is_not_there_is_an_option_that_is_wrong(cli, option):
    assert cli(f"protect model.onnx {option} nowhere.json").exit_code == 2


@pytest.mark.parametrize("text", [b"\xff", b"{", b"[]"])
def test_whatever_is_wrong_in_the_file_of_a_channel_has_the_code_1(cli, text):
    Path("wrong.json").write_bytes(text)
    assert cli("protect model.onnx --channel wrong.json").exit_code == 1


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        ({"side_bits_per_cell": 12}, "side_bits_per_cell is 12; it must be from 1 to 8"),
        ({"cell": 1}, "a scheme has no setting 'cell': did you mean 'cells'?"),
        ({"shares": [0.1, 0.1]}, "shares has 2 numbers; as partition is 'share' and classes is 2, it must have 1"),
        ({"channel": "pcmm"}, "channel: no channel is called 'pcmm': did you mean 'pcm'?"),
    ],
)
@pytest.mark.parametrize(
    "command", ["protect model.onnx --plan wrong.json", "plan show wrong.json", f"{DIGITAL} --plan wrong.json"]
)
def test_an_error_in_a_plan_names_file_scheme_and_field(cli, command, scheme, said):
    body = {"format": "onnx-analog-plan/1", "schemes": {"mine": scheme}, "default": "mine"}
    Path("wrong.json").write_text(json.dumps(body))
    found = cli(command)
    assert found.stderr.startswith(f"Error: 'wrong.json': scheme 'mine': {said}")
    assert found.exit_code == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "--strategy sign --grid strategy=raw",
            "--strategy is given, and the grid varies 'strategy': leave one of them",
        ),
        ("--grid channel=pcm", "--channel is given, and the grid varies 'channel': leave one of them out"),
        ("--cells 1 --grid cells_small=1,2", "--cells is given, and the grid varies 'cells_small'"),
        ("--cells 1 --grid cells=1/20", "--cells is given, and the grid varies 'cells'"),
        ("--large-factor 3 --grid cells_large=5", "--large-factor is given, and the grid varies 'cells_large'"),
        ("--preset isik2020 --grid preset=default", "--preset is given, and the grid varies 'preset'"),
        ("--granularity model --grid granularity=model", "--granularity is given, and the grid varies 'granularity'"),
        ("--large-fraction 0.1 --grid shares=0.1", "--large-fraction is given, and the grid varies 'shares'"),
        ("--large-fraction 0.1 --grid threshold=0.1", "--large-fraction is given, and the grid varies 'threshold'"),
        ("--grid shares=0.1 --grid large_fraction=0.1", "the axes 'shares' and 'large_fraction' exclude each other"),
        ("--grid cells=1/2 --grid cells_large=2", "the axes 'cells' and 'cells_large' exclude each other"),
        (
            "--strategy raw,sign --large-fraction 0.1",
            "--large-fraction is given, and --strategy is raw, sign, which has no",
        ),
        (
            "--strategy sign --large-factor 3",
            "--large-factor is given, and --strategy is sign, which gives all weights the",
        ),
        ("--max-trials 50", "--max-trials is 50, and --precision is not given, so no trials are added"),
        ("--prune-scope tensor", "--prune-scope is 'tensor', and --sparsity is 0, so nothing is pruned"),
        ("--grid cell_small=1", "'cell_small' is not a setting that can be varied: did you mean 'cells_small'?"),
    ],
)
def test_contradictions_of_a_sweep_are_refused_before_anything_runs(cli, line, said):
    found = cli(f"{SWEEP} {line}")
    assert (found.exit_code, found.stderr.count("\n")) == (2, 1)
    assert said in found.stderr
    assert not Path("out").exists()


def test_a_file_of_options_contradicts_the_grid_as_the_command_line_does(cli):
    Path("c.toml").write_text('grid = ["cells_small=1,2"]\ncells = 1\n')
    assert "--cells is given, and the grid varies 'cells_small'" in cli(f"{SWEEP} --config c.toml").stderr


def test_a_sweep_in_python_with_objects_is_not_repeated_without_them(cli):
    grid = {"side_channel": [None, oa.channels.resolve("rram-milo")]}
    data = {"x": np.ones((4, 16), np.float32)}
    channel = oa.channels.GaussianNoise(sigma=0.3)
    arguments = {"strategy": "sign", "cells": 1, "trials": 1, "engine": "serial", "out": "out"}
    oa.sweep("model.onnx", data, channel=channel, grid=grid, **arguments)
    text = Path("out", "sweep.toml").read_text()
    assert tomllib.loads(text)["given_in_python"] == ["data", "channel", "grid"]
    line = "sweep --config out/sweep.toml --data test.npz --out again"
    found = cli(line)
    assert found.exit_code == 2
    assert "'out/sweep.toml' is of a sweep in Python, whose channel is an object: give --channel, or" in found.stderr
    assert "whose grid is an object: give --grid, or" in cli(f"{line} --channel pcm").stderr
    done(cli(f"{line} --channel pcm --grid side_channel=none,rram-milo --trials 0"))


def test_a_channel_of_the_package_is_named_in_the_options_of_a_sweep_in_python(cli):
    arguments = {"strategy": "sign", "cells": 1, "trials": 0, "engine": "serial", "out": "out"}
    oa.sweep("model.onnx", "test.npz", channel=oa.channels.resolve("pcm"), **arguments)
    assert tomllib.loads(Path("out", "sweep.toml").read_text())["channel"] == ["pcm"]


def test_a_plan_is_shown_with_its_schemes_in_words_and_their_cells(cli):
    done(cli("protect model.onnx --plan plan.json"))
    shown = [done(cli(f"plan show {name}")) for name in ("plan.json", "model.protected.onnx", "model.manifest.json")]
    for text in shown:
        (line,) = [line for line in text.splitlines() if line.strip().startswith("a ")]
        assert "redundancy" in line
        assert "1, 20" in line
    of_model, of_manifest = (" ".join(text.split()).partition(". A correction ") for text in shown[1:])
    assert of_model[0] == of_manifest[0]
    assert "numbers take" in of_model[2]
    assert of_manifest[2] == "is not included: give the model in place of its manifest to see what one takes"
    assert "stays digital" in shown[1]  # all other tensors
    body = json.loads(done(cli("plan show plan.json --json")))
    assert body == oa.Plan.read(Path("plan.json")).to_file()
    found = cli("plan show test.npz")
    assert (found.exit_code, len(found.stderr.splitlines())) == (1, 1)


def test_the_table_of_a_plan_ends_with_a_total(cli):
    """Shares are of the weights that are stored, which a plan without its model does not know."""
    both = oa.Plan(default=None, tensors={"a": oa.Scheme.paper("raw", cells_small=3), "b": oa.Scheme.int8()})
    Path("both.json").write_text(both.to_json(), encoding="utf-8")
    done(cli("protect model.onnx --plan both.json -o both.onnx"))
    plan, stored = (
        [each.split() for each in done(cli(f"plan show both.{end}")).splitlines()] for end in ("json", "onnx")
    )
    words = "total 1 tensor in analog cells, 1 tensor in digital cells"
    assert words.split() in plan
    manifest = oa.load("both.onnx").manifest
    sizes = {entry.key: entry.original for entry in manifest.tensors}
    every = sum(sizes.values())
    shares = [f"({100 * sizes[key] / every:.1f} % of the weights)" for key in "ab"]
    totals = f"{manifest.totals.analog_cells / every:.3f} {every:,}"
    words = f"total 1 tensor in analog cells {shares[0]}, 1 tensor in digital cells {shares[1]} {totals}"
    assert words.split() in stored
    assert any(f"{' '.join(each)} ".startswith(f"{manifest}. A correction by samples ") for each in stored)
    assert not [line for line in (*plan, *stored) if line[:1] == ["b"] and "digital" in line]
    Path("all.json").write_text(oa.Plan().to_json(), encoding="utf-8")
    assert "total" not in done(cli("plan show all.json"))  # it may be for any model


def test_a_grid_varies_any_setting_and_a_plan_is_a_point(cli):
    text = done(cli(f"{SWEEP} --strategy redundancy --cells 1 --grid side_bits_per_cell=1,2 --plan plan.json"))
    points = json.loads(text)["points"]
    assert [(point["strategy"], point.get("side_bits_per_cell")) for point in points[:2]] == [
        ("redundancy", 1), ("redundancy", 2),
    ]  # fmt: skip
    assert points[2]["strategy"] == "plan"
    with Path("out", "points.csv").open(newline="", encoding="utf-8") as file:
        assert [row["strategy"] for row in csv.DictReader(file)] == ["redundancy", "redundancy", "plan"]


def test_integers_are_an_axis_on_the_command_line_in_toml_and_in_python(cli):
    first = done(cli(f"{DIGITAL} --grid integers=4,8 --scope channel"))
    points = json.loads(first)["points"]
    assert [(point["strategy"], point["integers"], point["cells"]) for point in points] == [
        ("int4", 4, 0),
        ("int8", 8, 0),
    ]
    assert [(point["channel"].partition(" ")[0], point["analog_cells"]) for point in points] == [("pcm", 0)] * 2
    assert done(cli("sweep --config out/sweep.toml --out again --json")) == first
    Path("c.toml").write_text('grid = ["integers=4,8"]\nscope = "channel"\n')
    assert done(cli(f"{DIGITAL.replace('--out out', '--out toml')} --config c.toml")) == first
    assert Path("toml", "trials.csv").read_bytes() == Path("out", "trials.csv").read_bytes()
    swept = oa.sweep(
        "model.onnx", "test.npz", grid={"integers": [4, 8]}, granularity="channel", trials=1, engine="serial"
    )
    assert [point.setting.plan.schemes for point in swept] == [
        (oa.Scheme.int4(granularity="channel"),), (oa.Scheme.int8(granularity="channel"),),
    ]  # fmt: skip
    assert "<td>pcm</td>" in swept._repr_html_()


@pytest.mark.parametrize(
    "option", ["strategy raw", "cells 1", "preset isik2020", "large-fraction 0.1", "large-factor 2"]
)
def test_what_integers_replace_is_refused_beside_them(cli, option):
    name = f"--{option.split()[0]}"
    found = cli(f"{DIGITAL} --grid integers=4 --{option}")
    assert (found.exit_code, found.stderr) == (
        2,
        f"Error: {name} is given, and the grid varies 'integers': leave one of them out\n",
    )


def test_integers_are_stored_in_cells_of_the_channel_that_is_given(cli):
    done(cli("protect model.onnx --integers 4 --channel gaussian:sigma=0.1 --read-bits 4 -o digital.onnx"))
    (scheme,) = oa.load("digital.onnx").plan.schemes
    assert (scheme.analog, scheme.channel.inner.sigma, scheme.channel.read_bits) == ("none", 0.1, 4)


def test_points_without_cells_go_on_where_they_were(cli):
    Path("i8.json").write_text(oa.Plan.of(oa.Scheme.int8()).to_json(), encoding="utf-8")
    line = f"{SWEEP} --strategy sign --cells 1 --plan i8.json"
    first = done(cli(line))
    rows = Path("out", "trials.csv").read_text(encoding="utf-8").splitlines()
    Path("out", "trials.csv").write_text("\n".join(rows[:-1]) + "\n", encoding="utf-8")
    assert done(cli(line)) == first
    assert Path("out", "trials.csv").read_text(encoding="utf-8").splitlines() == rows


def test_rivals_are_points_in_cells_of_each_channel_on_the_command_line_in_toml_and_in_python(cli):
    line = f"{DIGITAL} --strategy sign --cells 1 --channel gaussian:sigma=0.1 --channel gaussian:sigma=0.02"
    first = done(cli(f"{line} --rivals"))
    points = json.loads(first)["points"]
    names = [*RIVALS]
    assert [point["strategy"] for point in points] == ["sign", "sign", *names, *names]
    costs = {(point["channel"], point["strategy"]): point["honest_cells"] for point in points}
    quiet, loud = (str(oa.channel(f"gaussian:sigma={sigma}")) for sigma in (0.02, 0.1))
    assert all(costs[quiet, name] < costs[loud, name] for name in names)
    assert done(cli("sweep --config out/sweep.toml --out again --json")) == first
    assert tomllib.loads(Path("out", "sweep.toml").read_text(encoding="utf-8"))["rivals"] is True
    half = json.loads(first)["float16"]
    assert [each["channel"] for each in half] == [loud, quiet]
    for each in half:
        assert (each["value"], each["cost"], each["decoding"]) == (pytest.approx(points[0]["original"]), 8.0, "hard")
        assert (
            1 < each["honest_cost"] / (costs[each["channel"], "int8 per tensor"] / points[0]["original_weights"]) < 2.1
        )
    assert "float16" not in json.loads(done(cli(f"{line.replace('--out out', '--out none')}")))
    alone = {"strategy": [], "channel": "gaussian:sigma=0.1", "trials": 2, "engine": "serial", "rivals": True}
    swept = oa.sweep("model.onnx", "test.npz", **alone)
    assert [point.evaluation.values for point in swept] == [
        tuple(point["values"]) for point in points if point["channel"] == loud and point["strategy"] in names
    ]
    with pytest.raises(oa.OptionError, match=r"^a plan is called 'int4 per channel', as a rival is: rename it$"):
        oa.sweep("model.onnx", "test.npz", **alone, plan={"int4 per channel": oa.Scheme.int4()})


def test_steps_and_rate_weights_are_axes(cli):
    family = "--grid partition=uniform --grid sign=level --grid classes=255 --grid cells=0 --grid entropy=context"
    line = f"{SWEEP} {family} --grid relative_step=0.5,1,2 --grid rate_weight=0,0.1"
    points = json.loads(done(cli(line)))["points"]
    assert [(point["relative_step"], point["rate_weight"]) for point in points] == [
        (step, weight) for step in (0.5, 1.0, 2.0) for weight in (0.0, 0.1)
    ]
    assert {point["strategy"] for point in points} == {"uniform-255"}
    cost = {(point["relative_step"], point["rate_weight"]): point["honest_cells"] for point in points}
    for finer, coarser in ((0.5, 1.0), (1.0, 2.0)):
        assert cost[coarser, 0.0] < cost[finer, 0.0]  # an entropy-coded index of fewer likely classes
    assert all(cost[step, 0.1] <= cost[step, 0.0] for step in (0.5, 1.0, 2.0))


def test_grid_and_plan_can_stand_in_toml(cli):
    Path("c.toml").write_text('grid = ["side_bits_per_cell=1,2"]\nplan = ["plan.json"]\nstrategy = "sign"\ncells = 1\n')
    first = done(cli(f"{SWEEP} --config c.toml"))
    assert len(json.loads(first)["points"]) == 3
    again = done(cli("sweep --config out/sweep.toml --out again --json"))
    assert again == first


def test_tables_of_other_axes_and_plans_name_each_line(cli):
    line = SWEEP.removesuffix(" --json")
    text = done(cli(f"{line} --strategy sign,redundancy --cells 1,3 --grid side_bits_per_cell=1,2 --plan plan.json"))
    for name in ("sign, side_bits_per_cell 1", "sign, side_bits_per_cell 2", "redundancy, side_bits_per_cell 2"):
        assert any(row.strip().startswith(name) for row in text.splitlines())
    (row,) = [row for row in text.splitlines() if row.strip().startswith("plan  ")][-1:]
    assert "scheme" in row or "2 schemes" in text


@pytest.mark.parametrize("axis", ["nothing=1", "cells_small", "side_bits_per_cell=9", "side_bits_per_cell=1,1"])
def test_a_wrong_axis_is_one_line(cli, axis):
    found = cli(f"{SWEEP} --grid {axis}")
    assert (found.exit_code, found.stderr.count("\n")) == (2, 1)
    assert not Path("out").exists()


def test_the_paper_s_settings_stand_first_in_the_help(cli):
    text = done(cli("protect --help"))
    paper, family = text.split("Settings of the family of schemes:")
    for name in settings_of(oa.Paper):
        assert f"--{name.replace('_', '-')}" in paper
    for name in set(settings_of(oa.Scheme)) - set(settings_of(oa.Paper)) - {"channel"}:
        assert f"--{name.replace('_', '-')}" in family


def test_no_default_in_the_help_is_false_with_another_preset(cli):
    for command in ("protect", "sweep"):
        text = " ".join(done(cli(f"{command} --help")).split())
        assert "default has tensor and 0.05; isik2020 has model and 0.0025" in text
        assert "or the model. [default: set by the preset]" in text
        assert "that are large. [default: set by the preset]" in text
    text = " ".join(done(cli("protect --help")).split())
    assert "sizes between the classes. --step" in text
    assert "above the first. [default: with two classes, that of --large-fraction]" in text


# --------------------------------------------------------------------------------- classes that a file does not import

OWN = """
import onnx_analog as oa
from onnx_analog.channels.gaussian import GaussianNoise
from onnx_analog.coding.estimators import Affine

class Mine(Affine):
    pass

class Cell(GaussianNoise):
    pass
"""


@pytest.fixture
def own_classes(cli, monkeypatch):
    """Write files that name classes of a module that is not imported any more; return what calls the command line."""
    Path("own_classes.py").write_text(OWN, encoding="utf-8")
    for name, options in {"e": "--estimator own_classes:Mine", "c": "--channel own_classes:Cell:sigma=0.1"}.items():
        done(cli(f"protect model.onnx {options} -o {name}.onnx --save-plan {name}.plan.json"))
    yield cli
    _forget(monkeypatch)


def _forget(monkeypatch):
    monkeypatch.delitem(sys.modules, "own_classes", raising=False)
    estimators._KNOWN.pop("own_classes:Mine", None)
    for cls in channels.base.Channel.__subclasses__():
        for below in [
            *cls.__subclasses__(),
            *(last for each in cls.__subclasses__() for last in each.__subclasses__()),
        ]:
            if below.__module__ == "own_classes":
                monkeypatch.setattr(below, "family", "forgotten")


@pytest.mark.parametrize("name", ["e", "c"])
@pytest.mark.parametrize(
    "line",
    [
        "manifest {}.onnx",
        "manifest {}.manifest.json",
        "inspect {}.onnx",
        "plan show {}.plan.json",
        "plan show {}.onnx",
        "evaluate {}.onnx --data test.npz --trials 1",
        "sweep model.onnx --data test.npz --plan {}.plan.json --trials 1 --engine serial --out out",
    ],
)
def test_a_class_that_is_not_loaded_is_to_be_named_with_load(own_classes, monkeypatch, name, line):
    _forget(monkeypatch)
    refused = own_classes(line.format(name))
    assert refused.exit_code in (1, 2)
    assert "name it with --load" in refused.stderr
    assert "import its module" not in refused.stderr
    assert "Write it again" not in refused.stderr
    loaded = own_classes(f"{line.format(name)} --load own_classes:{'Mine' if name == 'e' else 'Cell'}")
    assert (loaded.exit_code, loaded.stderr) == (0, "")


def test_a_model_without_its_functions_is_one_error(cli):
    done(cli(PROTECT))
    damaged = onnx.load("model.protected.onnx")
    del damaged.functions[:]
    onnx.save(damaged, "damaged.onnx")
    refused = cli("manifest damaged.onnx")
    assert refused.exit_code == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith("Error: ")


def test_an_error_in_a_function_names_its_fields(cli):
    wrong = "import onnx_analog as oa\n\ndef wrong():\n    return oa.Scheme(classes=3, cells=(1, 2))\n"
    Path("my_plan.py").write_text(f"{wrong}\ndef fails():\n    1 / 0\n")
    found = cli("protect model.onnx --plan my_plan:wrong")
    assert (found.exit_code, found.stderr.partition(";")[0]) == (
        1, "Error: 'my_plan:wrong': cells has 2 numbers, and classes is 3",
    )  # fmt: skip
    found = cli("protect model.onnx --plan my_plan:fails")
    said = "'my_plan:fails' failed with ZeroDivisionError: division by zero. --debug shows where"
    assert (found.exit_code, found.stderr) == (1, f"Error: {said}\n")


def test_cells_that_are_not_counted_are_no_option_and_the_remedy_is_one(cli, caplog):
    found = cli("protect model.onnx --channel gaussian:sigma=100")
    assert found.exit_code == 0
    warned = with_options(caplog.messages[0], main.get_command(click.Context(main), "protect"))
    assert warned.startswith("as the memory allows, cells are not counted: ")
    for text in (warned, " ".join(found.stdout.split())):
        assert "allow a larger --block-failure" in text
        assert "block_failure" not in text
