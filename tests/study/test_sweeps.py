import csv
import json
import math
import re
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import onnx_analog as oa
from onnx_analog.channels import GaussianNoise
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import PRESETS, STRATEGIES, Preset, Scheme
from onnx_analog.errors import DataError, EngineError, ModelError, NothingToStore, OptionError, OutputError
from onnx_analog.graph.stored import stored_tensors
from onnx_analog.graph.weights import Selection
from onnx_analog.run import metrics
from onnx_analog.run.data import Dataset
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.session import Network
from onnx_analog.run.statistics import interval
from onnx_analog.study.arguments import GridArguments
from onnx_analog.study.engines import Engine
from onnx_analog.study.engines.local import LocalEngine, SerialEngine
from onnx_analog.study.grid import Grid, GridPoint
from onnx_analog.study.run_folder import CHECKSUM, CONSTANTS, LOCK, PARQUET, POINTS, TRIALS, Checksum, Folder
from onnx_analog.study.stopping import Stopping
from onnx_analog.study.sweeps import Case, Point, Study, paired, prepare, sweep
from onnx_analog.study.worker import Outcome, Task, Work, Worker
from tests.models import QUIET, U, model, of_strategy, serialized

# A tensor of each scale, so that granularities differ.
TEXT = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 16] b = 2 random> {
        h = MatMul(x, a)
        y = MatMul(h, b)
    }"""
DEFAULT, PAPER = PRESETS.values()
GRID = Grid(cells=(1, 4), presets=(DEFAULT, PAPER), channels=(QUIET,), seed=3)
TWO = Stopping(trials=2)
DECIBELS = ("sqnr_db", metrics.sqnr_db)


def images() -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset({"x": rng.normal(size=(100, 16)).astype(np.float32)}, rng.integers(16, size=100))


def swept(grid: Grid, stopping: Stopping = TWO, plain=None, **options) -> list[Point]:
    cases = [Case(name="net", model=model(TEXT) if plain is None else plain, data=images())]
    return list(sweep(prepare(cases, grid, stopping), **options))


def test_every_point_of_the_grid_is_evaluated_in_order():
    points = swept(GRID)
    assert [point.setting for point in points] == list(GRID.points())
    found = [(point.setting.preset, point.strategy, point.cells) for point in points]
    assert found == list(product((DEFAULT, PAPER), STRATEGIES, (1, 4)))
    assert len(found) == len(GRID) == 16


def test_by_default_a_grid_has_all_strategies():
    found = Grid(presets=(DEFAULT,), channels=(QUIET,))
    assert found.strategies == tuple(STRATEGIES)
    assert len(found) == len(list(found.points())) == 4 * len(GridArguments().cells)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("preset", [DEFAULT, PAPER, Preset(granularity="model", large_fraction=0.3)])
def test_a_point_is_a_plain_protect_and_evaluate(preset, strategy):
    grid = replace(GRID, strategies=(strategy,), presets=(preset,), cells=(3,), large_factor=5)
    (point,) = swept(grid)
    found = oa.protect(
        model(TEXT),
        **of_strategy(strategy, cells_small=3, cells_large=15, large_fraction=preset.large_fraction),
        granularity=preset.granularity,
        channel=QUIET,
    )
    alone = oa.evaluate(found.model, images(), trials=2, seed=3)
    assert point.evaluation.values == alone.values
    # noise is above 1e-3 of the outputs, and what two ways to compute them without it differ by below 1e-5 of them
    np.testing.assert_allclose(point.evaluation.sqnr_db, alone.sqnr_db, atol=20 * np.log10(1.01))
    assert point.totals == found.manifest.totals


@pytest.mark.parametrize(("factor", "large"), [(1, 4), (20, 80)])
def test_what_a_point_costs_by_hand(factor, large):
    # 512 weights, of each tensor's 256 13 are large; headers of 0, 1, 2 and 2 bits; 64 bits of codebook a class
    grid = replace(GRID, presets=(DEFAULT,), cells=(4,), large_factor=factor)
    analog = {"raw": 512 * 4, "sign": 512 * 4, "mapping": 512 * 4, "redundancy": 2 * (243 * 4 + 13 * large)}
    header = {"raw": 0, "sign": 256, "mapping": 512, "redundancy": 512}
    codebook = {"raw": 64, "sign": 64, "mapping": 128, "redundancy": 128}
    for point in swept(grid):
        name = point.strategy
        rows = point.row()
        assert rows["r_avg"] == analog[name] / 512
        assert rows["stored_cells_per_stored_weight"] == (analog[name] + header[name]) / 512
        assert rows["all_in_cells_per_original_weight"] == (analog[name] + header[name] + codebook[name]) / 512


FAMILY = {
    "int8": Scheme.int8(channel=QUIET),
    "granularity channel": Scheme(channel=QUIET, granularity="channel"),
    "granularity model": Scheme(channel=QUIET, granularity="model"),
    "four classes, one of them without cells": Scheme(
        channel=QUIET, classes=4, partition="lloyd", cells=(0, 1, 2, 3), granularity="channel"
    ),
    "side channel": Scheme(channel=QUIET, side_channel=GaussianNoise(sigma=0.5), cells=(1, 5)),
    "int4 with a side channel": Scheme.int4(channel=QUIET, side_channel=GaussianNoise(sigma=0.5)),
    "a plan": Plan(default=Scheme.int8(channel=QUIET), tensors={"a": Scheme(channel=QUIET, cells=(2, 3))}),
    "a tensor that stays digital": Plan(default=None, tensors={"b": Scheme(channel=QUIET)}),
}


@pytest.mark.parametrize("metric", [None, DECIBELS], ids=["top1", "sqnr_db"])
@pytest.mark.parametrize("name", FAMILY)
def test_a_score_an_evaluation_and_a_point_are_one_to_the_bit(name, metric):
    plain, data, scheme = model(TEXT), images(), FAMILY[name]
    experiment = Experiment(plain, data, metric)
    score = experiment.score(scheme, seed=3, trials=3)
    protected = oa.protect(plain, scheme)
    named = None if metric is None else metric[0]
    alone = oa.evaluate(protected, data, trials=3, seed=3, metric=named, reference=plain)
    assert score == alone
    assert oa.evaluate(protected, data, trials=3, seed=3, metric=named, clean=Network(plain).run(data)) == alone
    decoded = [oa.readback(protected, seed=3, trial=trial, decoded=True).model for trial in range(3)]
    outputs = [Network(each).run(data) for each in decoded]
    assert score.sqnr_db == tuple(metrics.output_sqnr_db(each, experiment.clean) for each in outputs)

    grid = replace(GRID, strategies=("sign",), presets=(DEFAULT,), cells=(1,), plans={"mine": scheme})
    case = Case(name="net", model=plain, data=data)
    *_, point = sweep(prepare([case], grid, Stopping(trials=3), metric=metric))
    assert point.evaluation == score
    assert point.totals == experiment.totals(scheme) == protected.manifest.totals


def test_a_point_of_two_channels_names_both_everywhere():
    loud = GaussianNoise(sigma=0.2)
    mixed = Plan(default=Scheme(channel=QUIET), tensors={"a": Scheme(channel=loud)})
    plain, both = model(TEXT), f"{QUIET} and {loud}"
    grid = replace(GRID, strategies=(), plans={"mixed": mixed})
    (point,) = sweep(prepare([Case(name="net", model=plain, data=images())], grid, Stopping(trials=1)))
    assert {both} == {
        point.to_dict()["channel"], point.row()["channel"], point.evaluation.channel, dict(point._lines())["channel"],
        Experiment(plain, images()).score(mixed, trials=1).channel,
        oa.evaluate(oa.protect(plain, mixed), images(), trials=1).channel,
    }  # fmt: skip
    assert str(point).startswith(f"net, {both}, granularity")


def test_an_experiment_scores_plans_in_any_order_as_a_new_one_does():
    """Plans share planes, buffers and a skeleton."""
    experiment = Experiment(model(TEXT), images(), DECIBELS)
    order = [*FAMILY.values(), *reversed(FAMILY.values()), Scheme(channel=QUIET, cells=(1, 5)), *FAMILY.values()]
    alone = {number: Experiment(model(TEXT), images(), DECIBELS).score(s, trials=1) for number, s in enumerate(order)}
    assert {number: experiment.score(scheme, trials=1) for number, scheme in enumerate(order)} == alone
    trials = [experiment.trials(scheme) for scheme in (FAMILY["side channel"], Scheme(channel=QUIET, cells=(1, 5)))]
    taken = [[each.run(seed=0, trial=trial).sqnr_db for each in trials] for trial in (0, 1, 0)]
    assert taken[0] == taken[2]
    assert taken[0][1] == Experiment(model(TEXT), images(), DECIBELS).score(order[-9], trials=1).sqnr_db[0]


def test_strategies_with_the_same_planes_and_cells_see_the_same_trials():
    grid = replace(GRID, strategies=("mapping", "redundancy"), presets=(DEFAULT,), cells=(2,), large_factor=1)
    mapping, redundancy = swept(grid, Stopping(trials=5))
    assert mapping.evaluation == redundancy.evaluation
    assert len(set(mapping.evaluation.sqnr_db)) == 5


@pytest.mark.parametrize(("strategy", "cells"), [("raw", 1), ("sign", 1), ("mapping", 9), ("redundancy", 9)])
def test_the_noise_of_a_tensor_is_one_for_all_points(strategy, cells):
    """What a level is off by, over σ/√r, is the same normal draw whatever the strategy and its cells."""
    settings = of_strategy(strategy, cells_small=cells, cells_large=4)
    found = oa.protect(model(TEXT), **settings, channel=QUIET).model
    other = oa.protect(model(TEXT), strategy="sign", cells_small=4, channel=QUIET).model
    for one, two in zip(drawn(found), drawn(other), strict=True):
        # A read is rounded twice, and so off by u·(|read| + |noise|), and u for σ/√r, which is rounded too; a read is
        # below 1 + |noise|, and σ/√r is 1/30 at least.
        bound = 30 * U * (1 + 3 * np.maximum(abs(one), abs(two)))
        assert (abs(one - two) <= 2 * bound).all()
        assert abs(one).max() > 1


def drawn(found):
    """Return the normal draws behind the levels of trial 1."""
    read = oa.readback(found, seed=3, trial=1).model
    for before, after in zip(stored_tensors(found), stored_tensors(read), strict=True):
        count = np.array(before.scheme.cells_of_class)[0 if before.class_index is None else before.class_index]
        noise = after.level.astype(np.float64) - before.level
        yield noise * np.sqrt(count) / QUIET.sigma


def test_another_seed_gives_other_trials():
    one, other = (swept(replace(GRID, strategies=("sign",), presets=(DEFAULT,), seed=seed)) for seed in (0, 1))
    assert {point.evaluation.seed for point in other} == {1}
    assert [point.evaluation.sqnr_db for point in one] != [point.evaluation.sqnr_db for point in other]


def test_more_cells_are_better_in_every_trial():
    """Noise is paired, so the output's is a tenth in each trial, and not only on average."""
    few, many = swept(replace(GRID, strategies=("sign",), presets=(DEFAULT,), cells=(10_000, 1_000_000)))
    # Noise is at most 0.1/100 of the span, which holds the weights of a tensor, so what is of second order in it is
    # below a hundredth of what is of first: 20·log10(1.01) < 0.1 dB.
    np.testing.assert_allclose(np.subtract(many.evaluation.sqnr_db, few.evaluation.sqnr_db), 20, atol=0.1)


