"""What is said of corrections, and of integers, below tables of costs and of a read."""

from __future__ import annotations

import pytest

import onnx_analog as oa
from onnx_analog.cli.cost_tables import baseline_table, correction_note
from onnx_analog.graph.baselines import INTEGERS
from onnx_analog.graph.correction import Cost
from onnx_analog.graph.protected import open_protected
from onnx_analog.results import Perturbed
from tests.models import model
from tests.run.nets import LINEAR


@pytest.fixture(scope="module")
def protected():
    return oa.protect(model(LINEAR), integers=4)


def test_a_note_says_what_a_correction_takes(protected):
    manifest, numbers = protected.manifest, protected.correction.numbers
    added = manifest.of_correction(numbers)["memory"]
    note = correction_note(manifest, protected)
    assert numbers > 0
    assert note == (
        f"A correction by samples is not included: its {numbers} numbers take {added:.3f} cells per original weight "
        f"more, {manifest.per_weight('memory', numbers):.3f} in all, as the memory allows"
    )


def test_a_note_without_the_model_or_of_one_that_was_read_says_what_to_give(protected):
    manifest = protected.manifest
    assert "give the model in place of its manifest" in correction_note(manifest, None)
    read = oa.readback(protected, seed=0)
    assert "give the model as it was protected" in correction_note(manifest, open_protected(read.model))


def test_integers_are_said_to_be_held_without_errors(protected):
    caption = str(baseline_table(protected.manifest).caption)
    assert caption.lower().endswith(INTEGERS.lower())


def test_a_read_says_what_corrected_it():
    given = {"model": model(LINEAR), "seed": 3, "trial": 1, "decoded": False}
    plain = "protected model as read from noisy cells: seed 3, trial 1"
    assert str(Perturbed(**given)) == plain
    read = Perturbed(**given, correction=Cost(2, 96), corrected_by="60 samples")
    assert str(read) == f"{plain}; corrected: gain and shift of 2 layers, by 60 samples; 96 numbers kept"
