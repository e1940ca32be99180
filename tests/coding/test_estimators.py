"""The seam for estimators, with one that the tests define: the same estimate wherever a level is read."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import named
from onnx_analog.channels import GaussianNoise
from onnx_analog.coding import estimators
from onnx_analog.coding.estimators import Affine, Estimator, estimator
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import ModelError, OptionError
from onnx_analog.graph.protected import opened
from onnx_analog.graph.stored import SCHEMES_KEY, stored_tensors
from onnx_analog.passes import DecodePass, ProtectPass, ReadbackPass
from onnx_analog.randomness import stream
from onnx_analog.run.read import Decoder
from tests.models import QUIET, f32, holding

NAME = f"{__name__}:Shrink"


class Shrink(Estimator):
    """Moves each read towards the mean of its class, by the share of noise in it, as a linear estimator does."""

    seen: ClassVar[list[tuple[int, tuple[int, ...]]]] = []

    def fitted(self, level, class_index, *, cells, channel):
        self.seen.append((level.size, cells))
        index = np.zeros(level.size, np.uint8) if class_index is None else class_index
        present = [level[index == number] for number in range(len(cells))]
        mean = f32([part.mean() if part.size else 0 for part in present])
        spread = f32([part.var() if part.size else 0 for part in present])
        noise = f32([QUIET.sigma**2 / max(number, 1) for number in cells])
        weight = spread / (spread + noise)

        def correct(read, block):
            read -= mean[index[block]]
            read *= weight[index[block]]
            read += mean[index[block]]

        return correct

    def table_bits(self, level, class_index, *, cells):
        return 64 * len(cells)


class NotOne:
    """No estimator."""


WEIGHT = f32(np.random.default_rng(0).normal(size=(40, 30)))
SCHEMES = {
    "redundancy": Scheme(channel=QUIET, estimator=NAME),
    "raw": Scheme.paper("raw", channel=QUIET, estimator=NAME),
    "some without cells": Scheme(
        classes=4, partition="lloyd", cells=(0, 1, 2, 3), sign="level", channel=QUIET, estimator=NAME
    ),
    "channel": Scheme(channel=QUIET, estimator=NAME, granularity="channel"),
}


def expected(scheme: Scheme, *, seed: int, trial: int) -> np.ndarray:
    """Return what the estimator makes of levels that are read without one, in one piece."""
    plain = oa.protect(holding(w=WEIGHT), scheme.changed(estimator="affine")).model
    (before,), (after,) = stored_tensors(plain), stored_tensors(ReadbackPass(seed=seed, trial=trial)(plain).model)
    level = after.level.copy()
    index = before.class_index
    if index is not None and before.analog is not None:
        index = index[before.analog]
    correct = Shrink().fitted(before.level, index, cells=scheme.cells_of_class, channel=scheme.channel)
    correct(level, slice(None))
    return before.decode(level)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_level_is_estimated_alike_wherever_it_is_read(name, monkeypatch):
    """By ReadbackPass, by ProtectedModel.read, and by evaluate's Decoder, in blocks: the same bytes."""
    monkeypatch.setattr("onnx_analog.randomness.BLOCK", 500)
    scheme = SCHEMES[name]
    protected = oa.protect(holding(w=WEIGHT), scheme).model
    decoder = Decoder(stored_tensors(protected)[0])
    for trial in (0, 1):
        wanted = expected(scheme, seed=5, trial=trial)
        read = ReadbackPass(seed=5, trial=trial)(protected).model
        assert np.array_equal(stored_tensors(read)[0].decode(), wanted)
        assert np.array_equal(opened(protected).read(seed=5, trial=trial)["w"], wanted)
        assert np.array_equal(decoder.weights(seed=5, trial=trial), wanted)
        plain = DecodePass()(read).model
        assert np.array_equal(plain.graph.initializers["w"].const_value.numpy(), wanted)


def test_estimates_are_nearer_than_reads():
    scheme = Scheme.paper("sign", channel=GaussianNoise(sigma=0.4))
    by_shrinking, plain = (
        opened(oa.protect(holding(w=WEIGHT), scheme.changed(estimator=name)).model) for name in (NAME, "affine")
    )
    off, off_plain = (np.square(model.read()["w"] - WEIGHT).mean() for model in (by_shrinking, plain))
    assert off < off_plain


def test_training_noise_is_estimated_too():
    import torch  # noqa: F401 - the test needs it

    from onnx_analog.train.noise import ChannelNoise

    scheme = SCHEMES["redundancy"]
    plain = ChannelNoise(scheme=scheme.changed(estimator="affine")).perturbed({"w": WEIGHT}, seed=1, step=2)["w"]
    read = ChannelNoise(scheme=scheme).perturbed({"w": WEIGHT}, seed=1, step=2)["w"]
    (tensor,) = stored_tensors(oa.protect(holding(w=WEIGHT), scheme).model)
    level = tensor.level.copy()
    cells = np.array(scheme.cells_of_class)[tensor.class_index]
    drawn = scheme.channel.read(level, cells=cells, rng=stream(1, 2, "w", plane="training"))
    assert np.array_equal(tensor.decode(drawn), plain)
    Shrink().fitted(level, tensor.class_index, cells=scheme.cells_of_class, channel=QUIET)(drawn, slice(None))
    assert np.array_equal(tensor.decode(drawn), read)


