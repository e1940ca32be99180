import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from benchmarks import codes, correction, networks, scaling, timing, trials
from benchmarks import run as benchmarks
from benchmarks.networks import LAYERS, SIDE, chain, write_chain
from onnx_analog.graph import files
from onnx_analog.run.data import Dataset
from tests.models import model, run
from tests.packages import needs


def test_a_ratio_is_the_median_of_pairs(monkeypatch):
    # pairs of 4 and 1, 2 and 2, 9 and 3 seconds: ratios 4, 1 and 3
    times = iter([4, 1, 2, 2, 9, 3])
    monkeypatch.setattr(timing, "seconds", lambda action: next(times))
    found = timing.ratio(lambda: None, lambda: None, pairs=3)
    assert found == {"ratio": 3, "ms": 4000, "bound_ms": 2000}


@pytest.mark.parametrize("pairs", [1, 4])
def test_the_two_are_measured_in_turn_after_a_warm_up(pairs):
    called = []
    found = timing.ratio(lambda: called.append("ours"), lambda: called.append("theirs"), pairs=pairs)
    assert called == ["ours", "theirs"] * (pairs + 1)
    assert min(found.values()) > 0


def test_seconds_are_those_of_the_clock(monkeypatch):
    ticks = itertools.count(start=5, step=3)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    called = []
    assert timing.seconds(lambda: called.append(1)) == 3
    assert called == [1]


def test_memory_is_what_the_code_takes():
    few, many = (timing.memory(f"import time; held = bytearray({mib} * 2**20); time.sleep(0.1)") for mib in (1, 201))
    assert many["anonymous_mib"] - few["anonymous_mib"] == pytest.approx(200, abs=4)  # pages of Python's own vary
    assert many["resident_mib"] >= many["anonymous_mib"]


def test_the_chain_is_a_product_of_matrices():
    made = chain(64, 3)
    weights = [value.const_value.numpy() for value in made.graph.initializers.values()]
    assert [weight.shape for weight in weights] == [(64, 64)] * 3
    x = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    (found,) = run(made, {"x": x})
    exact = np.linalg.multi_dot([array.astype(np.float64) for array in (x, *weights)])
    # each of three sums of 64 products rounds 64 times at most, and so is off by 64·2^-24 of Σ|x|·|w|
    sums = np.linalg.multi_dot([np.abs(array).astype(np.float64) for array in (x, *weights)])
    assert (np.abs(found - exact) <= 3 * 65 * 2.0**-24 * sums).all()


def test_the_chain_is_as_large_as_resnet_18():
    assert round(SIDE**2 * LAYERS, -5) == 11_500_000


def test_signals_keep_their_size_on_the_way():
    made = chain(256)
    x = np.random.default_rng(1).normal(size=(64, 256)).astype(np.float32)
    (found,) = run(made, {"x": x})
    # In each of 11 layers a row of 256 keeps its mean square but for √(2/256) of it: e^(±4·√(11·2/256)) in the end
    assert abs(np.log(np.square(found).sum() / np.square(x).sum())) < 4 * np.sqrt(LAYERS * 2 / 256)


def test_a_chain_in_a_file_is_a_chain(tmp_path):
    write_chain(tmp_path / "chain.onnx", 64, 3)
    found = files.load(tmp_path / "chain.onnx")
    one, *others = (value.const_value.numpy() for value in found.graph.initializers.values())
    assert [np.array_equal(other, np.roll(one, place)) for place, other in enumerate(others, 1)] == [True, True]
    x = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    (mine,) = run(onnx.load(tmp_path / "chain.onnx"), {"x": x})
    np.testing.assert_allclose(mine, x @ one @ others[0] @ others[1], rtol=1e-4, atol=1e-4)


def test_the_slope_is_the_exponent():
    rows = [{"weights": n, "trial_s": 3e-9 * n**1.5 if n >= 1e5 else 1.0} for n in (1e3, 1e4, 1e5, 1e6, 1e7)]
    assert scaling.slope(rows, "trial_s") == pytest.approx(1.5)


