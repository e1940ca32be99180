import contextlib
import copy
import importlib.util
import inspect
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_analog as oa
from onnx_analog import passes, results
from onnx_analog.channels.gaussian import GaussianNoise
from onnx_analog.errors import AnalogError, DataError, OptionError
from onnx_analog.graph import manifest_json
from onnx_analog.settings import settings_of
from tests.models import QUIET, model, run

PASSES = ["CorrectPass", "DecodePass", "ManifestPass", "MeasuredPass", "ProtectPass", "PrunePass", "ReadbackPass"]
FUNCTIONS = [
    "account",
    "array_statistics",
    "check",
    "evaluate",
    "inspect",
    "load",
    "protect",
    "prune",
    "readback",
    "readbacks",
    "remember",
    "sensitivity",
    "sweep",
    "tune",
    "write_image",
]
ERRORS = [
    "AnalogError", "ChannelError", "DataError", "EngineError", "FunctionError", "LevelError", "ManifestError",
    "MeasurementError", "ModelError", "NothingToStore", "OptionError", "OutputError",
]  # fmt: skip
RESULTS = [
    "ArrayStatistics", "Checked", "Comparison", "Evaluation", "Fit", "Harms", "Inspection", "Manifest", "Model",
    "Perturbed", "Point", "ProtectedModel", "Pruned", "Swept", "Tuned",
]  # fmt: skip
VALUES = [
    "Channel", "Dataset", "Engine", "Estimator", "Experiment", "Modifiers", "Paper", "Plan", "Scheme",
    "Selection", "Source",
]  # fmt: skip
WRITERS = ["report"]
DATA = ["PRESETS", "STRATEGIES", "__version__"]
MODULES = ["channels", "engines", "errors", "passes"]
MAKERS = ["channel", "compare", "fit_channel", "from_pairs"]
PUBLIC = sorted([*FUNCTIONS, *ERRORS, *RESULTS, *VALUES, *DATA, *MODULES, *MAKERS, *WRITERS])