def test_the_tables_of_an_estimator_are_counted():
    for scheme in SCHEMES.values():
        (counted,) = oa.protect(holding(w=WEIGHT), scheme).manifest.tensors
        (plain,) = oa.protect(holding(w=WEIGHT), scheme.changed(estimator="affine")).manifest.tensors
        assert counted.bits["codebook"] == plain.bits["codebook"] + 64 * scheme.classes


def test_an_estimator_is_told_cells_and_classes():
    Shrink.seen.clear()
    ReadbackPass()(oa.protect(holding(w=WEIGHT), SCHEMES["redundancy"]).model)
    assert set(Shrink.seen) == {(1200, (1, 20))}


def test_affine_takes_reads_as_they_are():
    assert isinstance(estimator("affine"), Affine)
    given = {"cells": (1, 20)}
    assert estimator("affine").fitted(f32([1]), None, channel=QUIET, **given) is None
    assert estimator("affine").table_bits(f32([1]), None, **given) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("best", "no estimator is called 'best': choose from affine"),
        (f"{__name__}:NotOne", "is not a subclass of"),
        (f"{__name__}:stream", "is not a subclass of"),
        (f"{__name__}:Nobody", "cannot be imported"),
        (":", "is not of the form module:function"),
    ],
)
def test_what_is_no_estimator_is_refused(name, said):
    with pytest.raises(OptionError, match=said):
        Scheme(estimator=name)


# --------------------------------------------------------------------------------------------------- in a file

UNKNOWN = "estimator_of_nobody:Estimator"


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """Make a module in the current folder that must not be imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "estimator_of_nobody.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    yield
    assert "estimator_of_nobody" not in sys.modules


def renamed(body: str) -> str:
    assert json.dumps(NAME) in body
    return body.replace(json.dumps(NAME), json.dumps(UNKNOWN))


@pytest.mark.usefixtures("trap")
def test_a_model_that_names_an_estimator_nobody_asked_for_is_refused():
    model = oa.protect(holding(w=WEIGHT), SCHEMES["redundancy"]).model
    model.metadata_props[SCHEMES_KEY] = renamed(model.metadata_props[SCHEMES_KEY])
    with pytest.raises(ModelError, match="estimator 'estimator_of_nobody:Estimator' is not loaded"):
        opened(model)


@pytest.mark.usefixtures("trap")
def test_a_plan_or_a_scheme_that_names_one_is_refused(tmp_path):
    scheme, plan = SCHEMES["redundancy"], Plan(default=SCHEMES["redundancy"])
    with pytest.raises(OptionError, match="is not loaded: import it"):
        Scheme.from_dict(json.loads(renamed(json.dumps(scheme.to_dict()))))
    (tmp_path / "plan.json").write_text(renamed(plan.to_json()), encoding="utf-8")
    with pytest.raises(OptionError, match="is not loaded: import it"):
        Plan.read(tmp_path / "plan.json")


def test_a_file_may_name_an_estimator_that_was_asked_for():
    scheme = SCHEMES["redundancy"]
    assert Scheme.from_dict(scheme.to_dict()) == scheme
    assert isinstance(estimator(NAME), Shrink)
    assert NAME in estimators._KNOWN
    assert ProtectPass(plan=scheme).plan.default == scheme


def test_estimators_are_made_once():
    assert estimator(NAME) is estimator(NAME)


def test_the_class_of_an_estimator_goes_with_a_scheme_to_a_process_that_does_not_know_it(tmp_path, monkeypatch):
    (tmp_path / "own_estimator.py").write_text(
        "import onnx_analog as oa\n\nclass Own(oa.Estimator):\n"
        "    def fitted(self, level, class_index, *, cells, channel): return None\n"
        "    def table_bits(self, level, class_index, *, cells): return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    scheme = Scheme(estimator="own_estimator:Own", cells=(2,))
    (tmp_path / "scheme").write_bytes(named.dumps(scheme))
    code = (
        "import pathlib, sys; from onnx_analog import named; from onnx_analog.coding import estimators; "
        "scheme = named.loads(pathlib.Path(sys.argv[1]).read_bytes()); estimators.check_known(scheme.estimator); "
        "print(estimators.estimator(scheme.estimator).table_bits(None, None, cells=()), scheme.cells)"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "scheme")],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "3 (2,)"
    sys.modules.pop("own_estimator", None)