def test_points_come_as_they_are_evaluated():
    told = []
    points = sweep(
        prepare([Case(name="net", model=model(TEXT), data=images())], GRID, TWO),
        progress=lambda done, planned: told.append((done, planned)),
    )
    next(points)
    assert told[-1] == (2, 32)
    assert len(list(points)) == 15
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert (told[0], told[-1]) == ((0, 32), (32, 32))


def test_the_model_is_not_changed():
    plain = model(TEXT)
    before = serialized(plain)
    swept(GRID, Stopping(trials=1), plain)
    assert serialized(plain) == before


def test_without_trials_there_are_costs():
    for point in swept(GRID, Stopping(trials=0)):
        assert point.evaluation.values == ()
        assert point.evaluation.original is not None
        assert point.totals.all_in_cells > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"cells": (0,)},
        {"cells": (1.5,)},
        {"cells": ()},
        {"cells": (1, 1)},
        {"seed": -1},
        {"strategies": ("none",)},
        {"channels": (QUIET, QUIET)},
        {"presets": ()},
        {"large_factor": 0},
    ],
)
def test_a_grid_out_of_range_is_refused(wrong):
    with pytest.raises(OptionError):
        swept(replace(GRID, **wrong))


def test_a_pruned_model_is_swept_as_it_is():
    pruned = oa.prune(model(TEXT), sparsity=0.75, prune_scope="tensor").model
    for point in swept(GRID, Stopping(trials=0), pruned):
        assert (point.totals.stored_weights, point.totals.original_weights) == (128, 512)


# ------------------------------------------------------------------------------------------- an engine of the tests

Pick = Callable[[int], int]  # from how many tasks wait to the one that ends next

SMALL = Grid(strategies=("sign", "redundancy"), cells=(1, 4), presets=(DEFAULT,), channels=(QUIET,), seed=3)
FOUR = Stopping(trials=4)
LOOKS = Stopping(trials=2, precision=1.7, max_trials=7)  # in dB: points stop at all of 2, 4 and 7


def case(name: str = "net", seed: int = 0, data: Dataset | None = None) -> Case:
    return Case(name=name, model=model(TEXT, seed=seed), data=data or images())


@cache
def plan(stopping: Stopping = FOUR, grid: Grid = SMALL) -> Study:
    return prepare([case()], grid, stopping, metric=DECIBELS)


