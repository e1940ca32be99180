"""Candidates cost what the manifest counts, and err as trials do."""

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import channels
from onnx_analog.coding.streams import DECODING
from onnx_analog.errors import OptionError
from onnx_analog.tuning.candidates import candidates, members
from tests.models import f32, holding

PCM = channels.resolve("pcm")
RNG = np.random.default_rng(0)
WEIGHT = f32(RNG.normal(size=(64, 96)) * RNG.gamma(2, size=(64, 1)))
PRUNED = np.where(np.abs(WEIGHT) > 1.5, WEIGHT, 0).astype(np.float32)


@pytest.mark.parametrize("decoding", DECODING)
@pytest.mark.parametrize("weight", [WEIGHT, PRUNED], ids=["dense", "pruned"])
def test_candidates_cost_what_the_manifest_counts(decoding, weight):
    """But for whole cells, and for blocks: those of a code are shortened once for each line of a manifest."""
    schemes = members(PCM, decoding)[::7]
    found = candidates(weight, schemes)
    assert found
    for candidate in found:
        counted = oa.protect(holding(w=weight), candidate.scheme).manifest
        lines = counted.honest
        slack = sum(1 if line.code != "bch" else 100 for line in lines)
        assert abs(counted.totals.honest_cells - candidate.cells) <= slack
        assert DECODING.index(counted.totals.decoding) <= DECODING.index(decoding)


@pytest.mark.parametrize("decoding", DECODING)
def test_there_are_rivals_and_others(decoding):
    kinds = {scheme.analog for scheme in members(PCM, decoding)}
    assert kinds == {"none", "all"}


def test_what_cannot_store_a_tensor_is_no_candidate():
    huge = f32([[1e-38, 3e38], [1, 2]])
    assert len(candidates(huge, members(PCM, "none"))) < len(members(PCM, "none"))


def test_an_unknown_decoding_is_refused():
    with pytest.raises(OptionError, match="decoding is 'ldpc'; it must be one of none, table, hard, soft"):
        members(PCM, "ldpc")
