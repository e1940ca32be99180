import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import onnx_analog as oa
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.coding.scheme import PRESETS
from onnx_analog.graph import files
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import ProtectPass
from onnx_analog.run import metrics
from onnx_analog.run.data import Dataset
from onnx_analog.run.evaluation import Evaluation
from onnx_analog.run.session import Network
from onnx_analog.run.trials import Trial
from onnx_analog.study import worker
from onnx_analog.study.grid import Grid, GridPoint
from onnx_analog.study.worker import Outcome, Packed, Task, Work, Worker
from tests.models import QUIET, cases, feeds, holding, made, model, of_strategy, run, same_bits, serialized, with_floats

DEFAULT, PAPER = PRESETS.values()
SEED = 3
# Half of the outputs are those of a tensor that lies beside the model, and half those of one that lies within it.
TEXT = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 16] b = 2 random, float[16] c = random> {
        h = Gemm(x, a, c)
        y = MatMul(h, b)
    }"""  # noqa: E501 - the parser of ONNX text takes a signature of one line
EXTERNAL = """
    net (float[n, 16] x) => (float[n, 128] y) <float[16, 128] w = random, float[128] b = random> { y = Gemm(x, w, b) }
"""  # on disk, b takes 512 bytes: enough for a file of its own, too few to travel beside the model


def images(count: int = 40) -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset({"x": rng.normal(size=(count, 16)).astype(np.float32)}, rng.integers(16, size=count))


def settings(**changes: Any) -> tuple[GridPoint, ...]:
    return tuple(Grid(**{"cells": (1, 4), "presets": (DEFAULT,), "channels": (QUIET,), **changes}).points())


def task_of(place: int, trials: tuple[int, ...], points: tuple[GridPoint, ...] | None = None) -> Task:
    points = settings() if points is None else points
    return Task(place, trials, worker.pack(points[place]))


def some_work(digest: str = "one", plain: ir.Model | None = None, **changes: Any) -> Work:
    plain, data = plain or model(TEXT), images()
    fields = {
        "digest": digest, "models": (Packed.of(plain),), "data": (data,), "clean": (Network(plain).run(data),),
        "metric": metrics.top1, "seed": SEED, "batch": 64,
        "providers": ("CPUExecutionProvider",), "threads": 1,
    }  # fmt: skip
    return Work(**{**fields, **changes})


def alone(setting: GridPoint, trials: int, data: Dataset | None = None, plain: ir.Model | None = None) -> Evaluation:
    """Return what `oa.evaluate` finds of a point."""
    found = oa.protect(
        plain or model(TEXT),
        **of_strategy(
            setting.strategy,
            cells_small=setting.cells,
            cells_large=setting.cells_large,
            large_fraction=setting.preset.large_fraction,
        ),
        granularity=setting.preset.granularity,
        channel=setting.channel,
        selection=setting.selection,
    )
    return oa.evaluate(found.model, data or images(), trials=trials, seed=SEED, threads=1)


def rewritten(found: ir.Model) -> bytes:
    """Return the bytes of a model, all its floats written alike: ONNX text and arrays give them in two forms."""
    return serialized(with_floats(found, lambda _, array: array))


# ------------------------------------------------------------------------------------------ a model that can be sent


@pytest.mark.parametrize("name", cases())
def test_a_model_that_was_sent_is_the_same_model(name):
    plain = made(name)
    sent = Packed.of(plain).model()
    assert rewritten(sent) == rewritten(plain)
    for given_ in feeds(plain):
        assert same_bits(run(sent, given_), run(plain, given_))


@pytest.mark.parametrize("name", cases())
def test_packing_changes_no_model(name):
    plain = made(name)
    before = serialized(plain)
    Packed.of(plain)
    assert serialized(plain) == before


def test_what_was_sent_can_be_opened_again_and_again():
    packed = Packed.of(model(TEXT))
    oa.protect(packed.model(), channel=QUIET)
    assert rewritten(packed.model()) == rewritten(packed.model()) == rewritten(model(TEXT))


def test_large_tensors_travel_beside_the_graph_and_are_not_copied():
    packed = Packed.of(model(TEXT))
    assert [array.shape for array in packed.arrays] == [(16, 16), (16, 16)]
    assert len(packed.graph) < 1024 < packed.arrays[0].nbytes + len(packed.graph)
    opened = packed.model().graph.initializers
    for name, array in zip("ab", packed.arrays, strict=True):
        tensor = opened[name].const_value
        assert tensor is not None
        assert np.shares_memory(tensor.numpy(), array)


def test_tensors_of_bodies_travel_beside_the_graph_too():
    assert [array.shape for array in Packed.of(made("if")).arrays] == [(16, 16)] * 2


@pytest.mark.parametrize("name", ["float16", "bfloat16 behind a cast", "double"])
def test_tensors_keep_their_types(name):
    (tensor,) = [value.const_value for value in Packed.of(made(name)).model().graph.initializers.values()]
    (before,) = [value.const_value for value in made(name).graph.initializers.values()]
    assert tensor is not None
    assert before is not None
    assert tensor.dtype == before.dtype


def test_text_stays_in_the_model():
    plain = holding(w=np.ones((16, 16), np.float32))
    words = ir.tensor(["a long word " * 100] * 4, name="words")
    plain.graph.register_initializer(ir.Value(name="words", shape=words.shape, const_value=words))
    packed = Packed.of(plain)
    assert len(packed.arrays) == 1
    sent = packed.model().graph.initializers["words"].const_value
    assert sent is not None
    assert sent.numpy().tolist() == words.numpy().tolist()


def external(folder: Path) -> ir.Model:
    """Return a model all of whose tensors lie in a file beside it, from its path."""
    ir.save(model(EXTERNAL), folder / "model.onnx", external_data="model.data")
    found = files.load(folder / "model.onnx")
    assert {type(value.const_value) for value in found.graph.initializers.values()} == {ir.ExternalTensor}
    return found


def test_a_model_whose_tensors_lie_in_another_file_is_sent_with_them(tmp_path):
    packed = Packed.of(external(tmp_path))
    (tmp_path / "model.data").unlink()  # it is not where the worker is
    x = {"x": np.ones((2, 16), np.float32)}
    assert same_bits(run(packed.model(), x), run(model(EXTERNAL), x))


def test_a_model_has_one_digest_wherever_its_tensors_lie(tmp_path):
    plain = with_floats(model(EXTERNAL), lambda _, array: array)  # ONNX text writes numbers otherwise
    assert Packed.of(external(tmp_path)).digest() == Packed.of(plain).digest()


@pytest.mark.parametrize(
    "other",
    [
        lambda key, array: np.nextafter(array, np.float32(9)) if key == "a" else array,
        lambda key, array: np.nextafter(array, np.float32(9)) if key == "c" else array,
        lambda key, array: array[::-1] if key == "b" else array,
    ],
    ids=["a large tensor", "a small tensor", "another order"],
)
def test_models_that_differ_have_other_digests(other):
    one = with_floats(model(TEXT), lambda _, array: array)
    assert Packed.of(with_floats(one, other)).digest() != Packed.of(one).digest()


# ----------------------------------------------------------------------------------------------------- in a file


def test_what_was_written_is_read(tmp_path):
    before = some_work()
    worker.write(before, tmp_path / "work")
    after = worker.read(tmp_path / "work")
    for name in ("digest", "seed", "batch", "providers", "threads", "metric"):
        assert getattr(after, name) == getattr(before, name)
    assert same_bits(after.clean[0], before.clean[0])
    assert same_bits([after.data[0].inputs["x"], after.data[0].labels], [images().inputs["x"], images().labels])
    assert after.models[0].graph == before.models[0].graph
    assert same_bits(after.models[0].arrays, before.models[0].arrays)


def test_what_is_read_are_views_of_the_file_that_cannot_be_written(tmp_path):
    """So all processes of a machine share one copy."""
    worker.write(some_work(), tmp_path / "work")
    found = worker.read(tmp_path / "work")
    data, clean, large = found.data[0].inputs["x"], found.clean[0][0], found.models[0].arrays[0]
    for array in (data, clean, large):
        assert not array.flags.writeable
        assert not array.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    # A write to the file is seen through the array, if that is a view of it.
    place = (tmp_path / "work").read_bytes().index(data.tobytes())
    with (tmp_path / "work").open("r+b") as file:
        file.seek(place)
        file.write(np.float32(42).tobytes())
    assert data[0, 0] == 42


arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)


@given(st.lists(arrays, max_size=4), st.lists(st.text(max_size=5), max_size=3))
def test_any_arrays_are_read_as_they_were_written(tmp_path_factory, given_, names):
    path = tmp_path_factory.getbasetemp() / "work"
    before = some_work_of(given_, names)
    worker.write(before, path)
    after = worker.read(path)
    assert same_bits(after.clean[0], given_)
    assert after.providers == tuple(names)
    assert all(array.__array_interface__["data"][0] % array.itemsize == 0 for array in after.clean[0])


def some_work_of(held: list[Any], names: list[str]) -> Work:
    return Work(
        digest="", models=(), data=(), clean=(held,), metric=metrics.top1, seed=0, batch=1,
        providers=tuple(names), threads=1,
    )  # fmt: skip


def test_a_metric_of_one_s_own_is_sent_by_value(tmp_path):
    factor = 3.0
    worker.write(some_work(metric=lambda outputs, *, labels, clean: factor), tmp_path / "work")
    assert worker.read(tmp_path / "work").metric([], labels=None, clean=[]) == 3.0


def test_a_worker_does_the_same_from_a_file(tmp_path):
    worker.write(some_work(), tmp_path / "work")
    task = task_of(1, (0, 4))
    assert Worker(worker.read(tmp_path / "work")).do(task).results == Worker(some_work()).do(task).results


# ---------------------------------------------------------------------------------------------------- in a worker


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"strategies": ("raw", "redundancy"), "large_factor": 5},
        {"strategies": ("mapping",), "presets": (PAPER,)},
        {"strategies": ("sign",), "selection": Selection(exclude=("b",))},
        {"strategies": ("sign",), "channels": (LimitedPrecision(inner=QUIET, read_bits=6),)},
    ],
)
def test_what_a_worker_does_is_a_plain_protect_and_evaluate(changes):
    points = settings(**changes)
    worker = Worker(some_work())
    for place, setting in enumerate(points):
        expected = alone(setting, 4)
        outcome = worker.do(task_of(place, (0, 1, 2, 3), points))
        assert (outcome.number, outcome.trials) == (place, (0, 1, 2, 3))
        assert tuple(trial.value for trial in outcome.results) == expected.values
        # noise is above 1e-3 of the outputs, and what two ways to compute them without it differ by below 1e-5 of them
        found = [trial.sqnr_db for trial in outcome.results]
        np.testing.assert_allclose(found, expected.sqnr_db, atol=20 * np.log10(1.01))


def test_points_that_alternate_are_made_ready_once(monkeypatch):
    ready, trials = [], worker.Experiment.trials
    monkeypatch.setattr(
        worker.Experiment, "trials", lambda self, *of, **choices: ready.append(of) or trials(self, *of, **choices)
    )
    one = Worker(some_work())
    for trial in range(3):
        for place in (0, 1):
            one.do(task_of(place, (trial,)))
    assert len(ready) == 2


def test_a_trial_does_not_depend_on_what_was_done_before():
    order = [(0, 3), (2, 0), (1, 1), (0, 0), (3, 2), (2, 1), (0, 1)]  # more points than a worker keeps
    worker = Worker(some_work())
    for place, trial in order:
        assert worker.do(task_of(place, (trial,))).results == Worker(some_work()).do(task_of(place, (trial,))).results
    assert worker.do(task_of(0, (3, 0, 1))).results == Worker(some_work()).do(task_of(0, (3, 0, 1))).results


def test_the_cost_of_a_point_is_that_of_its_manifest():
    for place, setting in enumerate(settings()):
        found = oa.protect(
            model(TEXT), strategy=setting.strategy, cells_small=setting.cells, cells_large=setting.cells_large,
            channel=QUIET,
        )  # fmt: skip
        assert Worker(some_work()).do(task_of(place, (0,))).totals == found.manifest.totals


def test_each_model_has_its_own_data_and_outputs():
    other, data = model(TEXT, seed=1), images(10)
    both = some_work(
        models=(Packed.of(model(TEXT)), Packed.of(other)),
        data=(images(), data),
        clean=(Network(model(TEXT)).run(images()), Network(other).run(data)),
    )
    points = tuple(replace(settings()[0], model=place) for place in (0, 1, 0))
    worker = Worker(both)
    found = [worker.do(task_of(place, (0, 1), points)).results for place in (0, 1, 2)]
    assert tuple(trial.value for trial in found[1]) == alone(settings()[0], 2, data, other).values
    assert found[0] == found[2] != found[1]


def test_an_outcome_says_who_computed_it():
    outcome = Worker(some_work()).do(task_of(0, (0, 1)))
    assert outcome.versions == worker.versions()
    assert set(outcome.versions) == {"python", "onnx-analog", "onnxruntime", "numpy", "onnx-ir"}
    assert outcome.versions["numpy"] == np.__version__


def test_an_outcome_says_how_long_a_trial_took(monkeypatch):
    times = iter([10.0, 14.0])
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(times))
    assert Worker(some_work()).do(task_of(0, (0, 1, 5, 7, 8))).seconds == 0.8


def test_the_metric_and_the_batch_of_the_work_are_used(monkeypatch):
    sizes = []

    def counted(self, size, *, fixed, batches=Dataset.batches):
        sizes.append(size)
        return batches(self, size, fixed=fixed)

    wanted = some_work(metric=lambda outputs, *, labels, clean: len(outputs[0]) + len(labels), batch=7)
    monkeypatch.setattr(Dataset, "batches", counted)
    outcome = Worker(wanted).do(task_of(0, (0,)))
    assert [trial.value for trial in outcome.results] == [80.0]
    assert sizes == [7, 7]  # without noise, and in the trial


def test_a_worker_opens_a_model_once(monkeypatch):
    opened = []
    monkeypatch.setattr(Packed, "model", lambda self, held=Packed.model: opened.append(self) or held(self))
    worker = Worker(some_work())
    for place in (0, 1, 2, 0):
        worker.do(task_of(place, (0,)))
    assert len(opened) == 1


def test_points_that_differ_in_cells_only_share_their_planes(monkeypatch):
    written = []

    def counted(self, plain, stored=ProtectPass.stored):
        written.append(self.plan)
        return stored(self, plain)

    monkeypatch.setattr(ProtectPass, "stored", counted)
    points = settings(strategies=("mapping", "redundancy", "sign"), cells=(1, 4))
    worker = Worker(some_work())
    for place in (0, 0, 1, 2, 3, 1, 4, 5, 4):
        worker.do(task_of(place, (0,), points))
    assert len(written) == 2  # two classes, and one


# ------------------------------------------------------------------------------------------ one state for each thread


def fetcher(log: list[str], digest: str) -> Any:
    """Return a function that fetches a work, and says so."""

    def fetch() -> Work:
        log.append(digest)
        return some_work(digest)

    return fetch


def in_new_thread(function: Any, *arguments: Any) -> Any:
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(function, *arguments).result()


def test_a_thread_fetches_a_work_once():
    log = []

    def several() -> list[Outcome]:
        tasks = [task_of(0, (0,)), task_of(1, (0,)), task_of(0, (1,))]
        return [worker.do(fetcher(log, "one"), "one", task) for task in tasks]

    found = in_new_thread(several)
    assert log == ["one"]
    again = [Worker(some_work()).do(task_of(one.number, one.trials)).results for one in found]
    assert [one.results for one in found] == again


def test_a_thread_that_is_given_another_work_fetches_it_and_lets_the_first_go():
    log = []

    def several() -> None:
        for name in ("one", "two", "two", "one"):
            worker.do(fetcher(log, name), name, task_of(0, (0,)))

    in_new_thread(several)
    assert log == ["one", "two", "one"]


def test_threads_share_no_state():
    """They would write into each other's buffers. Each waits for the other, so that both are alive at once."""
    log = []
    meet = threading.Barrier(2, timeout=120)

    def several(trials: range) -> list[Trial]:
        meet.wait()
        found = [worker.do(fetcher(log, "one"), "one", task_of(2, (trial,))).results[0] for trial in trials]
        meet.wait()
        return found

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(several, [range(0, 40, 2), range(1, 40, 2)])
    assert log == ["one", "one"]
    expected = Worker(some_work()).do(task_of(2, tuple(range(40)))).results
    assert (first, second) == (list(expected[::2]), list(expected[1::2]))


def test_rewritten_tells_models_apart():
    changed = with_floats(made("gemm"), lambda key, array: -array if key == "b" else array)
    assert rewritten(changed) != rewritten(made("gemm"))
    assert rewritten(made("gemm")) != rewritten(made("gemm, transposed"))


def test_a_fetch_that_fails_leaves_nothing_behind():
    log = []

    def several() -> Outcome:
        with pytest.raises(ConnectionError):
            worker.do(lost, "one", task_of(0, (0,)))
        outcome: Outcome = worker.do(fetcher(log, "one"), "one", task_of(0, (0,)))
        return outcome

    def lost() -> Work:
        raise ConnectionError

    assert in_new_thread(several).trials == (0,)
    assert log == ["one"]


def test_a_protected_model_is_sent_too():
    found = oa.protect(model(TEXT), channel=QUIET).model
    sent = Packed.of(found).model()
    assert same_bits(run(sent, images().inputs), run(found, images().inputs))
    onnx.checker.check_model(ir.to_proto(sent))