class Here(Engine):
    """Does tasks in this process, in an order of its own, and remembers them; it may fail after some."""

    def __init__(
        self,
        *,
        slots: int = 3,
        threads: int = 1,
        pick: Pick = lambda waiting: 0,
        limit: int | None = None,
        change: Callable[[Outcome], Outcome] = lambda outcome: outcome,
    ) -> None:
        self._slots, self._threads, self._pick, self._limit, self._change = slots, threads, pick, limit, change
        self._waiting: list[Task] = []
        self.tasks: list[Task] = []
        self.most = 0
        self.told: list[int] = []
        self.work: Work | None = None
        self.stopped = 0

    def plan(self, tasks: int) -> int:
        self.told.append(tasks)
        return self._threads

    def start(self, work: Any) -> None:
        self.work, self._worker = work, Worker(work)

    @property
    def slots(self) -> int:
        return self._slots

    def submit(self, task: Any) -> None:
        self._waiting.append(task)
        self.most = max(self.most, len(self._waiting))

    def next(self) -> Outcome:
        if len(self.tasks) == self._limit:
            raise ZeroDivisionError("a task failed")
        self.tasks.append(self._waiting.pop(self._pick(len(self._waiting))))
        return self._change(self.outcome(self.tasks[-1]))

    def outcome(self, task: Task) -> Outcome:
        return self._worker.do(task)

    def stop(self) -> None:
        self.stopped += 1

    @property
    def done(self) -> list[tuple[int, int]]:
        """Point and number of each trial, in the order in which they were computed."""
        return [(task.number, trial) for task in self.tasks for trial in task.trials]


FOUND: dict[tuple[str, int, int], Outcome] = {}  # by digest of the work, point and trial


class Known(Here):
    """Computes no trial that any sweep of these tests has computed, so that many sweeps are cheap."""

    def outcome(self, task: Task) -> Outcome:
        assert self.work is not None
        keys = [(self.work.digest, task.number, trial) for trial in task.trials]
        for key in keys:
            if key not in FOUND:
                FOUND[key] = super().outcome(task._replace(trials=key[2:]))
        found = [FOUND[key] for key in keys]
        return found[0]._replace(trials=task.trials, results=tuple(each.results[0] for each in found))


def shuffled(seed: int) -> Pick:
    rng = np.random.default_rng(seed)
    return lambda waiting: int(rng.integers(waiting))


PICKS = {"first": lambda waiting: 0, "last": lambda waiting: -1, "random": shuffled(0), "also random": shuffled(1)}


def swept_to(path: Path, made: Study | None = None, **options: Any) -> tuple[list[Point], Known]:
    """Return the points of a sweep into a folder, and the engine that did it."""
    engine = Known(**options)
    return list(sweep(made or plan(), engine=engine, out=path)), engine


def files_in(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != LOCK}


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def trials_in(path: Path) -> list[tuple[str, str, int]]:
    """Return strategy, cells and number of the trials in a folder."""
    return [(row["strategy"], row["cells"], int(row["trial"])) for row in rows_in(path / TRIALS)]


@cache
def whole(stopping: Stopping = FOUR) -> tuple[list[Point], dict[str, bytes]]:
    """Return points and files of a sweep that was never stopped."""
    with tempfile.TemporaryDirectory() as name:
        points, _ = swept_to(Path(name), plan(stopping))
        return points, files_in(Path(name))


# -------------------------------------------------------------------------------------- whoever computes, and when


@pytest.mark.parametrize("stopping", [FOUR, LOOKS])
@pytest.mark.parametrize("pick", PICKS)
@pytest.mark.parametrize("slots", [1, 5])
def test_points_and_files_do_not_depend_on_the_order_in_which_tasks_end(slots, pick, stopping, tmp_path):
    points, engine = swept_to(tmp_path, plan(stopping), pick=PICKS[pick], slots=slots)
    expected, there = whole(stopping)
    assert points == expected
    assert files_in(tmp_path) == there
    assert sorted(engine.done) == sorted(set(engine.done))


def test_an_engine_of_one_s_own_gives_what_this_process_gives():
    expected = list(sweep(plan()))
    assert list(sweep(plan(), engine=Here(pick=shuffled(0)))) == whole()[0] == expected


def test_an_engine_has_a_task_for_each_slot_and_one_that_waits():
    engine = Here(slots=2)
    list(sweep(plan(), engine=engine))
    assert engine.most == 4


def test_an_engine_is_told_how_much_there_is_to_do_and_chooses_its_threads():
    engine = Here(threads=7)
    list(sweep(plan(), engine=engine))
    assert engine.told == [16]
    assert engine.work is not None
    assert engine.work.threads == 7
    assert engine.stopped == 1


def lengths(seconds: float) -> list[int]:
    """Return of how many trials the tasks are that an engine gets whose trials take so long."""
    engine = Known(slots=1, change=lambda outcome: outcome._replace(seconds=seconds))
    list(sweep(plan(Stopping(trials=20)), engine=engine))
    assert sorted(engine.done) == list(product(range(4), range(20)))
    return [len(task.trials) for task in engine.tasks]


def test_short_trials_travel_together_once_it_is_known_that_they_are_short():
    slow, medium, fast = lengths(60.0), lengths(0.12), lengths(1e-4)
    assert set(slow) == {1}
    assert medium[:2] == fast[:2] == [1, 1]  # these are under way before any has ended
    assert max(medium) == 4  # they last half a second
    assert max(fast) > 10


def test_short_trials_are_shared_among_all_slots():
    engine = Known(slots=3, change=lambda outcome: outcome._replace(seconds=1e-4))
    list(sweep(plan(Stopping(trials=20), replace(SMALL, strategies=("sign",), cells=(1,))), engine=engine))
    assert max(len(task.trials) for task in engine.tasks) <= math.ceil(20 / 3)


def test_short_trials_of_the_last_point_travel_together_too():
    engine = Known(slots=1, change=lambda outcome: outcome._replace(seconds=1e-4))
    list(sweep(plan(Stopping(trials=20), replace(SMALL, strategies=("sign",), cells=(1,))), engine=engine))
    assert len(engine.tasks) < 15


