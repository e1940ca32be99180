"""Measurements of `tune` in other processes."""

from __future__ import annotations

import logging
import os
import pickle
import threading

import pytest

import onnx_analog as oa
from onnx_analog.channels import GaussianNoise
from onnx_analog.errors import ChannelError, EngineError, OptionError
from onnx_analog.study.engines.local import LocalEngine, SerialEngine
from onnx_analog.tuning import bench
from onnx_analog.tuning.bench import Call, Crew, quiet
from onnx_analog.tuning.journal import Journal
from tests.models import model
from tests.run.nets import rows
from tests.study.engines.small import Then, die, failing, first
from tests.study.engines.test_engines import assert_one_line

NET = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 32] b = 2 random,
            float[32, 16] c = 3 random> {
        h = MatMul(x, a)
        g = Relu(h)
        k = MatMul(g, b)
        y = MatMul(k, c)
    }"""
ASKED = {"budget": 6.0, "decoding": "none", "channel": "gaussian:sigma=0.1", "trials": 3}


def test_the_answer_does_not_depend_on_the_engine(tmp_path):
    data = rows(300).inputs["x"]
    here = oa.tune(model(NET), data, resume=tmp_path / "here.jsonl", **ASKED)
    there = oa.tune(
        model(NET), data, engine=oa.engines.build("local", workers=2), resume=tmp_path / "there.jsonl", **ASKED
    )
    assert here.to_dict() == there.to_dict()
    kept = [sorted((tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()) for name in ("here", "there")]
    assert kept[0] == kept[1]
    again = oa.tune(model(NET), data, resume=tmp_path / "there.jsonl", **ASKED)
    assert again.to_dict() == here.to_dict()


def tuned(engine, channel=None):
    """Return what a search of seconds finds."""
    given = ASKED if channel is None else {**ASKED, "channel": channel}
    return oa.tune(model(NET), rows(300).inputs["x"], engine=engine, **given).to_dict()


def troubled(then: Then) -> GaussianNoise:
    """Return a channel that does `then` in all processes but this one; it travels by value."""
    here = os.getpid()

    class Troubled(GaussianNoise):
        def std(self, level):
            if os.getpid() != here:
                then()
            return GaussianNoise.std(self, level)

    return Troubled(sigma=0.1)


def test_a_worker_that_is_killed_is_replaced_and_its_measurement_is_done_again(tmp_path):
    channel = troubled(first(1, tmp_path / "deaths", die()))
    assert tuned(LocalEngine(workers=2), channel) == tuned("serial", channel)
    assert (tmp_path / "deaths" / "0").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_workers_that_die_again_and_again_end_the_search_in_one_line(resume, tmp_path):
    path = tmp_path / "search.jsonl" if resume else None
    with pytest.raises(EngineError) as found:
        oa.tune(
            model(NET), rows(300).inputs["x"], resume=path, engine=LocalEngine(workers=2),
            **{**ASKED, "channel": troubled(die())},
        )  # fmt: skip
    kept = "What was measured is kept" if resume else "Nothing is kept without resume"
    assert_one_line(found.value, "a worker died", " in the ", kept, "run the same command again")


def test_what_a_measurement_raises_is_raised():
    """In a worker, which asks a channel of one's own for a few levels first: the error names the method."""
    with pytest.raises(ChannelError, match=r"Troubled: std failed with ChannelError: no such level$"):
        tuned(LocalEngine(workers=1), troubled(failing(ChannelError, "no such level")))


def test_an_engine_is_not_started_for_what_the_journal_knows():
    class Never(SerialEngine):
        def start(self, work):
            raise AssertionError("nothing is to be done")

    journal, told = Journal(None, {}), []
    journal.keep("a", 1.0)
    crew = Crew(Never(), None, None, calls=1, journal=journal)
    assert crew.measured([Call("a", "in a test", "draw", ())], tell=told.append) == [1.0]
    assert told == [1]
    with pytest.raises(AssertionError, match="nothing is to be done"):
        crew.measured([Call("b", "in a test", "draw", ())], tell=told.append)


def test_values_come_in_the_order_of_the_calls_whichever_ends_first():
    class Backwards(SerialEngine):
        @property
        def slots(self):
            return 3

        def next(self):
            return self._worker.do(self._queue.pop())

    class Echo:
        def do(self, call):
            return bench.Done(call.key, float(call.key), bench.versions())

    calls = [Call(str(number), "in a test", "draw", ()) for number in range(5)]
    assert Crew(Backwards(), Echo(), None, calls=5, journal=Journal(None, {})).found(calls) == [0, 1, 2, 3, 4]
    told = []
    crew = Crew(Backwards(), Echo(), None, calls=5, journal=Journal(None, {}))
    assert crew.measured(calls, tell=told.append) == [0, 1, 2, 3, 4]
    assert told == [0, 1, 2, 3, 4, 5]


def test_a_worker_of_other_versions_is_refused():
    class Old:
        def do(self, call):
            return bench.Done(call.key, 1.0, {**bench.versions(), "numpy": "1.0"})

    crew = Crew(SerialEngine(), Old(), None, calls=1, journal=Journal(None, {}))
    with pytest.raises(EngineError, match=r"a worker has numpy 1\.0, and this process"):
        crew.found([Call("a", "in a test", "draw", ())])


def test_a_call_whose_arguments_cannot_be_loaded_is_told():
    sent = pickle.loads(pickle.dumps(Call("a", "in a test", "draw", ("w", 1))))
    assert isinstance(sent.arguments, bytes)
    assert sent.unpacked() == ("w", 1)
    broken = Call("a", "in a test", "draw", b"cno_such_module\nname\n.")
    with pytest.raises(EngineError) as found:
        broken.unpacked()
    assert_one_line(found.value, "a worker cannot load its task", "no_such_module")


def test_another_engine_is_refused():
    with pytest.raises(OptionError, match="engine"):
        oa.tune(model(NET), rows(300).inputs["x"], engine="cloud", **ASKED)


def test_what_is_quiet_in_one_thread_is_heard_in_another(caplog):
    logger, inside, done = logging.getLogger("onnx_analog.passes.protect"), threading.Event(), threading.Event()

    def work() -> None:
        with quiet():
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(10)
    with quiet():  # ends before the other does
        logger.warning("not heard")
    logger.warning("heard")
    done.set()
    thread.join()
    logger.warning("heard again")
    assert caplog.messages == ["heard", "heard again"]
