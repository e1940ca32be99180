"""Warnings are in the results of what logged them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.heard import heard, with_warnings
from tests.models import QUIET, model

NET = """
    net (float[n, 40] x) => (float[n, 5] y) <float[40, 30] a = random, float[30, 5] b = random> {
        h = MatMul(x, a)
        r = Relu(h)
        y = MatMul(r, b)
    }"""
X = np.random.default_rng(0).normal(size=(200, 40)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 5, 200)
LOG = logging.getLogger("onnx_analog.somewhere")
UNUSED = "the plan's pattern nowhere* matches no selected tensor"


@dataclass(frozen=True)
class Result:
    warnings: tuple[str, ...] = ("its own",)


@with_warnings
def work() -> Result:
    LOG.info("no warning")
    LOG.warning("the %s", "first")
    LOG.warning("its own")
    LOG.warning("the first")
    return Result()


def test_a_result_has_its_own_warnings_and_those_that_were_logged_each_once():
    assert work().warnings == ("its own", "the first")
    LOG.warning("later")
    assert logging.getLogger("onnx_analog").handlers == []


def test_what_fails_hears_no_more():
    with pytest.raises(KeyError), heard():
        raise KeyError
    assert logging.getLogger("onnx_analog").handlers == []


def test_another_thread_is_not_heard():
    other = threading.Thread(target=LOG.warning, args=("elsewhere",))
    with heard() as texts:
        other.start()
        other.join()
        LOG.warning("here")
    assert list(texts) == ["here"]


@pytest.mark.parametrize("nested", ["oa.heard.heard()", "contextlib.nullcontext()"])
def test_a_warning_is_shown_once_as_if_nobody_listened(nested):
    """A handler would keep Python from showing warnings where no logging is set up."""
    code = (
        "import contextlib, logging, onnx_analog as oa, onnx_analog.heard\n"
        f"with oa.heard.heard() as texts, {nested}:\n"
        "    logging.getLogger('onnx_analog.a').warning('here')\n"
        "    logging.getLogger('onnx_analog.a').info('hidden')\n"
        "print(list(texts))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (shown.stdout, shown.stderr) == ("['here']\n", "here\n")


PLAN = oa.Plan(default=oa.Scheme(channel=QUIET), patterns={"nowhere*": None})
COMMON: dict[str, Any] = {"data": (X, Y), "plan": PLAN, "selection": oa.Selection(min_size=1)}


@pytest.mark.parametrize(
    "call",
    [
        lambda: oa.check(model(NET), max_drop=50, metric="agreement", **COMMON),
        lambda: oa.sensitivity(model(NET), trials=1, metric="agreement", **COMMON),
        lambda: oa.sweep(model(NET), strategy=[], trials=1, metric="agreement", engine="serial", **COMMON),
    ],
    ids=["check", "sensitivity", "sweep"],
)
def test_what_storing_warns_of_is_in_the_result(call):
    result = call()
    assert any(UNUSED in text for text in result.warnings)
    assert json.loads(json.dumps(result.to_dict()))["warnings"] == list(result.warnings)
    assert len(set(result.warnings)) == len(result.warnings)
    assert replace(result, warnings=()).to_dict()["warnings"] == []


def test_what_data_warn_of_is_in_an_evaluation():
    """That numbers are given in place of those that the model remembers, of which only the log told."""
    remembers = oa.remember(model(NET.replace("float[n, 40]", "float[n, 1, 8, 5]").replace("h = MatMul(x, a)", BODY)),
                            mean=0.5, std=0.5)  # fmt: skip
    images = np.random.default_rng(0).integers(256, size=(20, 1, 8, 5), dtype=np.uint8)
    evaluation = oa.evaluate(remembers, images, mean=0.25, std=0.5)
    assert any("the model remembers" in text for text in evaluation.warnings)


BODY = "s = Constant<value = int64[2] {-1, 40}>()\n f = Reshape(x, s)\n h = MatMul(f, a)"