@pytest.mark.parametrize("stopping", [FOUR, LOOKS])
def test_progress_never_goes_back_and_ends_with_all(stopping):
    told = []
    points = list(sweep(plan(stopping), engine=Known(pick=shuffled(0)), progress=lambda *now: told.append(now)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert [planned for _, planned in told] == sorted(planned for _, planned in told)
    assert all(done <= planned for done, planned in told)
    total = sum(len(point.evaluation.values) for point in points)
    assert told[0] == (0, 4 * stopping.trials)
    assert told[-1] == (total, total)


# ----------------------------------------------------------------------------------------------- points that are added


def refined(point: Point) -> list[GridPoint]:
    """Return one further point for each of the grid's `sign` points: of one cell more, and digital."""
    if point.strategy != "sign":
        return []
    scheme = point.setting.plan.schemes[0].changed(cells=(point.cells + 1,), granularity="channel")
    return [GridPoint.of(scheme, name="finer"), GridPoint.of(Scheme.int4(), name=f"int4 after {point.cells}")]


@cache
def with_added() -> tuple[list[Point], dict[str, bytes]]:
    with tempfile.TemporaryDirectory() as name:
        points = list(sweep(plan(), engine=SerialEngine(threads=1), out=Path(name), further=refined))
        return points, files_in(Path(name))


def test_points_may_be_added_after_the_first_results():
    points, _ = with_added()
    assert points[:4] == whole()[0]
    names = [(point.strategy, point.cells) for point in points[4:]]
    assert names == [("finer", 2), ("int4 after 1", 0), ("finer", 5), ("int4 after 4", 0)]
    for point in points[4:]:
        alone = Experiment(model(TEXT), images(), DECIBELS).score(point.setting.plan, seed=3, trials=4)
        assert (point.evaluation.values, point.evaluation.original) == (alone.values, alone.original)


@pytest.mark.parametrize("engine", [LocalEngine(workers=2), Here(pick=shuffled(0)), Here(slots=5, pick=lambda _: -1)])
def test_added_points_do_not_depend_on_who_computes_them(engine, tmp_path):
    """The local engine's workers have never heard of them when they start."""
    points = list(sweep(plan(), engine=engine, out=tmp_path, further=refined))
    assert (points, files_in(tmp_path)) == with_added()


@pytest.mark.parametrize("kept", [0, 5, 16, 23, 32])
def test_added_points_are_resumed(kept, tmp_path):
    _, there = with_added()
    (tmp_path / CONSTANTS).write_bytes(there[CONSTANTS])
    (tmp_path / TRIALS).write_bytes(b"".join(there[TRIALS].splitlines(keepends=True)[: kept + 1]))
    engine = Here()
    points = list(sweep(plan(), engine=engine, out=tmp_path, further=refined))
    assert (points, files_in(tmp_path)) == with_added()
    assert len(engine.done) == 32 - kept


def test_rows_of_added_points_are_kept_where_nobody_adds_them(tmp_path):
    list(sweep(plan(), out=tmp_path, further=refined))
    assert swept_to(tmp_path)[0] == whole()[0]
    assert files_in(tmp_path)[TRIALS] == with_added()[1][TRIALS]


def test_a_generator_may_add_points_one_after_the_other():
    def next_one(point: Point) -> list[GridPoint]:
        return (
            [GridPoint.of(Scheme.paper("sign", cells_small=2 * point.cells), name="twice")] if point.cells < 64 else []
        )

    study = plan(TWO, replace(SMALL, strategies=("sign",), cells=(4,)))
    assert [point.cells for point in sweep(study, further=next_one)] == [4, 8, 16, 32, 64]


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (lambda point: [point.setting], "the point 'sign' with 1 cell appears twice"),
        (lambda point: [GridPoint.of(Scheme(), name="new", model=1)], "a point is of model 1, and there are 1"),
        (lambda point: [GridPoint.of(Scheme(), name="new", varied=("step",))], "does not say what its grid varies"),
    ],
)
def test_a_point_that_cannot_be_added_is_refused(further, said):
    with pytest.raises(OptionError, match=said):
        list(sweep(plan(), engine=Known(), further=further))


def test_with_axes_an_added_point_says_what_they_are_for_it(tmp_path):
    study = plan(TWO, replace(SMALL, strategies=("sign",), cells=(1,), axes={"side_bits_per_cell": (1, 2)}))
    more = iter([GridPoint.of(Scheme.int8(side_bits_per_cell=4), name="int8", varied=("side_bits_per_cell",))])
    points = list(sweep(study, out=tmp_path, further=lambda _: [next(more)] if more.__length_hint__() else []))
    assert [row["side_bits_per_cell"] for row in rows_in(tmp_path / POINTS)] == ["1", "2", "4"]
    assert [point.totals.side_cells for point in points] == [512, 256, 1024]


# --------------------------------------------------------------------------------------------------------- resuming


def left_by(path: Path, stopping: Stopping, kept: Sequence[int], half: bool) -> list[tuple[str, str, int]]:
    """Fill a folder with some rows of a whole sweep, as one that was killed leaves it; return their trials."""
    _, there = whole(stopping)
    (path / CONSTANTS).write_bytes(there[CONSTANTS])
    header, *lines = there[TRIALS].splitlines(keepends=True)
    text = b"".join([header, *(lines[place] for place in kept)])
    (path / TRIALS).write_bytes(text)
    have = trials_in(path)
    (path / TRIALS).write_bytes(text + half * lines[0][:-9])
    return have


@given(st.data(), st.sampled_from([FOUR, LOOKS]), st.booleans(), st.sampled_from(sorted(PICKS)))
@settings(max_examples=25)
def test_a_sweep_computes_what_is_missing_and_ends_as_if_never_stopped(data, stopping, half, pick):
    expected, there = whole(stopping)
    count = there[TRIALS].count(b"\n") - 1
    kept = data.draw(st.lists(st.integers(0, count - 1), unique=True))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        have = left_by(path, stopping, kept, half)
        points, engine = swept_to(path, plan(stopping), pick=PICKS[pick])
        assert points == expected
        assert files_in(path) == there
        settled = [(one.strategy, str(one.cells)) for one in plan(stopping).settings]
        computed = [(*settled[place], trial) for place, trial in engine.done]
        assert sorted(computed + have) == sorted(trials_in(path))


@pytest.mark.parametrize("stopping", [FOUR, LOOKS])
@pytest.mark.parametrize("limit", [0, 1, 5, 11])
def test_a_sweep_that_failed_leaves_what_ended_and_goes_on_from_there(limit, stopping, tmp_path):
    failing = Known(limit=limit, pick=shuffled(limit), change=lambda outcome: outcome._replace(seconds=60.0))
    with pytest.raises(ZeroDivisionError, match="a task failed"):
        list(sweep(plan(stopping), engine=failing, out=tmp_path))
    assert failing.stopped == 1
    with Folder(tmp_path, plan(stopping).facts) as folder:  # it is free
        assert len(folder.read()) == len(failing.done) == limit
    points, engine = swept_to(tmp_path, plan(stopping))
    assert (points, files_in(tmp_path)) == whole(stopping)
    assert not set(engine.done) & set(failing.done)
    assert len(engine.done) + len(failing.done) == whole(stopping)[1][TRIALS].count(b"\n") - 1


def test_a_sweep_that_nobody_listens_to_any_more_stops_its_engine_and_frees_its_folder(tmp_path):
    engine = Known()
    points = sweep(plan(), engine=engine, out=tmp_path)
    next(points)
    with pytest.raises(OutputError, match="another sweep writes to"):
        swept_to(tmp_path)
    points.close()
    assert engine.stopped == 1
    assert (swept_to(tmp_path)[0], files_in(tmp_path)) == whole()


def test_where_all_is_there_no_engine_is_started(tmp_path):
    swept_to(tmp_path)
    points, engine = swept_to(tmp_path)
    assert (points, files_in(tmp_path)) == whole()
    assert (engine.work, engine.told, engine.done) == (None, [], [])


def test_fewer_trials_later_lose_no_rows(tmp_path):
    swept_to(tmp_path)
    points, engine = swept_to(tmp_path, plan(TWO))
    assert engine.done == []
    assert [len(point.evaluation.values) for point in points] == [2] * 4
    assert points == whole(TWO)[0]
    for name in (TRIALS, PARQUET, CONSTANTS):
        assert files_in(tmp_path)[name] == whole()[1][name]
    assert files_in(tmp_path)[POINTS] == whole(TWO)[1][POINTS]
    assert (swept_to(tmp_path)[0], files_in(tmp_path)) == whole()


