import re

import pytest

from onnx_analog.cli import options
from onnx_analog.errors import EngineError, OptionError
from onnx_analog.study import engines
from onnx_analog.study.engines import base, dask_cluster, local, ray_cluster
from onnx_analog.study.engines.base import Engine, lost
from onnx_analog.study.engines.dask_cluster import DaskEngine
from onnx_analog.study.engines.local import LocalEngine, SerialEngine
from onnx_analog.study.engines.ray_cluster import RayEngine
from onnx_analog.study.worker import Task

KINDS = {"local": LocalEngine, "serial": SerialEngine, "dask": DaskEngine, "ray": RayEngine}


def assert_one_line(error: BaseException, *said: str) -> None:
    """Fail unless a message is one line, and says all that is asked for."""
    text = str(error)
    assert text
    assert "\n" not in text
    for words in said:
        assert words in text


@pytest.mark.parametrize("text", ["", "no engine\nis called x", "no engine is called y"])
def test_another_message_is_found(text):
    assert_one_line(OptionError("no engine is called x"), "called x")
    with pytest.raises(AssertionError):
        assert_one_line(ValueError(text), "called x")


# -------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", engines.ENGINES)
def test_an_engine_is_built_by_its_name(name):
    assert type(engines.build(name)) is KINDS[name]


def test_by_default_trials_are_computed_in_processes_of_this_machine():
    assert type(engines.build()) is LocalEngine


def test_the_command_line_offers_all_engines():
    assert set(options.ENGINES) == set(engines.ENGINES) == set(KINDS)


@pytest.mark.parametrize("name", ["", "Local", "spark", "dask "])
def test_a_name_that_is_none_is_refused_with_those_there_are(name):
    with pytest.raises(OptionError) as found:
        engines.build(name)
    assert_one_line(found.value, repr(name), ", ".join(engines.ENGINES))


OWN = {"workers": ("local", 2), "scheduler": ("dask", "tcp://host:8786"), "address": ("ray", "auto")}


@pytest.mark.parametrize("name", engines.ENGINES)
@pytest.mark.parametrize("option", OWN)
def test_an_option_is_for_one_engine(name, option):
    home, value = OWN[option]
    if name == home:
        engines.build(name, **{option: value})
        return
    with pytest.raises(OptionError) as found:
        engines.build(name, **{option: value})
    assert_one_line(found.value, option, home, name)


@pytest.mark.parametrize(
    ("name", "module", "package"), [("dask", dask_cluster, "distributed"), ("ray", ray_cluster, "ray")]
)
def test_a_package_that_is_missing_is_named_with_how_to_install_it(name, module, package, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "find_spec", asked.append)  # which returns None, as for what is not installed
    with pytest.raises(OptionError) as found:
        engines.build(name)
    assert_one_line(found.value, f"pip install 'onnx-analog[{name}]'")
    assert asked == [package]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("local", "workers"),
        ("local", "threads"),
        ("serial", "threads"),
        ("dask", "threads"),
        ("ray", "threads"),
    ],
)
def test_numbers_out_of_range_are_refused(name, option, wrong):
    with pytest.raises(OptionError) as found:
        engines.build(name, **{option: wrong})
    assert_one_line(found.value, option, str(wrong))


# ------------------------------------------------------------------------------------------- workers and threads


@pytest.mark.parametrize(
    ("cores", "tasks", "asked", "workers", "threads"),
    [
        (8, 100, {}, 8, 1),
        (8, 8, {}, 8, 1),
        (8, 3, {}, 3, 2),  # 3·2 of 8 cores: a third thread would be one too many
        (8, 1, {}, 1, 8),
        (1, 100, {}, 1, 1),
        (8, 0, {}, 1, 8),
        (8, 100, {"workers": 2}, 2, 4),
        (8, 1, {"workers": 2}, 2, 4),
        (2, 100, {"workers": 4}, 4, 1),
        (8, 100, {"threads": 3}, 8, 3),
        (8, 100, {"workers": 2, "threads": 1}, 2, 1),
    ],
)
def test_processes_of_this_machine_share_its_cores(cores, tasks, asked, workers, threads, monkeypatch):
    monkeypatch.setattr(local, "cpu_count", lambda: cores)
    engine = LocalEngine(**asked)
    assert engine.plan(tasks) == threads
    assert engine.slots == workers


def test_one_process_has_all_cores(monkeypatch):
    monkeypatch.setattr(local, "cpu_count", lambda: 8)
    assert (SerialEngine().plan(100), SerialEngine(threads=3).plan(100)) == (8, 3)
    assert SerialEngine().slots == 1


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_a_worker_of_a_cluster_has_one_thread_unless_more_are_asked_for(name):
    assert (engines.build(name).plan(100), engines.build(name, threads=3).plan(100)) == (1, 3)


# ----------------------------------------------------------------------------------------------------- the seam


@pytest.mark.parametrize("name", engines.ENGINES)
def test_an_engine_that_was_not_started_can_be_stopped(name):
    with engines.build(name) as engine:
        engine.stop()


class Stopped(Engine):
    """Counts how often it is stopped."""

    slots = 1
    times = 0

    def start(self, work):
        raise ZeroDivisionError

    submit = next = start  # type: ignore[assignment]  # whatever is asked of it

    def stop(self):
        self.times += 1


def test_an_engine_is_stopped_whatever_happens():
    engine = Stopped()
    with engine as entered:
        assert entered is engine
    assert engine.times == 1
    with pytest.raises(ZeroDivisionError), engine:
        engine.start(None)
    assert engine.times == 2


@pytest.mark.parametrize(("trials", "said"), [((3,), "trial 3."), ((3, 4, 5), "trials 3 to 5.")])
def test_a_task_that_is_lost_is_named_with_what_to_do(trials, said):
    error = lost(Task(2, trials, b""), "a worker died", "Completed trials are kept: run the same command again")
    assert type(error) is EngineError
    assert_one_line(error, "a worker died at point 2, " + said, "run the same command again")
    assert re.search(r"fewer workers|smaller batch", str(error))


def test_some_deaths_are_borne():
    assert base.DEATHS > 1
