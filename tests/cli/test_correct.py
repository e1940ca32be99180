import json

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.cli import main
from onnx_analog.graph.correction import GAIN
from tests.cli.test_app import assert_refused, body, cli, done, shelf  # noqa: F401 - fixtures
from tests.models import run


@pytest.fixture
def samples(tmp_path):
    """Return the path of samples that the evaluation does not have, with labels that are wrong."""
    path = tmp_path / "calib.npz"
    np.savez(path, x=np.random.default_rng(7).normal(size=(60, 16)).astype(np.float32), y=np.full(60, 31))
    return path


EVALUATE = "evaluate model.protected.onnx --data test.npz --trials 2"


def test_evaluate_shows_the_same_reads_with_and_without(cli, samples):  # noqa: F811
    plain = body(cli(f"{EVALUATE} --json"))
    found = body(cli(f"{EVALUATE} --correct {samples} --json"))
    assert found["uncorrected"] == {name: plain[name] for name in found["uncorrected"]}
    assert found["values"] != plain["values"]
    cost = {name: found["correction"][name] for name in ("by", "layers", "numbers", "bits")}
    assert cost == {"by": "60 samples", "layers": 2, "numbers": 2 * 32 + 32, "bits": 16 * 96}
    assert found["correction"]["change"] == pytest.approx(np.mean(found["values"]) - plain["mean"])
    shown = done(cli(f"{EVALUATE} --correct {samples}"))
    for text in ("with noise and correction, mean of 2 trials", "without correction", "change by the correction"):
        assert text in shown


def test_the_command_is_the_function(cli, samples, tmp_path):  # noqa: F811
    found = body(cli(f"{EVALUATE} --correct {samples} --correct-samples 40 --json"))
    stored = tmp_path / "model.protected.onnx"
    alone = oa.evaluate(stored, tmp_path / "test.npz", trials=2, correct=samples, correct_samples=40)
    assert found["values"] == list(alone.values)
    assert found["correction"]["by"] == "40 samples"


def test_evaluate_warns_of_samples_that_are_also_evaluated(cli):  # noqa: F811
    (text,) = json.loads(cli(f"{EVALUATE} --correct test.npz --json").stdout)["warnings"]
    assert text.startswith("200 of 200 samples that correct the model are also samples that the model is evaluated on")


@pytest.mark.parametrize("more", ["", " --decoded"])
def test_readback_writes_the_corrected_model(cli, samples, tmp_path, more):  # noqa: F811
    kind = "plain weights" if more else "protected model"
    said = done(cli(f"readback model.protected.onnx --seed 3 --correct {samples} -o read.onnx{more}"))
    how = "corrected: gain and shift of 2 layers, by 60 samples; 96 numbers kept"
    assert said == f"{kind} as read from noisy cells: seed 3, trial 0; {how}: read.onnx\n"
    shown = " ".join(done(cli("evaluate read.onnx --data test.npz --reference model.onnx")).split()) if more else ""
    assert ("corrected: gain and shift of 2 layers" in shown) is ("decrease from the original" in shown) is bool(more)
    x = np.load(tmp_path / "calib.npz")["x"]
    clean, read = (run(oa.account.__globals__["load_model"](tmp_path / name), {"x": x})[0]
                   for name in ("model.protected.onnx", "read.onnx"))  # fmt: skip
    # Means and deviations of the last layer are those without noise; gain and shift are float16 numbers.
    np.testing.assert_allclose(read.std(axis=0), clean.std(axis=0), rtol=2.0**-10)
    np.testing.assert_allclose(read.mean(axis=0), clean.mean(axis=0), atol=2.0**-9 * np.abs(clean).max())


def test_readback_of_the_law_and_of_many_trials(cli, samples, tmp_path):  # noqa: F811
    line = f"readback model.protected.onnx --trials 2 --correct {samples} -o many"
    how = "corrected: gain and shift of 2 layers, by 60 samples; 96 numbers kept"
    assert done(cli(line)) == f"2 models, seed 0; {how}: many\n"
    cost = {"by": "60 samples", "layers": 2, "numbers": 96, "bits": 16 * 96}
    assert body(cli(f"{line} --force --json"))["correction"] == cost
    done(cli("readback model.protected.onnx --correct gain -o law.onnx"))
    assert len(list((tmp_path / "many").glob("*.onnx"))) == 2
    assert (tmp_path / "law.onnx").exists()


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (f"{EVALUATE} --correct none.npz", 2, "invalid value for '--correct': file 'none.npz' does not exist"),
        (f"{EVALUATE} --correct ./none", 2, "invalid value for '--correct': file './none' does not exist"),
        (f"{EVALUATE} --correct gian", 2, "'gian' is neither a file nor the word gain"),
        (f"{EVALUATE} --correct wide.npz", 1, "input 'x' takes shape"),
        (f"{EVALUATE} --correct text.onnx", 1, "text.onnx"),
        (f"{EVALUATE} --correct-samples 9", 2, "--correct-samples is 9, and no samples are given: leave it out"),
        (f"{EVALUATE} --correct gain --correct-samples 9", 2, "'gain', which takes none: leave it out"),
        ("evaluate model.onnx --data test.npz --correct unlabelled.npz", 2, "the model is not protected"),
        ("readback model.protected.onnx --mean 0.5", 2, "--mean is given, and --correct is not, so no images are read"),
        ("readback model.protected.onnx --correct none.npz", 2, "file 'none.npz' does not exist"),
        ("sweep model.onnx --data test.npz --correct none.npz --out r", 2, "file 'none.npz' does not exist"),
        ("readback model.protected.onnx --correct unlabelled.npz -o unlabelled.npz", 1, "unlabelled.npz"),
    ],
)
def test_what_cannot_correct_is_one_line(cli, line, code, said):  # noqa: F811
    assert_refused(cli(line), code, said)


def test_the_word_of_the_option_is_that_of_the_library():
    (option,) = [param for param in main.commands["evaluate"].params if param.name == "correct"]
    assert option.type.convert(GAIN, option, None) == GAIN


@pytest.mark.parametrize("how", ["--decoded", "--decoded --correct calib.npz"])
def test_a_model_that_was_read_back_is_not_its_own_original(cli, samples, tmp_path, how):  # noqa: F811
    """`check` refuses it by the same mark; that it lost much may be due to noise."""
    done(cli("protect model.onnx --channel gaussian:sigma=0.4 -o a.onnx"))
    done(cli(f"readback a.onnx {how} -o b.onnx"))
    shown = done(cli("evaluate b.onnx --data test.npz --trials 0"))
    alone = oa.evaluate(tmp_path / "b.onnx", tmp_path / "test.npz", trials=0)
    assert (alone.original, alone.read_back) == (None, oa.inspect(tmp_path / "b.onnx").read_back)
    assert alone.read_back.startswith("seed 0, trial 0, channel gaussian")
    against = oa.evaluate(tmp_path / "b.onnx", tmp_path / "test.npz", trials=0, reference=tmp_path / "model.onnx")
    plain = oa.evaluate(tmp_path / "model.onnx", tmp_path / "test.npz", trials=0)
    assert (plain.read_back, against.original, against.stored) == (None, plain.original, alone.stored)
    assert not [text for text in against.warnings if "not due to noise" in text]
    assert f"model as read ({alone.read_back})" in " ".join(shown.split())
    assert "original model" not in shown