def test_rows_beyond_a_gap_are_kept_in_their_order(tmp_path):
    """A sweep of more trials was killed before it came to all of those before them."""
    seven = Stopping(trials=7)
    left_by(tmp_path, seven, [6, 4, 13], half=False)
    assert trials_in(tmp_path) == [("sign", "1", 6), ("sign", "1", 4), ("sign", "4", 6)]
    points, engine = swept_to(tmp_path, plan(TWO))
    assert points == whole(TWO)[0]
    assert sorted(engine.done) == list(product(range(4), range(2)))
    assert trials_in(tmp_path)[:7] == [
        *(("sign", "1", trial) for trial in (0, 1, 4, 6)), *(("sign", "4", trial) for trial in (0, 1, 6)),
    ]  # fmt: skip
    assert (swept_to(tmp_path, plan(seven))[0], files_in(tmp_path)) == whole(seven)


def test_more_trials_later_compute_the_others_only(tmp_path):
    swept_to(tmp_path, plan(TWO))
    points, engine = swept_to(tmp_path)
    assert (points, files_in(tmp_path)) == whole()
    assert sorted(engine.done) == list(product(range(4), (2, 3)))


def test_a_grid_that_grows_computes_the_new_points_only(tmp_path):
    swept_to(tmp_path, plan(FOUR, replace(SMALL, cells=(4,))))
    points, engine = swept_to(tmp_path)
    assert (points, files_in(tmp_path)) == whole()
    assert sorted(engine.done) == list(product((0, 2), range(4)))  # those of one cell


def test_rows_of_points_that_are_in_the_grid_no_more_are_kept(tmp_path, caplog):
    swept_to(tmp_path)
    assert "earlier sweep" not in caplog.text
    points, engine = swept_to(tmp_path, plan(FOUR, replace(SMALL, cells=(4,))))
    assert engine.done == []
    assert points == [point for point in whole()[0] if point.cells == 4]
    assert sorted(trials_in(tmp_path)) == sorted((s, c, n) for s in SMALL.strategies for c in "14" for n in range(4))
    assert caplog.text.count("2 points of an earlier sweep are not among the points of this one") == 1
    caplog.clear()
    assert (swept_to(tmp_path)[0], files_in(tmp_path)) == whole()
    assert "earlier sweep" not in caplog.text


def test_points_without_a_setting_are_resumed_and_kept(tmp_path):
    """`raw` has neither a share nor a threshold: its columns are empty."""
    both = plan(FOUR, replace(SMALL, strategies=("raw", "mapping"), axes={"threshold": (0.01, 0.02)}))
    points, engine = swept_to(tmp_path, both)
    assert [point.setting.large_fraction for point in points] == [None] * len(points)
    there = files_in(tmp_path)
    again, engine = swept_to(tmp_path, both)
    assert (engine.done, again, files_in(tmp_path)) == ([], points, there)
    swept_to(tmp_path, plan(FOUR, replace(both.grid, strategies=("raw",))))
    _, engine = swept_to(tmp_path, both)
    assert (engine.done, files_in(tmp_path)) == ([], there)


def test_rows_keep_the_values_of_other_points(tmp_path):
    """Rows of `mapping`, which has a share, are kept beside those of `raw`, which has none."""
    both = plan(FOUR, replace(SMALL, strategies=("raw", "mapping")))
    swept_to(tmp_path, both)
    there = files_in(tmp_path)
    swept_to(tmp_path, plan(FOUR, replace(both.grid, strategies=("raw",))))
    assert {row["large_fraction"] for row in rows_in(tmp_path / TRIALS)} == {"", "0.05"}
    _, engine = swept_to(tmp_path, both)
    assert (engine.done, files_in(tmp_path)) == ([], there)


@pytest.mark.parametrize(
    ("grid", "options", "named"),
    [
        (replace(SMALL, seed=4), {}, "seed is 4, and it is 3 in the sweep of"),
        (SMALL, {"batch": 32}, "batch is 32, and it is 64 in the sweep of"),
        (SMALL, {"metric": ("top1", metrics.top1)}, "metric is 'top1', and it is 'sqnr_db' in the sweep of"),
        (SMALL, {"facts": {"source": "b"}}, "source is 'b', but the sweep in"),
    ],
)
def test_a_folder_of_another_sweep_is_refused(grid, options, named, tmp_path):
    swept_to(tmp_path)
    other = prepare([case()], grid, FOUR, **{"metric": DECIBELS, **options})
    engine = Known()
    with pytest.raises(OutputError, match=named):
        list(sweep(other, engine=engine, out=tmp_path))
    assert engine.work is None
    assert files_in(tmp_path) == whole()[1]


def test_a_folder_of_another_selection_is_refused(tmp_path):
    swept_to(tmp_path)
    with pytest.raises(OutputError):
        swept_to(tmp_path, plan(FOUR, replace(SMALL, selection=Selection(exclude=("a",)))))


def change_row(path: Path, number: int, *, unseen: bool = True, **change: str) -> None:
    """Change some entries of a row that is there, and, so that its checksum does not tell, the checksum as well."""
    with (path / TRIALS).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    row = rows[number]
    row.update(change)
    if unseen:
        names = [name for name in row if name != CHECKSUM]
        row[CHECKSUM] = Checksum(names).of([row[name] for name in names])
    with (path / TRIALS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def shared() -> Study:
    """Return a sweep whose metric is a share."""
    return prepare([case()], SMALL, TWO, metric=("agreement", metrics.agreement))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trial": "-1"}, "trial is '-1'; it must be a whole number from 0"),
        ({"trial": "1.0"}, "trial is '1.0'; it must be"),
        ({"trial": "1_0"}, "trial is '1_0'; it must be"),
        ({"trial": "٣"}, "trial is '٣'; it must be"),
        ({"trial": "1000000000"}, "trial is 1,000,000,000; it must be below 1,000,000,000"),
        ({"trial": "1" * 5000}, "trial is '1111"),
        ({"trial": "0"}, "trial 0 of this point appears twice"),
        ({"value": ""}, "value is '', which is not a number"),
        ({"value": "much"}, "value is 'much', which is not a number"),
        ({"value": "1_0.5"}, "value is '1_0.5', which is not a number"),
        ({"sqnr_db": "1e9"}, "sqnr_db is 1e9; it must be within ±6400 dB"),
        ({"sqnr_db": "x"}, "sqnr_db is 'x', which is not a number"),
        ({"original": "0.5"}, "original is 0.5, but in this sweep it is empty"),
        ({"seed": "4"}, "seed is '4', and in sweep.json '3'"),
        ({"numpy": "1.0"}, "numpy is '1.0', and in sweep.json"),
        ({"cells": "0"}, "which strategy sign cannot have with cells 0"),
        ({"cells": "01"}, "cells is '01'; it must be a whole number from 0"),
        ({"granularity": "x"}, "granularity is 'x'; it must be one of tensor, channel, model"),
        ({"plan_sha256": "0"}, "plan_sha256 is '0', which is not a SHA-256"),
        ({"cells_large": "5"}, "cells_large is 5, which strategy"),
        ({"model": "z"}, "model is 'z', which is not of this sweep"),
        ({"channel": "pcm"}, "channel is 'pcm', but its channel_sha256 is that of"),
        ({"channel_sha256": "0"}, "channel_sha256 is '0', which is not a SHA-256"),
        ({"sqnr_db": "1e309"}, "sqnr_db is '1e309', which is beyond the range of numbers"),
        ({"large_fraction": "1.5"}, "large_fraction is 1.5; it must be from 0 to 1"),
        ({"large_fraction": "nan"}, "large_fraction is nan; it must be from 0 to 1"),
        ({"analog_cells": "513"}, "r_avg is "),
        ({"analog_cells": "-1"}, "analog_cells is '-1'"),
        ({"stored_weights": "0"}, "stored_weights is 0; it must be from 1 to 512"),
        ({"r_avg": "1.5"}, "r_avg is '1.5', but the counts of cells give 1.0"),
        ({"mask_bitmap_bits": "7"}, "the counts of weights and cells differ from those of other rows of its point"),
    ],
)
@pytest.mark.parametrize("grid", [SMALL, replace(SMALL, cells=(4,))], ids=["of the grid", "of another"])
def test_a_row_that_no_sweep_writes_is_refused_before_anything_is_computed(grid, change, said, tmp_path):
    swept_to(tmp_path)
    change_row(tmp_path, 1, **change)
    before, engine = files_in(tmp_path), Known()
    with pytest.raises(OutputError, match=re.escape(f"line 3 of {str(tmp_path / TRIALS)!r} is not a row")) as found:
        list(sweep(plan(TWO, grid), engine=engine, out=tmp_path))
    assert said in str(found.value)
    assert (engine.work, files_in(tmp_path)) == (None, before)


