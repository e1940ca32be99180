"""Candidates cost what the manifest counts, and err as trials do."""

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import channels
from onnx_analog.coding.compensation import InputMoments
from onnx_analog.coding.streams import DECODING
from onnx_analog.errors import OptionError
from onnx_analog.tuning.candidates import candidates, members
from tests.models import LOUD, QUIET, f32, holding

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


@pytest.mark.parametrize("compensated", [False, True])
@pytest.mark.parametrize("decoding", DECODING)
@pytest.mark.parametrize("weight", [WEIGHT, PRUNED], ids=["dense", "pruned"])
def test_candidates_cost_what_the_paper_counts(decoding, weight, compensated):
    schemes = members(PCM, decoding, compensated=compensated)[::9]
    for candidate in candidates(weight, schemes, counting="paper"):
        assert candidate.cells == oa.protect(holding(w=weight), candidate.scheme).manifest.totals.all_in_cells


def test_compensated_candidates_do_less_harm_where_inputs_are_correlated():
    """Four hidden numbers determine the 96 inputs but for some noise: most of the error can be cancelled."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4000, 4)) @ rng.normal(size=(4, 96)) + 0.05 * rng.normal(size=(4000, 96))
    second = f32(x.T @ x / 4000)[None]
    known = InputMoments(second=second, held_out=second, axes=(0, 1), samples=4000)
    schemes = [oa.Scheme.entropy_coded(step, channel=PCM, estimator="affine") for step in (0.5, 1.0, 2.0)]
    schemes.append(oa.Scheme.refined(1.0, channel=PCM))
    *plain, refined = candidates(WEIGHT, schemes)
    *better, same = candidates(WEIGHT, schemes, known)
    assert all(ours.error < theirs.error / 3 for ours, theirs in zip(better, plain, strict=True))
    assert same == refined  # which has cells


def test_the_error_of_a_compensated_candidate_is_in_the_unit_of_the_weights():
    """Of white inputs of any power, nothing is compensated, and the error is that of the weights."""
    scheme = oa.Scheme.entropy_coded(1.0, channel=PCM, estimator="affine")
    (plain,) = candidates(WEIGHT, [scheme])
    for power in (0.01, 5.0):
        white = power * np.eye(96, dtype=np.float32)[None]
        known = InputMoments(second=white, held_out=white, axes=(0, 1), samples=10**12)
        (found,) = candidates(WEIGHT, [scheme], known)
        assert found.error == pytest.approx(plain.error, rel=1e-5)


def test_wrong_bits_count_in_the_error_of_a_compensated_candidate():
    scheme = oa.Scheme.int4(channel=LOUD, code="none")
    white = np.eye(96, dtype=np.float32)[None]
    known = InputMoments(second=white, held_out=white, axes=(0, 1), samples=10**12)
    (found,), (plain,) = candidates(WEIGHT, [scheme], known), candidates(WEIGHT, [scheme])
    (coded,) = candidates(WEIGHT, [scheme.changed(channel=QUIET)], known)
    assert found.error == pytest.approx(plain.error, rel=0.05)
    assert found.error > 2 * coded.error


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