NET = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 16] b = 2 random> {
        h = MatMul(x, a)
        y = MatMul(h, b)
    }"""
API: Any = oa  # for calls that a type checker refuses
X = np.random.default_rng(0).normal(size=(30, 16)).astype(np.float32)
Y = np.random.default_rng(1).integers(16, size=30)


@pytest.fixture(scope="module")
def protected():
    return oa.protect(model(NET), channel=QUIET)


# ------------------------------------------------------------------------------------------------------ names


def test_the_public_names_are_these():
    assert sorted(oa.__all__) == PUBLIC
    assert set(dir(oa)) == set(PUBLIC)
    assert passes.__all__ == PASSES == sorted(PASSES)


@pytest.mark.parametrize("name", sorted({*PUBLIC, *PASSES} - set(DATA)))
def test_what_is_public_is_documented(name):
    found = getattr(oa, name, None) or getattr(passes, name)
    first = (inspect.getdoc(found) or "").partition("\n")[0]
    assert first.endswith((".", ":"))
    assert len(first) > 20


@pytest.mark.parametrize("name", ["PRESETS", "STRATEGIES"])
def test_data_that_are_public_cannot_be_changed(name):
    with pytest.raises(TypeError):
        getattr(oa, name)["other"] = None


def test_every_error_is_exported():
    from onnx_analog import errors

    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, Exception)]
    assert sorted(kind.__name__ for kind in kinds) == ERRORS


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert oa.__version__ == version("onnx-analog")


@pytest.mark.parametrize("name", ["nothing", "np", "_private"])
def test_another_name_is_no_attribute(name):
    with pytest.raises(AttributeError, match=f"module 'onnx_analog' has no attribute '{name}'"):
        getattr(oa, name)


def test_every_parameter_is_named_in_the_call_but_the_first():
    positional = {
        "check": 2, "evaluate": 2, "protect": 2, "sensitivity": 2, "sweep": 2, "tune": 2, "write_image": 2,
    }  # fmt: skip
    for name in FUNCTIONS:
        kinds = [parameter.kind for parameter in inspect.signature(getattr(oa, name)).parameters.values()]
        first = positional.get(name, 1)
        assert kinds[:first] == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * first
        assert set(kinds[first:]) <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


def test_the_first_parameter_of_each_function_is_the_model():
    assert {next(iter(inspect.signature(getattr(oa, name)).parameters)) for name in FUNCTIONS} == {"model"}


def test_words_are_those_of_the_command_line():
    from onnx_analog.cli import main

    same = {
        "check": oa.check,
        "sensitivity": oa.sensitivity,
        "protect": oa.protect,
        "sweep": oa.sweep,
        "evaluate": oa.evaluate,
        "readback": oa.readback,
    }
    spread = {*settings_of(oa.Modifiers), *settings_of(oa.Selection)}
    of_files = {
        "models",
        "protected",
        "force",
        "as_json",
        "debug",
        "verbose",
        "quiet",
        "output",
        "manifest",
        "save_plan",
        "save_config",
        "load",
        "junit",
        "report",
        "csv",
        "plot",
        "overlay",
    }
    others = {
        "readback": {"trials", "statistics", "data"},
        "check": {"check_trials"},
        "sensitivity": {"sensitivity_trials"},
    }
    of_engines = {"workers", "threads", "scheduler", "address"}
    for name, function in same.items():
        options = (
            {str(param.name) for param in main.commands[name].params} - spread - of_files - of_engines - {"config"}
        )
        known = {*inspect.signature(function).parameters, *oa.Scheme.__dataclass_fields__}
        assert options - known == others.get(name, set())


def test_the_presets_are_the_default_and_the_paper_s():
    assert {name: (p.granularity, p.large_fraction) for name, p in oa.PRESETS.items()} == {
        "default": ("tensor", 0.05),
        "isik2020": ("model", 0.0025),
    }


def test_the_strategies_are_the_rows_of_table_1():
    found = {name: (s.sign, s.classes, s.cells(2, 30)) for name, s in oa.STRATEGIES.items()}
    assert found == {
        "raw": ("level", 1, (2,)),
        "sign": ("bit", 1, (2,)),
        "mapping": ("bit", 2, (2, 2)),
        "redundancy": ("bit", 2, (2, 30)),
    }


def test_a_channel_is_found_by_name():
    assert oa.channel("gaussian:sigma=0.2").span == (-0.65, 0.75)
    assert np.isclose(oa.channel("pcm").span, (-0.61, 0.65), atol=0.005).all()


# ---------------------------------------------------------------------------------------- results are models


def test_each_result_can_be_used_where_a_model_can():
    pruned = oa.prune(model(NET), sparsity=0.5)
    stored = oa.protect(pruned, channel=QUIET)
    read = oa.readback(stored, decoded=True)
    assert [oa.inspect(result).protected for result in (pruned, stored, read)] == [False, True, False]
    assert oa.account(stored) == stored.manifest
    values = oa.evaluate(stored, (X, Y), trials=2, reference=pruned).values
    assert values == oa.evaluate(stored.model, {"x": X, "y": Y}, trials=2).values
    assert oa.evaluate(oa.prune(read, sparsity=0.1), (X, Y)).values == ()
    (point,) = oa.sweep(pruned, (X, Y), strategy="sign", cells=1, channel=QUIET, trials=1, engine="serial")
    assert point.totals.stored_weights == stored.manifest.totals.stored_weights


def test_a_result_is_a_proto_that_computes_the_same():
    pruned = oa.prune(model(NET), sparsity=0.5)
    proto = pruned.to_proto()
    onnx.checker.check_model(proto)
    expected = X @ (weights := dict_of(pruned))["a"] @ weights["b"]
    np.testing.assert_allclose(run(proto, {"x": X})[0], expected, rtol=1e-4, atol=1e-4)


def dict_of(result: oa.Model) -> dict[str, Any]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in result.to_proto().graph.initializer}


def test_a_protected_model_reads_what_readback_writes(protected):
    for trial in (0, 3):
        read = protected.read(seed=5, trial=trial)
        written = dict_of(oa.readback(protected, seed=5, trial=trial, decoded=True))
        assert {key: array.tobytes() for key, array in read.items()} == {k: written[k].tobytes() for k in read}
    decoded = protected.decode()
    assert set(decoded) == {"a", "b"}
    np.testing.assert_allclose(decoded["a"], dict_of(oa.prune(model(NET), sparsity=0))["a"], rtol=1e-4, atol=1e-5)


def test_a_saved_model_is_loaded_with_its_plan(protected, tmp_path):
    protected.save(tmp_path / "p.onnx")
    loaded = oa.load(tmp_path / "p.onnx")
    assert (loaded.manifest, loaded.plan) == (protected.manifest, protected.plan)
    assert oa.protect(model(NET), loaded.plan).manifest.to_dict() == protected.manifest.to_dict()
    with pytest.raises(oa.ModelError, match="not protected"):
        oa.load(model(NET))


# ------------------------------------------------------------------------------------------------- what is shown


def shown() -> list[Any]:
    stored = oa.protect(model(NET), channel=QUIET)
    swept = oa.sweep(model(NET), (X, Y), strategy="sign", cells=1, channel=QUIET, trials=2, engine="serial")
    read, pruned = oa.readback(stored), oa.prune(model(NET), sparsity=0.5)
    evaluated = oa.evaluate(stored, (X, Y), trials=2)
    return [
        stored,
        stored.manifest,
        swept,
        read,
        pruned,
        evaluated,
        oa.inspect(stored),
        stored.plan,
        *stored.plan.schemes,
        *swept.points,
        swept.points[0].setting,
        oa.Plan(default=None, tensors={"<w>": oa.Scheme.int4()}),
        oa.Dataset({"x": X}, Y),
    ]


def test_every_result_is_one_short_line_in_a_console():
    for result in shown():
        assert "\n" not in repr(result)
        assert 10 < len(repr(result)) < 300
        assert "object at" not in repr(result)
        assert str(result)


def test_results_are_tables_in_a_notebook():
    for result in shown():
        if hasattr(result, "_repr_html_"):
            text = result._repr_html_()
            assert text.startswith("<table>")
            assert text.count("<tr>") == text.count("</tr>") > 0
    shown_types = {type(result).__name__ for result in shown() if hasattr(result, "_repr_html_")}
    assert shown_types == {
        "ProtectedModel", "Manifest", "Pruned", "Perturbed", "Swept", "Point", "Inspection", "Evaluation",
        "Plan", "Scheme",
    }  # fmt: skip


def test_a_plan_and_a_scheme_name_their_settings_in_a_notebook():
    plan = oa.Plan(default=oa.Scheme(), tensors={"<w>": oa.Scheme.int4(), "b": None})
    text = plan._repr_html_()
    assert "<td>&lt;w&gt;</td><td>uniform, 15 classes, sign in the level, no cells</td>" in text
    assert "<td>b</td><td>stays digital</td><td></td>" in text
    assert text.index("&lt;w&gt;") < text.index("all others")
    scheme = oa.Scheme(side_channel=None)._repr_html_()
    assert "<td>cells</td><td>(1, 20)</td>" in scheme
    assert "<td>side_channel</td><td>none</td>" in scheme


def test_an_evaluation_without_sqnr_is_a_table_of_pandas(monkeypatch):
    class Pandas:
        DataFrame = list

    monkeypatch.setitem(sys.modules, "pandas", Pandas)
    (first, second) = oa.Evaluation(metric="mine", samples=5, original=1.0, values=(0.5, 0.6)).to_dataframe()
    assert (first["value"], second["value"]) == (0.5, 0.6)
    assert math.isnan(first["sqnr_db"])


def test_a_name_is_no_markup_in_a_notebook():
    assert "<b>" not in results.html_table("<b>", ("<b>",), [("<b>",)])
    assert results.html_table("t", ("h",), [("c",)]).count("<t") == 7  # it has markup of its own


def test_a_table_of_pandas(monkeypatch):
    swept = oa.sweep(model(NET), (X, Y), strategy="sign", cells=(1, 3), channel=QUIET, trials=2, engine="serial")
    evaluated = oa.evaluate(oa.protect(model(NET), channel=QUIET), (X, Y), trials=3)

    class Pandas:
        DataFrame = list

    monkeypatch.setitem(sys.modules, "pandas", Pandas)
    assert [row["cells"] for row in swept.to_dataframe()] == [1, 3]
    assert [(row["trial"], row["value"]) for row in evaluated.to_dataframe()] == list(enumerate(evaluated.values))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(AnalogError, match="pip install pandas"):
        swept.to_dataframe()


# -------------------------------------------------------------------------------------------------------- data


def test_data_are_a_path_a_mapping_an_npz_file_a_pair_or_an_array(protected, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=X, y=Y)
    expected = oa.evaluate(protected, path, trials=1).values
    with np.load(path) as opened:
        for data in (str(path), {"x": X, "y": Y}, {"x": X.tolist(), "y": Y}, (X, Y), [X, Y], opened):
            assert oa.evaluate(protected, data, trials=1).values == expected
    unlabelled = oa.evaluate(protected, {"x": X}, trials=1)
    for data in ((X, None), X):
        assert oa.evaluate(protected, data, trials=1) == unlabelled


@pytest.mark.parametrize(
    "data",
    [None, 3, b"x", (X,), (X, Y, Y), [], {1: X}, {"x": None}, {"x": [[1], [1, 2]]}, {"x": object()}, {}, ("x", "y")],
)
def test_other_data_are_refused(protected, data):
    with pytest.raises(DataError):
        oa.evaluate(protected, data, trials=1)


# ------------------------------------------------------------------------------------------------- wrong values

WRONG: list[Any] = [
    None, 3, -1, 1.5, float("nan"), float("inf"), True, "", "0.5", "all", b"x", object(), [], [None], ["x"], (1, 2), {},
    {"a": 1}, print, type, 10**30, lambda: None, np.zeros(3), {1, 2}, Path("/nonexistent/x"),
]  # fmt: skip
ARGUMENTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "account": lambda p: {"model": p},
    "array_statistics": lambda p: {"model": p, "trials": 1},
    "inspect": lambda p: {"model": p},
    "load": lambda p: {"model": p},
    "prune": lambda p: {"model": model(NET), "sparsity": 0.5},
    "protect": lambda p: {"model": model(NET), "channel": QUIET},
    "readback": lambda p: {"model": p},
    "readbacks": lambda p: {"model": p, "trials": 1},
    "remember": lambda p: {"model": p, "mean": 0.5, "std": 0.5},
    "write_image": lambda p: {"model": p, "path": "cells.npz", "force": True},
    "evaluate": lambda p: {"model": p, "data": (X, Y), "trials": 1},
    "sweep": lambda p: {
        "model": model(NET), "data": (X, Y), "strategy": "sign", "cells": 1, "channel": QUIET, "trials": 1,
        "engine": "serial",
    },
    "check": lambda p: {"model": model(NET), "data": (X, Y), "max_drop": 50, "channel": QUIET, "max_trials": 3},
    "sensitivity": lambda p: {"model": model(NET), "data": (X, Y), "channel": QUIET, "trials": 1},
    "tune": lambda p: {"model": model(NET), "data": (X, Y), "budget": 3.0},  # and so few data are refused in the end
}  # fmt: skip
# a number of trials of 10**30 or of 3 workers is refused or takes time, but is not wrong in type
PARAMETERS = [
    (name, parameter.name)
    for name in FUNCTIONS
    for parameter in inspect.signature(getattr(oa, name)).parameters.values()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
]
SCHEME = [("protect", name) for name in oa.Scheme.__dataclass_fields__ if ("protect", name) not in PARAMETERS]


@pytest.mark.parametrize(("function", "parameter"), PARAMETERS + SCHEME)
def test_a_wrong_value_is_refused_in_one_line_or_taken(function, parameter, protected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ARGUMENTS[function](protected)
    for value in WRONG:
        if callable(value) and parameter in ("metric", "progress"):
            continue  # what a function of the user's raises is the user's
        given = {**arguments, parameter: copy.copy(value)}
        with contextlib.suppress(AnalogError):  # messages are checked as all are; see conftest
            found = getattr(oa, function)(**given)
            if function == "readbacks":
                next(iter(found), None)


ALONE = partial(oa.sweep, model(NET), (X, Y), strategy=[], plan=oa.Scheme())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: API.inspect(None), "model is None; it must be a path"),
        (lambda: API.prune(model(NET), sparsity="0.5"), "sparsity is '0.5'; it must be a number"),
        (lambda: API.protect(model(NET), channel=3), "3"),
        (lambda: API.evaluate(model(NET), (X, Y), trials=1.5), "trials is 1.5; it must be a whole number"),
        (lambda: API.evaluate(model(NET), (X, Y), samples="all"), "samples is 'all'; it must be a whole number"),
        (lambda: API.evaluate(model(NET), (X, Y), metric=3), "metric is 3; it must be a name"),
        (lambda: oa.protect(model(NET), cell_small=3), "there is no setting 'cell_small': did you mean 'cells_small'?"),
        (
            lambda: API.evaluate(model(NET), (X, Y), trails=3),
            "evaluate has no argument 'trails': did you mean 'trials'?",
        ),
        (
            lambda: API.sweep(model(NET), (X, Y), strategies=3),
            "sweep has no argument 'strategies': did you mean 'strategy'?",
        ),
        (lambda: API.Modifiers(read_after=3), "Modifiers has no setting 'read_after': did you mean 'read_after_s'?"),
        (
            lambda: oa.protect(model(NET), include="fc"),
            "include is a setting of Selection: give selection=onnx_analog.Selection(include=...)",
        ),
        (
            lambda: oa.protect(model(NET), read_after=3),
            "read_after is a setting of Modifiers: give modifiers=onnx_analog.Modifiers(read_after_s=...)",
        ),
        (lambda: oa.protect(model(NET), oa.Scheme.int4(), estimator="affine"), "estimator is given, and no weight is"),
        (lambda: oa.protect(model(NET), oa.Scheme(), strategy="redundancy"), "plan and strategy exclude each other"),
        (
            lambda: oa.protect(model(NET), strategy="raw", threshold=0.5),
            "threshold is 0.5, and strategy is 'raw', which",
        ),
        (lambda: API.prune(model(NET), sparsity=0.5, scope="model"), "prune has no argument 'scope'"),
        (lambda: oa.sweep(model(NET), (X, Y), cells=1, grid={"cells": [1]}), "cells is given, and the grid varies"),
        (lambda: API.protect(model(NET), scope="model"), "there is no setting 'scope': did you mean 'granularity'?"),
        (
            lambda: API.Scheme(bits_per_cell=1),
            "Scheme has no setting 'bits_per_cell': did you mean 'side_bits_per_cell'?",
        ),
        (lambda: ALONE(cells=1), "cells is given, and only plans are compared, which have their own: leave it out"),
        (lambda: ALONE(channel="pcm"), "channel is given, and only plans are compared"),
        (lambda: ALONE(preset="isik2020"), "preset is given, and only plans are compared"),
        (lambda: ALONE(granularity="model"), "granularity is given, and only plans are compared"),
        (lambda: ALONE(large_factor=3), "large_factor is given, and only plans are compared"),
        (lambda: ALONE(grid={"cells_small": [1, 2]}), "the grid varies 'cells_small', and only plans are compared"),
        (lambda: oa.evaluate(model(NET), (X, Y), mean=0.5, preprocess="a:b"), "mean and preprocess exclude each other"),
        (lambda: oa.sweep(model(NET), (X, Y), std=[2.0], preprocess="a:b"), "std and preprocess exclude each other"),
        (lambda: oa.evaluate(model(NET), (X, Y), trials=7), "trials is 7, and the model is not protected"),
        (lambda: oa.sweep(model(NET), (X, Y), max_trials=9), "max_trials is 9, and precision is not given"),
        (lambda: oa.protect(model(NET), oa.Scheme(), cells_small=3), "plan and cells_small exclude each other"),
        (lambda: oa.protect(model(NET), integers=4, cells=(1,)), "integers and cells exclude each other"),
        (lambda: oa.sweep(model(NET), (X, Y), engine="fast"), "no engine is called 'fast'"),
        (lambda: oa.sweep(model(NET), (X, Y), grid=["nothing=1"]), "'nothing' is not a setting"),
        (lambda: oa.sweep(model(NET), (X, Y), plan={"raw": oa.Scheme()}), "a plan is called 'raw', as a strategy is"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_must_be(call, said):
    with pytest.raises(AnalogError) as caught:
        call()
    assert said in str(caught.value)


READERS = {  # functions and methods that take a path, beside those of ARGUMENTS
    "save": lambda path: oa.protect(model(NET), channel=QUIET).save(path),
    "save of a pruned model": lambda path: oa.prune(model(NET), sparsity=0.5).save(path),
    "plan": oa.Plan.read,
    "manifest": manifest_json.read,
    "fit": lambda path: oa.fit_channel(path, input="x", output="y"),
    "measured": lambda path: oa.channels.from_dict({"family": "measured", "csv": path, "input": "x", "output": "y"}),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("path", [None, 3, 1.5, b"x", [], object], ids=repr)
def test_what_is_no_path_is_refused_by_all_that_take_one(name, path):
    with pytest.raises(AnalogError, match=r"is .*; it must be |measured"):
        READERS[name](path)


@pytest.mark.parametrize("name", ["plan", "manifest", "fit"])
def test_a_path_may_be_text(name, tmp_path):
    (tmp_path / "file").write_text("{")
    with pytest.raises(AnalogError) as of_text:
        READERS[name](str(tmp_path / "file"))
    with pytest.raises(AnalogError) as of_path:
        READERS[name](tmp_path / "file")
    assert str(of_text.value) == str(of_path.value)


@pytest.mark.any_message  # it names the error of the user's function
def test_a_metric_with_other_parameters_is_refused():
    with pytest.raises(DataError, match="failed with TypeError"):
        oa.evaluate(model(NET), (X, Y), metric=lambda: 1)


@pytest.mark.parametrize("name", ["Scheme", "Plan", "Paper", "Modifiers", "Selection", "Dataset"])
def test_a_wrong_field_of_a_value_is_refused_in_one_line(name):
    kind = getattr(oa, name)
    required = {"Dataset": {"inputs": {"x": X}, "labels": None}}.get(name, {})
    for parameter in inspect.signature(kind).parameters:
        for value in WRONG:
            with contextlib.suppress(AnalogError):  # messages are checked as all are; see conftest
                kind(**{**required, parameter: copy.copy(value)})


# -------------------------------------------------------------------------------------------- channels and plans


def test_a_channel_can_be_named_everywhere():
    named = oa.protect(model(NET), channel="gaussian:sigma=0.1")
    for given in (GaussianNoise(sigma=0.1), "onnx_analog.channels.gaussian:GaussianNoise:sigma=0.1"):
        assert oa.protect(model(NET), channel=given).manifest == named.manifest
    step = passes.ProtectPass(plan=oa.Scheme(channel="gaussian:sigma=0.1"))
    assert step.plan.schemes[0].channel == GaussianNoise(sigma=0.1)


def test_a_plan_is_an_object_a_file_or_a_function(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = oa.Plan(default=oa.Scheme.int4(), tensors={"a": oa.Scheme(channel=QUIET)})
    Path("p.json").write_text(plan.to_json(), encoding="utf-8")
    Path("my_plan.py").write_text("import onnx_analog as oa\n\ndef small():\n    return oa.Scheme.int4()\n")
    assert oa.protect(model(NET), "p.json").plan == oa.protect(model(NET), plan).plan
    assert oa.protect(model(NET), Path("p.json")).plan.schemes == (oa.Scheme(channel=QUIET), oa.Scheme.int4())
    assert oa.protect(model(NET), "my_plan:small").plan == oa.protect(model(NET), integers=4).plan
    sys.modules.pop("my_plan")
    with pytest.raises(OptionError, match="'my_plan:none' cannot be imported"):
        oa.protect(model(NET), "my_plan:none")
    sys.modules.pop("my_plan", None)


def test_a_sweep_has_points_of_grids_and_plans():
    swept = oa.sweep(
        model(NET), (X, Y), strategy="redundancy", cells=1, channel=QUIET, trials=1, engine="serial",
        grid={"side_bits_per_cell": (1, 2)}, plan={"four": oa.Scheme.int4()},
    )  # fmt: skip
    assert [(point.strategy, point.setting.changes.get("side_bits_per_cell")) for point in swept] == [
        ("redundancy", 1), ("redundancy", 2), ("four", 2),
    ]  # fmt: skip
    assert swept.points[0].totals.side_cells == 2 * swept.points[1].totals.side_cells


def test_a_sweep_returns_the_model_of_a_point():
    options = {"strategy": "redundancy", "cells": [1, 2], "channel": "gaussian:sigma=0.3", "metric": "relative_error"}
    swept, other = (oa.sweep(model(NET), X, **options, trials=2, seed=seed, engine="serial") for seed in (3, 4))
    for point in swept:
        again = oa.evaluate(swept.protected(point), X, trials=2, seed=3, metric="relative_error", reference=model(NET))
        assert again.values == point.evaluation.values
    assert swept.points[0].evaluation.values != swept.points[1].evaluation.values
    with pytest.raises(OptionError, match="not one of this sweep"):
        swept.protected(other.points[0])


def test_a_sweep_writes_what_the_command_writes(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=X, y=Y)
    oa.protect(model(NET)).save(tmp_path / "unused.onnx")
    oa.Model(model(NET)).save(tmp_path / "m.onnx")
    options = {"strategy": "sign", "cells": 1, "channel": "gaussian:sigma=0.1", "trials": 2, "engine": "serial"}
    oa.sweep(tmp_path / "m.onnx", path, out=tmp_path / "out", grid={"side_bits_per_cell": [1, 2]}, **options)
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"trials.csv", "points.csv", "sweep.json", "sweep.toml"} <= written
    assert ("points.png" in written) == (importlib.util.find_spec("matplotlib") is not None)
    line = [
        "-m",
        "onnx_analog",
        "sweep",
        "--config",
        str(tmp_path / "out" / "sweep.toml"),
        "--out",
        str(tmp_path / "2"),
    ]
    done = subprocess.run([sys.executable, *line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "2" / "trials.csv").read_bytes() == (tmp_path / "out" / "trials.csv").read_bytes()