@pytest.mark.parametrize(
    ("value", "refused"), [("17.5", True), ("-0.1", True), ("inf", True), ("nan", False), ("1", False)]
)
def test_a_share_lies_between_0_and_1(value, refused, tmp_path):
    list(sweep(shared(), out=tmp_path))
    change_row(tmp_path, 0, value=value)
    if refused:
        with pytest.raises(OutputError, match=f"line 2 of .*: value is {value}; it must be from 0 to 1"):
            list(sweep(shared(), out=tmp_path))
    else:
        assert str(float(value)) == str(next(iter(sweep(shared(), out=tmp_path))).evaluation.values[0])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_character_of_a_row_changes_unseen(tmp_path, data):
    """A digit that is lost, doubled or another: what is left is still a number, and may be a possible one."""
    if not (tmp_path / TRIALS).exists():
        swept_to(tmp_path)
    before = (tmp_path / TRIALS).read_text(encoding="utf-8")
    start = before.index("\n") + 1
    place = data.draw(st.integers(start, len(before) - 2).filter(lambda place: before[place].isdigit()))
    digit = data.draw(st.sampled_from(["", before[place] * 2, *(set("0123456789") - {before[place]})]))
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(tmp_path, name, dirs_exist_ok=True)
        (Path(name) / TRIALS).write_text(before[:place] + digit + before[place + 1 :], encoding="utf-8")
        with pytest.raises(OutputError, match=f"line {before[:place].count(chr(10)) + 1} of .* is not a row"):
            list(sweep(plan(TWO), engine=Known(), out=Path(name)))


@pytest.mark.parametrize("column", ["trial", "value", "strategy", "codebook_cells", "more"])
def test_a_column_too_few_or_too_many_is_refused(column, tmp_path):
    swept_to(tmp_path)
    rows = rows_in(tmp_path / TRIALS)
    more = {"more": "1"} if column == "more" else {}
    names = [*more, *(f"other {name}" if name == column else name for name in rows[0] if name != CHECKSUM)]
    checksum = Checksum(names)
    with (tmp_path / TRIALS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, CHECKSUM])
        writer.writerows(checksum.with_it([*more.values(), *list(row.values())[:-1]]) for row in rows)
    with pytest.raises(OutputError, match=f"line 2 of .*: the column '(other )?{column}' is (missing|unknown)"):
        swept_to(tmp_path)


def test_rows_whose_counts_are_of_another_model_are_refused_when_a_worker_says_so(tmp_path):
    """All rows of a point agree, and not with what is computed now."""
    swept_to(tmp_path, plan(TWO))
    for number in (0, 1):
        change_row(tmp_path, number, mask_bitmap_bits="7")
    with pytest.raises(OutputError, match=r"^the counts of weights and cells in the rows of sign with 1 cell in tr"):
        list(sweep(plan(), engine=Known(), out=tmp_path))
    assert len(trials_in(tmp_path)) < 16


def test_rows_with_another_value_of_the_stored_model_are_refused(tmp_path):
    swept_to(tmp_path, plan(TWO))
    change_row(tmp_path, 0, stored="7")
    with pytest.raises(OutputError, match=r"line 3 .*the values of the stored model differ from those of other rows"):
        list(sweep(plan(), engine=Known(), out=tmp_path))
    change_row(tmp_path, 1, stored="7")
    with pytest.raises(OutputError, match=r"^the values of the stored model in the rows of sign with 1 cell in "):
        list(sweep(plan(), engine=Known(), out=tmp_path))


def test_a_thousand_million_trials_take_no_memory_before_they_are_made():
    engine, made = Known(limit=3), plan(Stopping(trials=10**9))
    tracemalloc.start()
    with pytest.raises(ZeroDivisionError):
        list(sweep(made, engine=engine))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert engine.told == [4 * 10**9]


def test_trials_of_a_thousand_million_come_in_their_order_around_those_that_are_there(tmp_path):
    left_by(tmp_path, FOUR, [1, 3], half=False)
    engine = Known(limit=3)
    with pytest.raises(ZeroDivisionError):
        list(sweep(plan(Stopping(trials=10**9)), engine=engine, out=tmp_path))
    assert {trial for place, trial in engine.done if place == 0} <= {0, 2, 4, 5, 6}
    assert (0, 0) in engine.done


def test_trials_that_are_there_and_not_wanted_are_not_counted_as_done(tmp_path):
    """Those that a sweep of more trials left behind, before it came to the first."""
    left_by(tmp_path, FOUR, [2, 3, 6, 7], half=False)
    told = []
    points = list(sweep(plan(TWO), engine=Known(), out=tmp_path, progress=lambda *now: told.append(now)))
    assert points == whole(TWO)[0]
    assert (told[0], told[-1]) == ((0, 8), (8, 8))


def test_a_model_whose_name_has_two_lines_is_resumed_too(tmp_path):
    made = prepare([case("two\nlines")], SMALL, TWO, metric=DECIBELS)
    swept_to(tmp_path, made)
    before = files_in(tmp_path)
    _, engine = swept_to(tmp_path, made)
    assert engine.done == []
    assert files_in(tmp_path) == before