def test_cost_is_measured_for_as_many_weights_as_asked():
    found = scaling.weights(10_000)
    assert found["weights"] == 10_000
    assert min(found.values()) > 0


@pytest.fixture
def one_row(monkeypatch):
    numbers = {"ratio": 0.5, "ms": 1.0, "bound_ms": 2.0}
    made = [benchmarks.Row("quick / bound", "≤ 1", False, lambda _: numbers)]
    made += [benchmarks.Row("slow / bound", "", True, lambda _: numbers)]
    made += [benchmarks.Row("peer / bound", "", False, lambda _: None)]
    monkeypatch.setattr(benchmarks, "rows", lambda: iter(made))
    monkeypatch.setattr(benchmarks, "SIZES", (400, 1000, 10_000, 20_000))


@pytest.mark.usefixtures("one_row")
@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("", ["quick / bound", "peer / bound"]),
        ("--all", ["quick / bound", "slow / bound", "peer / bound"]),
        ("--only quick", ["quick / bound"]),
    ],
)
def test_what_is_asked_for_is_measured(line, names, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run.py", *line.split()])
    benchmarks.main()
    told = capsys.readouterr()
    assert list(json.loads(told.out)["rows"]) == names
    assert "0.500  quick / bound: 1.0 ms / 2.0 ms, goal ≤ 1" in told.err


@needs("matplotlib")
@pytest.mark.usefixtures("one_row")
def test_the_table_and_the_plot_go_to_files(monkeypatch, tmp_path):
    monkeypatch.setattr(scaling, "thousandth", lambda folder: {"seconds": 1.0})
    monkeypatch.setattr(scaling, "protect_profile", lambda folder: {"total": 1.0})
    monkeypatch.setattr("sys.argv", ["run.py", "--all", "--out", str(tmp_path / "out")])
    benchmarks.main()
    table = Path(tmp_path / "out/benchmark.md").read_text(encoding="utf-8")
    assert f"| quick / bound | 0.5 | ≤ 1 | 1.0 / 2.0 ms | {benchmarks.commit()} | " in table
    assert "| peer / bound | not installed here | | | | |" in table.replace("  ", " ")
    body = json.loads(Path(tmp_path / "out/benchmark.json").read_text(encoding="utf-8"))
    assert [row["weights"] for row in body["growth"]["sizes"]] == [400, 1024, 10_000, 19_881]  # squares
    assert Path(tmp_path / "out/growth.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("one_row")
def test_what_is_measured_again_takes_its_place_among_the_rest(monkeypatch, tmp_path):
    before = {"rows": {"peer / bound": None, "slow / bound": {"ratio": 9.0, "ms": 9.0, "bound_ms": 1.0}}, "growth": 7}
    (tmp_path / "benchmark.json").write_text(json.dumps(before), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["run.py", "--only", "quick", "--out", str(tmp_path)])
    benchmarks.main()
    body = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    assert list(body["rows"]) == ["quick / bound", "slow / bound", "peer / bound"]
    assert (body["rows"]["slow / bound"]["ratio"], body["growth"]) == (9.0, 7)
    assert body["rows"]["quick / bound"]["load"] >= 0
    table = (tmp_path / "benchmark.md").read_text(encoding="utf-8")
    assert "| slow / bound | 9 | | 9.0 / 1.0 ms | not recorded | not recorded |" in table.replace("  ", " ")


@pytest.mark.parametrize(
    ("ratio", "goal", "missed"),
    [
        (3.0, "≤ 3", False),
        (3.001, "≤ 3", True),
        (1.8, "≥ 1.8", False),
        (1.79, "≥ 1.8", True),
        (1.0504, "≤ 1.05", False),
        (9.0, "", False),
    ],
)
def test_the_table_says_which_goals_are_missed(ratio, goal, missed, monkeypatch):
    monkeypatch.setattr(benchmarks, "rows", lambda: iter([benchmarks.Row("a / b", goal, False, lambda _: None)]))
    table = benchmarks.markdown({"a / b": {"ratio": ratio, "ms": ratio, "bound_ms": 1.0}})
    assert f"| a / b | {ratio:.4g} | {goal}{', missed' * missed} |" in table


def test_what_is_done_once_and_what_a_point_takes_are_measured():
    for numbers in (
        trials.set_up_against_reading(chain(64, 2), 64),
        trials.next_point_against_trial(),
    ):
        assert min(numbers.values()) > 0


def test_a_profile_adds_up(tmp_path):
    found = scaling.protect_profile(tmp_path)
    assert sum(found.values()) == pytest.approx(2 * found["total"])
    assert min(found.values()) > 0


def test_each_line_has_a_name_of_its_own():
    names = [row.name for row in benchmarks.rows()]
    assert len(set(names)) == len(names) > 15


@needs("torch")
@pytest.mark.parametrize("name", ["resnet18", "resnet20"])
def test_the_residual_networks_are_the_paper_s(name, tmp_path):
    found = networks.resnet(name, tmp_path)
    assert isinstance(found, ir.Model)
    weights = sum(value.const_value.size for value in found.graph.initializers.values() if value.const_value)
    assert weights >= {"resnet18": 11_173_962, "resnet20": 272_474}[name]


def test_members_are_encoded_and_read_against_the_paper_s_and_clean_inference(tmp_path):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(4, 3, 3, 3)).astype(np.float32), rng.normal(size=(5, 7)).astype(np.float32)]
    for scheme in codes.MEMBERS.values():
        row = codes.encoding(scheme, weights, pairs=1)
        assert row is not None
        assert min(row.values()) > 0
    net = """
        net (float[n, 3, 8, 8] x) => (float[n, 10] y) <float[10, 192] w = random, float[10] b = random> {
            f = Flatten(x)
            y = Gemm <transB: int = 1> (f, w, b)
        }"""
    for row in (
        codes.trial(codes.READ["refined 1"], 10, model(net), pairs=1),
        codes.protecting(codes.MEMBERS["refined 1"], model(net), pairs=1),
        codes.from_file_to_file(codes.MEMBERS["refined 1"], model(net), tmp_path, pairs=1),
    ):
        assert row is not None
        assert min(row.values()) > 0