def test_what_a_row_says_of_its_channel_is_not_made_anew_for_each_trial(tmp_path, monkeypatch):
    """The digest of a channel with a table takes longer than many a trial."""

    def count(made):
        swept_to(tmp_path / f"{made.stopping.trials} known", made)  # so that no worker protects a model below
        calls = []
        with monkeypatch.context() as patched:
            own = GaussianNoise.to_dict
            patched.setattr(GaussianNoise, "to_dict", lambda channel: calls.append(channel) or own(channel))
            swept_to(tmp_path / f"{made.stopping.trials}", made)
        return len(calls)

    assert count(plan(TWO)) == count(plan(Stopping(trials=7)))


# --------------------------------------------------------------------------------------------------- enough trials


def test_a_precision_adds_trials_at_looks_only_and_as_many_as_it_takes():
    points, _ = whole(LOOKS)
    all_trials = list(sweep(plan(Stopping(trials=7)), engine=Known()))
    for point, full in zip(points, all_trials, strict=True):
        wanted = LOOKS.required(full.evaluation.values)
        assert point.evaluation.values == full.evaluation.values[:wanted]
        assert point.ci95 == interval(point.evaluation.values, 1 - 0.05 / 3)
    assert LOOKS.looks() == (2, 4, 7)
    assert {len(point.evaluation.values) for point in points} == {2, 4, 7}


def test_without_a_precision_every_point_has_its_trials_and_the_plain_interval():
    for point in whole()[0]:
        assert len(point.evaluation.values) == 4
        assert point.ci95 == point.evaluation.ci95


def test_a_resumed_point_counts_the_trials_before_its_look_only(tmp_path):
    """Rows that a sweep of more trials left change neither what is decided nor what is reported."""
    swept_to(tmp_path, plan(Stopping(trials=7)))
    points, engine = swept_to(tmp_path, plan(LOOKS))
    assert engine.done == []
    assert points == whole(LOOKS)[0]
    assert len(trials_in(tmp_path)) == 28


# ------------------------------------------------------------------------------------------------------ what is written


def test_each_trial_is_a_row():
    points, there = whole()
    with tempfile.TemporaryDirectory() as name:
        swept_to(Path(name))
        rows = rows_in(Path(name) / TRIALS)
    assert len(rows) == 16
    for row, (point, trial) in zip(rows, product(points, range(4)), strict=True):
        assert float(row["value"]) == point.evaluation.values[trial]
        assert float(row["sqnr_db"]) == point.evaluation.sqnr_db[trial]
        assert row["original"] == ""  # nothing is off without noise
        assert (row["model"], row["seed"], row["trial"]) == ("net", "3", str(trial))
        assert {name: row[name] for name in point.setting.columns()} == {
            name: "" if value is None else str(value) for name, value in point.setting.columns().items()
        }
        assert int(row["analog_cells"]) == point.totals.analog_cells
        assert float(row["all_in_cells_per_original_weight"]) == point.cost
        assert (row["metric"], row["samples"], row["batch"]) == ("sqnr_db", "[100]", "64")
    assert json.loads(there[CONSTANTS])["metric"] == "sqnr_db"


def test_each_point_is_a_row(tmp_path):
    points, _ = swept_to(tmp_path)
    for row, point in zip(rows_in(tmp_path / POINTS), points, strict=True):
        values = point.evaluation.values
        assert float(row["mean"]) == np.mean(values)
        assert float(row["std"]) == np.std(values, ddof=1)
        assert (float(row["ci95_low"]), float(row["ci95_high"])) == interval(values)
        assert (row["trials"], row["original"], row["strategy"], row["cells"]) == (
            "4",
            "",
            point.strategy,
            str(point.cells),
        )
        assert row == {name: "" if value is None else str(value) for name, value in point.row().items()}


def test_the_metric_without_noise_is_that_of_the_model_before_it_is_protected(tmp_path):
    top1 = prepare([case()], SMALL, TWO)
    points, _ = swept_to(tmp_path, top1)
    alone = oa.evaluate(model(TEXT), images())
    assert {point.evaluation.original for point in points} == {alone.original}
    assert {float(row["original"]) for row in rows_in(tmp_path / TRIALS)} == {alone.original}


def test_a_point_is_ready_for_json_whatever_its_values():
    point = whole()[0][0]
    found = point.to_dict()
    assert (found["strategy"], found["cells"], found["values"]) == ("sign", 1, list(point.evaluation.values))
    assert (found["ci95"], found["analog_cells"]) == (list(point.ci95 or ()), point.totals.analog_cells)
    values = (math.nan, math.inf, 1.0)
    broken = replace(point, evaluation=replace(point.evaluation, values=values[:1]), ci95=(math.nan, math.nan))
    assert json.loads(json.dumps(broken.to_dict(), allow_nan=False))["ci95"] is None
    assert replace(point, evaluation=replace(point.evaluation, values=()), ci95=None).to_dict()["mean"] is None


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(sweep(plan(), engine=Known()))
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ several models and channels


def test_each_model_and_channel_is_swept_as_if_alone():
    few, loud = Dataset(images().head(30).inputs, images().labels[:30]), GaussianNoise(sigma=0.3)
    cases = [case("one"), case("two", seed=1, data=few)]
    grid = replace(SMALL, channels=(QUIET, loud), strategies=("sign",))
    points = list(sweep(prepare(cases, grid, TWO), engine=Here(pick=shuffled(0))))
    assert [(point.model, point.setting.channel, point.cells) for point in points] == list(
        product(("one", "two"), (QUIET, loud), (1, 4))
    )
    for place, (one, channel) in enumerate(product(cases, (QUIET, loud))):
        alone = list(sweep(prepare([one], replace(grid, channels=(channel,)), TWO)))
        for point, other in zip(points[2 * place :], alone, strict=False):
            assert replace(point, setting=replace(point.setting, model=0)) == other
    assert {point.model: point.evaluation.samples for point in points} == {"one": 100, "two": 30}


def test_the_samples_of_all_models_are_said(tmp_path):
    few = Dataset({"x": images().inputs["x"][:30]}, None)
    made = prepare([case("one"), case("two", data=few)], SMALL, TWO, metric=DECIBELS)
    swept_to(tmp_path, made)
    assert json.loads((tmp_path / CONSTANTS).read_text())["samples"] == [100, 30]
    assert [row["model"] for row in rows_in(tmp_path / POINTS)] == ["one"] * 4 + ["two"] * 4


# ---------------------------------------------------------------------------------------------------- paired trials


def pointed(values: Sequence[float], point: Point | None = None) -> Point:
    point = point or whole()[0][0]
    return replace(point, evaluation=replace(point.evaluation, values=tuple(values)), ci95=interval(values))


def test_a_paired_difference_by_hand():
    mean, ends = paired(pointed([1.0, 2.0, 4.0]), pointed([0.5, 1.0, 2.0]))
    # differences 0.5, 1 and 2: mean 7/6, s² = 7/12, half of the interval t(0.975, 2)·s/√3
    assert mean == pytest.approx(7 / 6)
    half = 4.302653 * math.sqrt(7 / 12 / 3)
    assert ends == pytest.approx((7 / 6 - half, 7 / 6 + half), abs=1e-6)
    back, other = paired(pointed([0.5, 1.0, 2.0]), pointed([1.0, 2.0, 4.0]))
    assert back == -mean
    assert other == pytest.approx((-7 / 6 - half, -7 / 6 + half), abs=1e-6)


def test_only_trials_that_both_have_are_paired():
    assert paired(pointed([1.0, 2.0, 99.0, 98.0]), pointed([0.5, 1.0])) == paired(
        pointed([1.0, 2.0]), pointed([0.5, 1.0])
    )
    assert paired(pointed([1.0, 99.0]), pointed([0.25])) == (0.75, None)
    mean, ends = paired(pointed([]), pointed([0.25]))
    assert math.isnan(mean)
    assert ends is None


def test_what_shares_its_noise_is_known_better_in_pairs():
    few, many = list(sweep(plan(Stopping(trials=6), replace(SMALL, strategies=("sign",), cells=(10_000, 1_000_000)))))
    mean, ends = paired(many, few)
    assert ends is not None
    assert few.ci95 is not None
    assert many.ci95 is not None
    # The noise of one is a tenth of the other's, so each difference is 20 dB, to 0.1 dB (see above), and its standard
    # deviation 0.1·√(6/5) dB at most.
    assert mean == pytest.approx(20, abs=0.1)
    assert ends[1] - ends[0] <= 2 * 2.570582 * 0.1 * math.sqrt(6 / 5) / math.sqrt(6)
    unpaired = math.hypot(*(high - low for low, high in (few.ci95, many.ci95)))
    assert ends[1] - ends[0] < unpaired / 5


# ------------------------------------------------------------------------------------------------- what is refused


def refused(error: type[Exception], said: str, cases: Sequence[Case], grid: Grid = SMALL, **options: Any) -> None:
    with pytest.raises(error) as raised:
        prepare(cases, grid, FOUR, **options)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_two_models_of_one_name_are_refused():
    refused(OptionError, "two models are called 'net': rename one", [case(), case("other"), case()])


def test_no_model_is_refused():
    refused(OptionError, "there are no models", [])


def test_models_that_take_different_metrics_are_refused_unless_one_is_named():
    cases = [case("one"), case("two", data=Dataset(images().inputs, None))]
    refused(OptionError, "the models take different metrics: name one metric for all", cases)
    assert prepare(cases, SMALL, FOUR, metric=DECIBELS).metric.metric.name == "sqnr_db"


def test_everything_is_checked_before_the_first_trial():
    wrong = Dataset(images().inputs, np.full(100, 99))
    refused(OptionError, "batch is 0; it must be 1 or more", [case()], batch=0)
    refused(OptionError, "no provider 'None' here", [case()], providers=("None",))
    refused(DataError, "labels run from 99 to 99", [case(data=wrong)])
    refused(NothingToStore, "", [case()], replace(SMALL, selection=Selection(min_size=10_000)))
    again = replace(case(), model=oa.protect(model(TEXT), channel=QUIET).model)
    refused(ModelError, "protected already", [case("other"), again])


@pytest.mark.parametrize(
    "wrong", [Preset(granularity="nothing", large_fraction=0.1), Preset(granularity="model", large_fraction=2.0)]
)
def test_each_preset_is_checked_before_the_first_trial(wrong):
    refused(OptionError, "", [case()], replace(SMALL, presets=(wrong, DEFAULT)))


def test_a_point_that_stores_nothing_is_refused_before_the_first_trial_whatever_axis_it_is_on():
    axes = {"classes": (16,), "partition": ("uniform",), "step": (0.5, 1e-50)}
    grid = Grid(cells=(1,), presets=(DEFAULT,), channels=(QUIET,), axes={**axes, "step": (0.5,)})
    prepare([case()], grid, FOUR)
    said = "uniform-16 with classes=16, partition=uniform, step=1e-50: no tensor of the model can be stored"
    refused(NothingToStore, said, [case()], replace(grid, axes=axes))


def test_a_point_that_is_added_and_stores_nothing_is_refused_before_it_is_computed():
    finer = GridPoint.of(Scheme(classes=16, partition="uniform", step=1e-50, channel=QUIET, cells=1), name="finer")
    engine = Known()
    with pytest.raises(NothingToStore, match="no tensor of the model can be stored"):
        list(sweep(prepare([case()], SMALL, TWO), engine=engine, further=lambda _: [finer]))


def test_a_model_that_was_pruned_is_compared_with_the_original():
    plain, data = model(TEXT), Dataset(images().inputs, None)
    pruned = oa.prune(plain, sparsity=0.5).model
    pair = Case(name="net", model=pruned, data=data, original=plain)
    points = list(sweep(prepare([pair], SMALL, TWO)))
    for point, own in zip(
        points,
        oa.sweep(
            plain,
            data,
            strategy=SMALL.strategies,
            cells=SMALL.cells,
            channel=QUIET,
            sparsity=0.5,
            trials=2,
            seed=SMALL.seed,
            engine="serial",
        ),
        strict=True,
    ):
        plan_ = point.setting.plan
        alone = oa.evaluate(oa.protect(pruned, plan_), data, trials=2, seed=SMALL.seed, reference=plain)
        assert point.evaluation == alone == own.evaluation
        assert (alone.metric, alone.original) == ("agreement", 1)
        assert max(alone.stored, *alone.values) < 1


def test_a_worker_of_another_version_is_refused(tmp_path):
    other = Here(limit=5, change=lambda outcome: outcome._replace(versions={**outcome.versions, "numpy": "0.0"}))
    with pytest.raises(EngineError, match=r"a worker has numpy 0\.0, and this process \d.*: results would depend"):
        list(sweep(plan(), engine=other, out=tmp_path))
    assert other.stopped == 1
    with Folder(tmp_path, plan().facts) as folder:
        assert folder.read() == []
    old = Here(change=lambda outcome: outcome._replace(versions={}))
    with pytest.raises(EngineError, match="a worker has python None"):
        list(sweep(plan(), engine=old, out=tmp_path))
    assert (swept_to(tmp_path)[0], files_in(tmp_path)) == whole()


# ---------------------------------------------------------------------------------------------------- digests of works


def digests(*made: Study) -> set[str]:
    return {one.work.digest for one in made}


def test_works_that_differ_have_other_digests():
    made = [
        plan(),
        plan(grid=replace(SMALL, seed=4)),
        plan(grid=replace(SMALL, cells=(1, 5))),
        prepare([case(seed=1)], SMALL, FOUR, metric=DECIBELS),
        prepare([case(data=Dataset(images().inputs, images().labels[::-1]))], SMALL, FOUR),
        prepare([case()], SMALL, FOUR),
        prepare([case()], SMALL, FOUR, batch=32),
    ]
    assert len(digests(*made)) == len(made)


def test_metrics_of_one_name_make_other_works():
    """A worker of a cluster that lives on would go on with the first."""
    one, two = (prepare([case()], SMALL, FOUR, metric=("mine", found)) for found in (metrics.top1, metrics.agreement))
    assert len(digests(one, two)) == 2