def test_what_is_encoded_has_its_streams():
    weight = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)
    assert codes.encode_all([weight], codes.MEMBERS["raw"]) == 0
    assert codes.encode_all([weight, weight], codes.MEMBERS["mapping"]) == 2 * weight.size
    # half a standard deviation takes log2(√(2πe)/½) = 3.05 bits of each weight, and its table some
    coded = codes.encode_all([weight], codes.MEMBERS["entropy-coded 0.5, static"])
    assert 3.0 < coded / weight.size < 3.2


def test_without_the_trained_model_nothing_is_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("ONNX_ANALOG_DATA", str(tmp_path / "data"))
    codes._network.cache_clear()
    try:
        assert codes.encoding(codes.PAPER) is None
        assert codes.protecting(codes.PAPER) is None
        assert codes.trial(codes.PAPER, 500) is None
    finally:
        codes._network.cache_clear()


def test_a_trained_model_is_beside_the_data_sets(monkeypatch, tmp_path):
    monkeypatch.setenv("ONNX_ANALOG_DATA", str(tmp_path / "data"))
    (tmp_path / "models").mkdir()
    files.write_model(chain(8, 1), tmp_path / "models" / "net.onnx")
    found = networks.trained("net.onnx")
    assert found is not None
    assert found.graph.name == "chain"


def test_what_a_correction_takes_is_measured():
    net = """
        net (float[n, 3, 8, 8] x) => (float[n, 16, 6, 6] y) <float[16, 3, 3, 3] w = random> { y = Conv(x, w) }"""
    samples = Dataset({"x": np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(np.float32)}, None)
    found = correction.ratios(model(net), samples, pairs=1)
    assert list(found) == ["inference with corrected layers", "measurement"]
    assert min(found.values()) > 0


def test_a_sweep_in_processes_of_its_own_is_measured(tmp_path):
    """The script runs as it stands in a file: few weights, and few trials."""
    row = scaling.thousandth(tmp_path, side=20, layers=2, trials=20, workers=1)
    assert (row["weights"], row["trials"], row["workers"]) == (800, 20, 1)
    assert row["seconds"] > 0
