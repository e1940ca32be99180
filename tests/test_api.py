import copy
import functools
import hashlib
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnx_analog as oa
from onnx_analog import _tune, channels
from onnx_analog.arguments import MOST_READBACKS
from onnx_analog.channels import GaussianNoise
from onnx_analog.channels.empirical import EmpiricalChannel
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.channels.pcm import pcm
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.coding.scheme import PRESETS, STRATEGIES, Preset
from onnx_analog.errors import ChannelError, ModelError, NothingToStore, OptionError, OutputError
from onnx_analog.graph import files
from onnx_analog.graph.stored import COMMAND_KEY, MANIFEST_KEY, SOURCE_KEY, stored_tensors
from onnx_analog.graph.weights import Selection, find
from onnx_analog.run import metrics
from onnx_analog.run.data import Dataset
from onnx_analog.study.engines.local import SerialEngine
from onnx_analog.study.stopping import Stopping
from tests.models import (
    QUIET,
    decode_bound,
    f32,
    feeds,
    holding,
    made,
    made_proto,
    model,
    numbers,
    proto,
    run,
    same_bits,
    serialized,
)

FOUR_BITS = Modifiers(read_bits=4)
WIDE = "net (float[4, 80] x) => (float[4, 100] y) <float[80, 100] w = random> { y = MatMul(x, w) }"


def protected(plain: Any, **options: Any) -> ir.Model:
    return oa.protect(plain, **{"channel": QUIET, **options}).model


def inputs(plain: ir.Model) -> Dataset:
    return Dataset(feeds(plain)[0], None)


def bare(found: ir.Model) -> bytes:
    """Return the bytes of a model without what tells where it came from."""
    for key in (SOURCE_KEY, COMMAND_KEY, MANIFEST_KEY):
        found.metadata_props.pop(key, None)
    return serialized(found)


def saved(found: ir.Model, folder: Path) -> Path:
    path = folder / "model.onnx"
    files.write_model(found, path)
    return path


# -------------------------------------------------------------------------------- a path, a proto or a model

OF_PLAIN = {
    "protect": lambda given: bare(protected(given, sparsity=0.5)),
    "prune": lambda given: bare(oa.prune(given, sparsity=0.5).model),
    "inspect": lambda given: oa.inspect(given).to_dict(),
    "remember": lambda given: bare(oa.remember(given, mean=0.5, std=0.5).model),
    "evaluate": lambda given: {**oa.evaluate(given, inputs(made("function"))).to_dict(), "model": None},
    "evaluate a reference": lambda given: oa.evaluate(
        protected(made("function")), inputs(made("function")), trials=1, reference=given
    ).to_dict(),
}
OF_PROTECTED = {
    "readback": lambda given: bare(oa.readback(given, trial=2).model),
    "readback, decoded": lambda given: bare(oa.readback(given, decoded=True).model),
    "readback, another channel": lambda given: bare(oa.readback(given, channel=GaussianNoise(sigma=0.2)).model),
    "readbacks": lambda given: [bare(found.model) for found in oa.readbacks(given, trials=2)],
    "account": lambda given: oa.account(given).to_dict(),
    "inspect": lambda given: oa.inspect(given).to_dict(),
    "evaluate": lambda given: {**oa.evaluate(given, inputs(made("function")), trials=2).to_dict(), "model": None},
}


@pytest.mark.parametrize("call", [*OF_PLAIN.values(), *OF_PROTECTED.values()], ids=[*OF_PLAIN, *OF_PROTECTED])
def test_each_takes_a_path_a_proto_or_a_model_and_changes_none(call, tmp_path):
    found = made("function") if call in OF_PLAIN.values() else protected(made("function"))
    before = serialized(found)
    path, proto = saved(found, tmp_path), ir.to_proto(found)
    written = path.read_bytes()
    results = [call(given) for given in (path, str(path), proto, found)]
    assert all(result == results[0] for result in results)
    assert serialized(found) == serialized(proto) == before
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"model.onnx": written}


def test_what_is_returned_shares_nothing_that_can_be_changed():
    plain = made("gemm")
    before = serialized(plain)
    for found in (oa.prune(plain, sparsity=0.0).model, protected(plain)):
        found.graph.name = "another"
        found.metadata_props["mine"] = "yes"
        found.graph[-1].name = "renamed"
    assert serialized(plain) == before


# ----------------------------------------------------------------------------------------------- the same bytes


def test_the_same_call_gives_the_same_bytes():
    assert len({serialized(protected(made("if"))) for _ in range(2)}) == 1
    found = protected(made("if"))
    assert len({serialized(oa.readback(found, seed=5, trial=1).model) for _ in range(2)}) == 1


def test_another_seed_or_trial_gives_other_bytes():
    found = protected(made("matmul"))
    given = [{"seed": 0, "trial": 0}, {"seed": 1, "trial": 0}, {"seed": 0, "trial": 1}]
    # The levels are compared, and not the metadata, which name seed and trial.
    read = [stored_tensors(oa.readback(found, **one).model)[0].level.tobytes() for one in given]
    assert len(set(read)) == 3


def test_a_file_has_the_same_bytes_for_the_same_seed(tmp_path):
    found = protected(made("matmul"))
    for name in ("a", "b"):
        oa.readback(found, seed=7).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "options", [{}, {"decoded": True}, {"channel": "gaussian:sigma=0.3"}, {"modifiers": FOUR_BITS}]
)
def test_readbacks_are_the_trials_from_0_on(options):
    found = protected(made("matmul"))
    several = list(oa.readbacks(found, seed=3, trials=3, **options))
    assert [(one.seed, one.trial, one.decoded) for one in several] == [
        (3, trial, options.get("decoded", False)) for trial in range(3)
    ]
    for trial, one in enumerate(several):
        assert serialized(one.model) == serialized(oa.readback(found, seed=3, trial=trial, **options).model)


def test_no_trials_give_no_models():
    assert list(oa.readbacks(protected(made("matmul")), trials=0)) == []


def test_readbacks_are_as_many_as_the_command_line_writes():
    found = protected(made("matmul"))
    assert len(list(zip(range(2), oa.readbacks(found, trials=MOST_READBACKS), strict=False))) == 2
    with pytest.raises(OptionError, match="trials is 10001; it must be from 0 to 10,000"):
        oa.readbacks(found, trials=MOST_READBACKS + 1)


# ------------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("as_text", [False, True])
def test_a_model_is_saved_whole(as_text, tmp_path):
    found, path = oa.protect(made("gemm"), channel=QUIET), tmp_path / "out.onnx"
    found.save(str(path) if as_text else path)
    assert serialized(files.load(path)) == serialized(found.model)
    assert oa.account(path) == found.manifest
    assert [file.name for file in tmp_path.iterdir()] == ["out.onnx"]


def test_what_is_there_is_replaced_only_by_force(tmp_path):
    path = tmp_path / "out.onnx"
    path.write_text("mine")
    pruned = oa.prune(made("gemm"), sparsity=0.5)
    with pytest.raises(OutputError, match="already exists: replace it with force=True"):
        pruned.save(path)
    assert path.read_text() == "mine"
    pruned.save(path, force=True)
    assert serialized(files.load(path)) == serialized(pruned.model)


@pytest.mark.parametrize("there", [False, True])
def test_a_model_that_cannot_be_written_whole_is_not_written(there, tmp_path, monkeypatch):
    def half(found, path):
        path.write_bytes(serialized(found)[:100])
        raise OSError(28, "No space left on device")

    path = tmp_path / "out.onnx"
    if there:
        path.write_text("mine")
    monkeypatch.setattr(files, "write_model", half)
    with pytest.raises(OutputError, match="No space left on device"):
        oa.prune(made("gemm"), sparsity=0.5).save(path, force=True)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"] * there


# ---------------------------------------------------------------------------------------------------- presets


@pytest.mark.parametrize(
    ("options", "granularity", "large"),
    [
        # of 8,000 weights 0.05 is 400 and 0.0025 is 20
        ({}, "tensor", 400),
        ({"preset": "default"}, "tensor", 400),
        ({"preset": "isik2020"}, "model", 20),
        ({"preset": "isik2020", "granularity": "tensor"}, "tensor", 20),
        ({"preset": "isik2020", "large_fraction": 0.05}, "model", 400),
        ({"preset": "isik2020", "large_fraction": 0.0}, "model", 0),
        ({"preset": "isik2020", "granularity": "tensor", "large_fraction": 0.1}, "tensor", 800),
        ({"granularity": "model"}, "model", 400),
        ({"large_fraction": 0.01}, "tensor", 80),
        ({"large_fraction": 1.0}, "tensor", 8000),
    ],
)
def test_a_preset_is_overridden_one_by_one(options, granularity, large):
    found = oa.protect(model(WIDE), channel=QUIET, **options).manifest
    assert (found.schemes[0].granularity, [entry.count for entry in found.tensors[0].classes]) == (
        granularity,
        [8000 - large, large],
    )


@pytest.mark.parametrize("preset", ["default", "isik2020"])
def test_a_threshold_takes_the_place_of_the_preset_s_fraction(preset):
    plain = model(WIDE)
    above = int((np.abs(numbers(plain, "w")) > np.float32(0.3)).sum())
    (entry,) = oa.protect(plain, channel=QUIET, preset=preset, threshold=0.3).manifest.tensors
    assert entry.classes[1].count == above
    assert 400 < above < 8000  # neither preset's


@pytest.mark.parametrize("fraction", [0.0, 0.05])
def test_threshold_and_large_fraction_exclude_each_other(fraction):
    with pytest.raises(OptionError, match="threshold and large_fraction exclude each other"):
        oa.protect(made("matmul"), threshold=0.3, large_fraction=fraction)


def test_a_preset_that_is_not_there_is_refused_by_name():
    with pytest.raises(OptionError) as caught:
        oa.protect(made("matmul"), preset="isik")
    assert str(caught.value) == "preset is 'isik'; choose from default, isik2020"


def test_the_options_of_protect_reach_the_model():
    given = {"cells_small": 2, "cells_large": 7, "side_bits_per_cell": 4, "strategy": "redundancy"}
    side = {"side_channel": "gaussian:sigma=0.01", "side_cells": 3, "side_copies": 5}
    found = oa.protect(made("two scales"), channel="gaussian:sigma=0.2", **given, **side).manifest
    (scheme,) = found.schemes
    assert scheme == oa.Scheme.paper(**given, channel="gaussian:sigma=0.2", **side)
    assert (scheme.side_bits_per_cell, scheme.channel.sigma) == (4, 0.2)
    assert [[entry.cells for entry in tensor.classes] for tensor in found.tensors] == [[2, 7]] * 2
    assert (scheme.side_channel.sigma, scheme.side_cells, scheme.side_copies) == (0.01, 3, 5)


def test_only_what_is_selected_is_pruned_and_stored():
    selection = oa.Selection(exclude=("^a$",))
    for found in (
        protected(made("two scales"), selection=selection, sparsity=0.5),
        oa.prune(made("two scales"), sparsity=0.5, selection=selection).model,
    ):
        assert same_bits([numbers(found, "a")], [numbers(made("two scales"), "a")])
    assert [row["key"] for row in oa.inspect(made("two scales"), selection=selection).rows if not row["reason"]] == [
        "b"
    ]


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_protecting_prunes_first_if_asked(scope):
    found = protected(made("two scales"), sparsity=0.5, prune_scope=scope)
    pruned = oa.prune(made("two scales"), sparsity=0.5, prune_scope=scope).model
    assert bare(found) == bare(protected(pruned))
    kept = [tensor.count for tensor in stored_tensors(found)]
    assert sum(kept) == (256 + 512) // 2
    assert (kept == [128, 256]) is (scope == "tensor")


def test_nothing_is_pruned_unless_asked():
    (entry,) = oa.protect(made("matmul"), channel=QUIET).manifest.tensors
    assert (entry.stored, entry.original) == (256, 256)


# -------------------------------------------------------------------------------------------------- modifiers


def test_modifiers_change_the_channel_that_is_kept():
    found = oa.protect(made("matmul"), channel=QUIET, modifiers=FOUR_BITS)
    assert found.manifest.schemes[0].channel.family == "precision"
    expected = oa.protect(made("matmul"), channel=LimitedPrecision(inner=QUIET, read_bits=4))
    assert serialized(found.model) == serialized(expected.model)


def test_modifiers_change_the_channel_that_reads():
    found, other = protected(made("matmul")), LimitedPrecision(inner=QUIET, read_bits=4)
    changed = oa.readback(found, modifiers=FOUR_BITS)
    assert serialized(changed.model) == serialized(oa.readback(found, channel=other).model)
    assert serialized(changed.model) != serialized(oa.readback(found).model)
    data = inputs(made("matmul"))
    values = [
        oa.evaluate(found, data, trials=2, **way).sqnr_db for way in ({"modifiers": FOUR_BITS}, {"channel": other})
    ]
    assert values[0] == values[1] != oa.evaluate(found, data, trials=2).sqnr_db


def test_modifiers_change_a_channel_that_is_given_too():
    found, loud = protected(made("matmul")), GaussianNoise(sigma=0.3)
    both = oa.readback(found, channel="gaussian:sigma=0.3", modifiers=FOUR_BITS)
    expected = oa.readback(found, channel=LimitedPrecision(inner=loud, read_bits=4))
    assert serialized(both.model) == serialized(expected.model)


def test_residuals_as_measured_are_chosen_by_a_modifier():
    found = oa.protect(made("matmul"), channel="pcm", modifiers=Modifiers(residuals="empirical"))
    expected = oa.protect(made("matmul"), channel=EmpiricalChannel(table=pcm()))
    assert serialized(found.model) == serialized(expected.model)


def test_a_modifier_that_does_not_apply_is_refused():
    with pytest.raises(ChannelError, match="does not change with time"):
        oa.protect(made("matmul"), channel=QUIET, modifiers=Modifiers(read_after_s=1.0))
    with pytest.raises(ChannelError, match="does not change with time"):
        oa.readback(protected(made("matmul")), modifiers=Modifiers(read_after_s=1.0))


@pytest.mark.parametrize("options", [{"channel": QUIET}, {"modifiers": FOUR_BITS}])
def test_a_plain_model_is_read_by_no_channel(options):
    with pytest.raises(ModelError, match="is not protected"):
        oa.evaluate(made("matmul"), inputs(made("matmul")), **options)


@pytest.mark.parametrize("samples", [0, -1])
def test_samples_are_1_or_more(samples):
    with pytest.raises(OptionError, match=f"samples is {samples}; it must be 1 or more"):
        oa.evaluate(made("matmul"), inputs(made("matmul")), samples=samples)


def test_one_sample_is_enough():
    assert oa.evaluate(made("matmul"), inputs(made("matmul")), samples=1).samples == 1


@pytest.mark.parametrize("call", [oa.account, oa.readback, lambda given: list(oa.readbacks(given, trials=1))])
def test_a_plain_model_is_not_read_back(call):
    with pytest.raises(ModelError, match=r"^the model is not protected: protect it first$"):
        call(made("matmul"))


def test_a_model_without_weights_is_refused():
    plain = model("net (float[2] x) => (float[2] y) { y = Relu(x) }")
    for call in (oa.protect, lambda given: oa.prune(given, sparsity=0.5)):
        with pytest.raises(NothingToStore):
            call(plain)


# ------------------------------------------------------------------------------------------------ provenance


@pytest.mark.parametrize("as_text", [False, True])
def test_the_file_and_the_command_are_kept(as_text, tmp_path):
    path = saved(made("gemm"), tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = oa.protect(str(path) if as_text else path, channel=QUIET, command="onnx-analog protect 'my model'")
    assert (found.manifest.source_sha256, found.manifest.command) == (digest, "onnx-analog protect 'my model'")
    assert json.loads(found.model.metadata_props[MANIFEST_KEY])["source_sha256"] == digest
    found.save(tmp_path / "out.onnx")
    assert oa.account(tmp_path / "out.onnx") == found.manifest


@pytest.mark.parametrize("given", [made("gemm"), made_proto("gemm")], ids=["model", "proto"])
def test_a_model_in_memory_has_no_file(given):
    found = oa.protect(given, channel=QUIET)
    assert (found.manifest.source_sha256, found.manifest.command) == (None, None)
    assert {SOURCE_KEY, COMMAND_KEY}.isdisjoint(found.model.metadata_props)


def test_the_manifest_is_the_account_of_the_model():
    found = oa.protect(made("two scales"), channel=QUIET, sparsity=0.25)
    assert oa.account(found.model) == found.manifest
    assert json.loads(found.model.metadata_props[MANIFEST_KEY]) == json.loads(found.manifest.to_json())


# ---------------------------------------------------------------------------------------------- what is printed


def test_what_is_returned_prints_as_a_line():
    stored = oa.protect(made("matmul"), channel=QUIET, large_fraction=0.25)
    texts = {
        # 192 small and 64 large weights; a header of 2 bits each, and 64·2 bits of codebook, 2 bits a cell
        str(stored): "256 of 256 weights in 1,472 analog cells (r_avg 5.750); "
        "all-in 1,792 cells, 7.000 per original weight; as the memory allows, "
        f"{stored.manifest.totals.honest_cells / 256:.3f}",
        str(oa.prune(made("matmul"), sparsity=0.5)): "128 of 256 weights are zero (50.0 %)",
        str(oa.readback(stored.model, seed=3, trial=2)): "protected model as read from noisy cells: seed 3, trial 2",
        str(oa.readback(stored.model, decoded=True)): "plain weights as read from noisy cells: seed 0, trial 0",
    }
    assert list(texts) == list(texts.values())


def test_zeros_are_counted_where_a_whole_tensor_became_zero():
    small, large = f32(np.linspace(0.01, 0.02, 256).reshape(16, 16)), f32(np.linspace(1, 2, 256).reshape(16, 16))
    found = oa.prune(holding(a=small, b=large), sparsity=0.5)
    assert same_bits([numbers(found.model, "a"), numbers(found.model, "b")], [np.zeros_like(small), large])
    assert (found.zeros, found.weights) == (256, 512)


def test_a_model_that_became_all_zero_prints_too():
    assert str(oa.prune(made("matmul"), sparsity=0.999)) == "256 of 256 weights are zero (100.0 %)"


def test_zeros_that_were_there_are_counted():
    weight = f32(np.eye(16))
    assert str(oa.prune(holding(w=weight), sparsity=0.0)) == "240 of 256 weights are zero (93.8 %)"


# ---------------------------------------------------------------------------------------------------- inspect

CONV = """
    net (float[2, 4, 6, 6] x) => (float[2, 8, 6, 6] y)
    <float[8, 4, 3, 3] w = random, float[8] b = random, int64[300] many = {%s}, float[4, 4] few = random> {
        y = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    }""" % ", ".join(["7"] * 300)  # noqa: UP031 - braces are ONNX
NORMALISED = """
    net (float[2, 4, 6, 6] x) => (float[2, 8, 6, 6] y)
    <float[8, 4, 3, 3] w = random, float[8] s = random, float[8] t = random, float[8] m = random,
     float[8] v = {1, 1, 1, 1, 1, 1, 1, 1}> {
        a = Conv <pads = [1, 1, 1, 1]> (x, w)
        y = BatchNormalization (a, s, t, m, v)
    }"""
IN_FUNCTION = """
    <ir_version: 10, opset_import: ["" : 18, "local" : 1]>
    net (float[2, 4, 6, 6] x, float[8] s, float[8] t, float[8] m, float[8] v) => (float[2, 8, 6, 6] y) {
        y = local.block(x, s, t, m, v)
    }
    <domain: "local", opset_import: ["" : 18]>
    block (x, s, t, m, v) => (y) {
        w = Constant <value = float[8, 4, 3, 3] random> ()
        a = Conv <pads = [1, 1, 1, 1]> (x, w)
        y = BatchNormalization (a, s, t, m, v)
    }"""


@pytest.mark.parametrize(
    ("text", "nodes", "said"),
    [
        (NORMALISED, (1, 1), "separate (1 node)"),
        (IN_FUNCTION, (1, 1), "separate (1 node)"),
        (CONV, (0, 1), "folded into the convolutions, so granularity tensor (the default) or channel fits"),
        (WIDE, (0, 0), "none, and no convolution"),
    ],
    ids=["apart", "apart in a function", "folded", "no convolution"],
)
def test_it_is_said_whether_batch_norm_is_folded(text, nodes, said):
    found = oa.inspect(model(text))
    assert (found.batch_norms, found.convolutions) == nodes
    assert said in found.batch_norm
    assert found.to_dict()["batch_norm"] == {"nodes": nodes[0], "convolutions": nodes[1], "text": found.batch_norm}


@pytest.mark.parametrize("name", ["conv", "conv transpose"])
def test_transposed_convolutions_are_convolutions(name):
    assert oa.inspect(made(name)).convolutions == 1


def test_what_is_skipped_is_said_and_why():
    found = oa.inspect(model(CONV), selection=oa.Selection(min_size=100))
    reasons = {row["key"]: row["reason"] for row in found.rows}
    assert reasons == {
        "w": None,
        "b": "rank 1, below 2",
        "many": "INT64, not a float of 16 to 64 bits",
        "few": "16 elements, below 100",
    }
    body = json.loads(json.dumps(found.to_dict()))
    assert [row["key"] for row in body["stored"]] == ["w"]
    assert [row["key"] for row in body["skipped"]] == ["b", "many", "few"]


def far_apart() -> ir.Model:
    weight = f32(np.random.default_rng(0).normal(size=(16, 16)))
    wide = weight.copy()
    wide[3, 4] = 1e10
    return holding(a=weight, b=wide, c=weight * np.float32(1e-9))


def test_what_would_drown_is_said_in_advance(caplog):
    reasons = {row["key"]: row["reason"] for row in oa.inspect(far_apart()).rows if "x" not in row["key"]}
    assert caplog.messages == []
    kept = stored_tensors(protected(far_apart(), channel="pcm"))
    assert {key for key, reason in reasons.items() if reason is None} == {tensor.key for tensor in kept} == {"a", "c"}
    assert caplog.messages == [f"b stays digital: {reasons['b']}"]
    assert reasons["b"].startswith("its weights, up to 1e+10, lie too far apart: small ones decode off by up to ")
    (row,) = (row for row in oa.inspect(far_apart()).to_dict()["skipped"] if row["key"] == "b")
    assert row["reason"] == reasons["b"]


def test_a_protected_model_is_inspected_as_it_is():
    assert [row["reason"] for row in oa.inspect(protected(far_apart(), channel="pcm")).rows] == [None, None]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cells_small": 3, "cells_large": 2}, "cells_large is 2, below cells_small, 3: large weights get fewer cells"),
        ({"cells_small": 21}, "cells_large is 20, below cells_small, 21: large weights get fewer cells"),
    ],
)
def test_numbers_of_cells_that_cannot_be_meant_are_questioned(options, said, caplog):
    oa.protect(made("matmul"), channel=QUIET, **options)
    (message,) = caplog.messages
    assert message.startswith(said)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cells_small": 1, "cells_large": 20},
        {"cells_small": 5, "cells_large": 5},
        {"strategy": "raw"},
        {"strategy": "raw", "cells_small": 30},
        {"strategy": "sign", "cells_small": 30, "cells_large": 30},
    ],
)
def test_other_numbers_of_cells_are_not(options, caplog):
    oa.protect(made("matmul"), channel=QUIET, **options)
    assert caplog.messages == []


def test_a_weight_with_an_outer_name_is_read_back_in_either_form():
    plain = model("""
        net (float[4, 16] x, bool c) => (float[4, 16] y) <float[16, 16] k = random> {
            h = MatMul(x, k)
            y = If (c) <
                then_branch = yes () => (float[4, 16] t) <float[16, 16] k = random> { t = MatMul(h, k) },
                else_branch = no () => (float[4, 16] e) { e = Identity(h) }
            >
        }""")
    found = oa.protect(plain, channel=QUIET)
    assert [tensor.key for tensor in stored_tensors(found.model)] == ["k", "y.then_branch/k"]
    outputs = [run(oa.readback(found.model, decoded=decoded).model, feeds(plain)[0]) for decoded in (False, True)]
    assert same_bits(*outputs)


def test_a_weight_is_described():
    plain = made("tied through transpose")
    (row,) = oa.inspect(plain).rows
    assert row == {
        "name": "w",
        "key": "w",
        "shape": [16, 32],
        "dtype": "FLOAT",
        "weights": 512,
        "used_by": ["MatMul", "MatMul"],
        "largest": float(np.abs(numbers(plain, "w")).max()),
        "subnormal": 0,
        "reason": None,
    }


def test_versions_are_said():
    found = oa.inspect(made("opset 11"))
    assert (found.opset, found.ir_version, found.protected) == (11, 6, False)


@pytest.mark.parametrize("name", ["gemm", "if", "function", "tied through transpose", "float16"])
def test_a_protected_model_is_described_as_the_plain_one(name):
    plain, found = made(name), protected(made(name))
    before = [row for row in oa.inspect(plain).rows if row["reason"] is None]
    after = oa.inspect(found)
    assert after.protected
    bounds = {
        tensor.key: decode_bound(tensor, weight.array(), QUIET.span).max()
        for tensor, weight in zip(stored_tensors(found), find(plain).weights, strict=True)
    }
    for old, new in zip(before, after.rows, strict=True):
        assert abs(old.pop("largest") - new.pop("largest")) <= bounds[old["key"]]
        assert new == old


def test_text_is_a_path():
    with pytest.raises(ModelError, match="there is no file 'model'"):
        oa.inspect("model")


# ------------------------------------------------------------------------------------------------------ sweep

TWO = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 16] b = 2 random> {
        h = MatMul(x, a)
        y = MatMul(h, b)
    }"""
SMALL: dict[str, Any] = {
    "strategy": ("sign", "redundancy"),
    "cells": (1, 4),
    "channel": (QUIET,),
    "trials": 2,
    "engine": "serial",  # processes take seconds to start
}
ONE: dict[str, Any] = {**SMALL, "strategy": ("sign",), "cells": (1,)}


def images(count: int = 60) -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset({"x": rng.normal(size=(count, 16)).astype(np.float32)}, rng.integers(16, size=count))


def alone(plain: Any, strategy: str, cells: int, large: int, **options: Any) -> tuple[float, ...]:
    """Return the values of two trials of one point."""
    protecting = {name: options.pop(name) for name in ("selection", "channel", "sparsity") if name in options}
    found = protected(plain, strategy=strategy, cells_small=cells, cells_large=large, **protecting)
    return oa.evaluate(found, options.pop("data", None) or images(), **{"trials": 2, **options}).values


@pytest.mark.parametrize("kind", ["str", "Path", "ModelProto", "ir.Model", "list of str", "tuple of ir.Model"])
def test_a_sweep_takes_whatever_a_model_is(kind, tmp_path):
    path = saved(model(TWO), tmp_path)
    given = {"str": str(path), "Path": path, "ModelProto": ir.to_proto(model(TWO)), "ir.Model": model(TWO)}
    given |= {"list of str": [str(path)], "tuple of ir.Model": (model(TWO),)}
    found = oa.sweep(given[kind], images(), **SMALL)
    assert [(point.strategy, point.cells) for point in found.points] == [
        ("sign", 1), ("sign", 4), ("redundancy", 1), ("redundancy", 4),
    ]  # fmt: skip
    for point in found.points:
        cells = point.cells, point.cells * (20 if point.strategy == "redundancy" else 1)
        assert point.evaluation.values == alone(model(TWO), point.strategy, *cells)
    assert {point.model for point in found.points} == {"model" if "str" in kind or kind == "Path" else "model0"}


def test_several_models_are_swept_one_after_another(tmp_path):
    path = saved(model(TWO), tmp_path)
    found = oa.sweep([path, model(TWO, seed=1), ir.to_proto(model(TWO, seed=2))], images(), **ONE)
    assert [point.model for point in found.points] == ["model", "model1", "model2"]
    for seed, point in enumerate(found.points):
        assert point.evaluation.values == alone(model(TWO, seed=seed), "sign", 1, 1)


def test_two_files_of_one_name_are_refused(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    paths = [saved(model(TWO), tmp_path / name) for name in ("one", "two")]
    with pytest.raises(OptionError, match="two models are called 'model': rename one"):
        oa.sweep(paths, images(), **ONE)


def test_a_sweep_changes_no_model():
    plain = model(TWO)
    before = serialized(plain)
    oa.sweep(plain, images(), sparsity=0.5, **ONE)
    assert serialized(plain) == before


@pytest.mark.parametrize("prune_scope", ["tensor", "model"])
def test_a_sweep_of_a_sparsity_is_that_of_the_pruned_model(prune_scope):
    found = oa.sweep(model(TWO), images(), sparsity=0.6, prune_scope=prune_scope, **SMALL)
    pruned = oa.prune(model(TWO), sparsity=0.6, prune_scope=prune_scope).model
    original = oa.evaluate(model(TWO), images()).original
    for point, other in zip(found, oa.sweep(pruned, images(), **SMALL), strict=True):
        assert (point.setting, point.totals, point.evaluation.original) == (other.setting, other.totals, original)
        assert (point.evaluation.stored, point.evaluation.values) == (other.evaluation.stored, other.evaluation.values)
    assert {point.totals.original_weights for point in found.points} == {512}
    assert all(point.totals.stored_weights < 300 for point in found.points)


def test_only_what_is_selected_is_pruned():
    selection = Selection(exclude=("b",))
    (point,) = oa.sweep(model(TWO), images(), sparsity=0.5, selection=selection, **ONE).points
    pruned = oa.prune(model(TWO), sparsity=0.5, selection=selection).model
    assert point.evaluation.values == alone(pruned, "sign", 1, 1, selection=selection)
    assert (point.totals.stored_weights, point.totals.original_weights) == (128, 256)


# -------------------------------------------------------------------------------------------- options of a sweep


def test_grids_have_all_strategies_and_seven_numbers_of_cells_unless_told_otherwise():
    found = oa.sweep(model(TWO), images(), channel=(QUIET,), trials=0, engine="serial")
    assert [(point.strategy, point.cells) for point in found.points] == [
        (strategy, cells) for strategy in STRATEGIES for cells in (1, 2, 3, 5, 10, 20, 30)
    ]
    assert {point.setting.preset for point in found.points} == {PRESETS["default"]}
    factors = {(point.strategy, point.setting.cells_large // point.cells) for point in found.points}
    assert factors == {("raw", 1), ("sign", 1), ("mapping", 1), ("redundancy", 20)}


def test_the_default_channel_is_that_of_protect():
    (point,) = oa.sweep(model(TWO), images(), strategy=("sign",), cells=(1,), trials=0).points
    assert point.setting.plan.schemes[0].channel == oa.protect(model(TWO)).plan.schemes[0].channel
    assert str(point.setting.channel) == channels.DEFAULT


@pytest.mark.parametrize(
    ("options", "presets"),
    [
        ({"preset": ("default", "isik2020")}, list(PRESETS.values())),
        ({"preset": ("isik2020",)}, [PRESETS["isik2020"]]),
        ({"granularity": "model"}, [Preset(granularity="model", large_fraction=0.05)]),
        ({"large_fraction": 0.0}, [Preset(granularity="tensor", large_fraction=0.0)]),
        ({"preset": ("isik2020",), "granularity": "tensor"}, [Preset(granularity="tensor", large_fraction=0.0025)]),
    ],
)
def test_a_scope_and_a_fraction_replace_those_of_a_preset(options, presets):
    found = oa.sweep(model(TWO), images(), **{**ONE, "strategy": ("redundancy",), "trials": 0, **options})
    assert [point.setting.preset for point in found.points] == presets


def test_channels_are_named_or_given_and_all_are_changed():
    found = oa.sweep(
        model(TWO), images(), modifiers=FOUR_BITS, **{**ONE, "channel": ("gaussian:sigma=0.3", QUIET), "trials": 0}
    )
    inner = (channels.resolve("gaussian:sigma=0.3"), QUIET)
    assert [point.setting.channel for point in found.points] == [FOUR_BITS.apply(one) for one in inner]
    assert all(isinstance(point.setting.channel, LimitedPrecision) for point in found.points)


def test_a_large_factor_is_used():
    (point,) = oa.sweep(model(TWO), images(), **{**ONE, "strategy": ("redundancy",)}, large_factor=7).points
    assert point.evaluation.values == alone(model(TWO), "redundancy", 1, 7)
    assert point.totals.analog_cells == 2 * (243 + 13 * 7)  # of each tensor's 256 weights 13 are large


def test_trials_and_seed_are_those_of_evaluate():
    (point,) = oa.sweep(model(TWO), images(), **{**ONE, "trials": 5}, seed=9).points
    assert point.evaluation.values == alone(model(TWO), "sign", 1, 1, trials=5, seed=9)
    assert point.evaluation.seed == 9
    assert point.ci95 == point.evaluation.ci95


@pytest.mark.parametrize("metric", ["onnx_analog.run.metrics:agreement", metrics.agreement])
def test_a_metric_is_named_or_given(metric):
    (point,) = oa.sweep(model(TWO), images(), metric=metric, **ONE).points
    assert point.evaluation.values == alone(model(TWO), "sign", 1, 1, metric=metric)
    assert point.evaluation.metric.endswith("agreement")


def test_samples_and_batch_are_used():
    batches = []

    def metric(outputs, *, labels, clean):
        batches.append(len(labels))
        return float(len(outputs[0]))

    (point,) = oa.sweep(model(TWO), images(), metric=metric, samples=17, batch=5, **ONE).points
    assert point.evaluation.samples == 17
    assert set(batches) == {17}
    assert point.evaluation.values == (17.0, 17.0)
    with pytest.raises(OptionError, match="batch is 0"):
        oa.sweep(model(TWO), images(), batch=0, **ONE)


def test_files_of_images_are_preprocessed_as_in_evaluate(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "data.npz"
    np.savez(path, x=rng.integers(256, size=(40, 4, 4), dtype=np.uint8), y=rng.integers(16, size=40))
    options = {"mean": [0.5], "std": [0.25]}
    (point,) = oa.sweep(model(TWO), path, **options, **ONE).points
    found = protected(model(TWO), strategy="sign")
    assert point.evaluation.values == oa.evaluate(found, path, trials=2, **options).values
    (other,) = oa.sweep(model(TWO), str(path), preprocess="tests.test_api:flat", **ONE).points
    again = oa.evaluate(found, path, trials=2, preprocess="tests.test_api:flat")
    assert other.evaluation.values == again.values
    np.testing.assert_allclose(other.evaluation.sqnr_db, again.sqnr_db, atol=0.1)
    assert other.evaluation.sqnr_db != point.evaluation.sqnr_db


def flat(images: Any) -> Any:
    return images.reshape(len(images), -1) / 255


def test_an_engine_and_progress_are_used():
    engine, told, tasks = SerialEngine(threads=1), [], []
    engine.submit = lambda task, submit=engine.submit: tasks.append(task) or submit(task)
    found = oa.sweep(model(TWO), images(), progress=lambda *now: told.append(now), **{**SMALL, "engine": engine})
    assert {task.number for task in tasks} == {0, 1, 2, 3}
    assert (told[0], told[-1]) == ((0, 8), (8, 8))
    assert found.points == oa.sweep(model(TWO), images(), **SMALL).points


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"preset": ("none",)}, OptionError, "preset is 'none'; choose from default, isik2020"),
        ({"strategy": ("none",)}, OptionError, "strategy is 'none'"),
        ({"channel": ("none",)}, ChannelError, "no channel is called 'none'"),
        ({"cells": (0,)}, OptionError, "cells is 0; it must be from 1 to"),
        ({"trials": -1}, OptionError, "trials is -1"),
        ({"precision": 0.0}, OptionError, "precision is 0.0"),
        ({"sparsity": 1.5}, OptionError, "sparsity"),
        ({"sparsity": -0.5}, OptionError, "sparsity"),
        ({"granularity": "none"}, OptionError, "granularity is 'none'"),
        ({"large_fraction": 2.0}, OptionError, "large_fraction"),
        ({"preprocess": "no_module:f"}, OptionError, "'no_module:f' cannot be imported"),
        ({"metric": "no_module:f"}, OptionError, "'no_module:f' cannot be imported"),
        ({"std": [0.0]}, OptionError, "std is"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_before_the_first_trial(wrong, error, said, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=images().inputs["x"], y=images().labels)
    with pytest.raises(error) as raised:
        oa.sweep(model(TWO), path, out=tmp_path / "out", **{**ONE, **wrong})
    assert said in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("samples", [0, -1])
def test_no_sample_is_refused(samples):
    with pytest.raises(OptionError, match="samples is"):
        oa.sweep(model(TWO), images(), samples=samples, **ONE)


def test_a_protected_model_is_refused():
    with pytest.raises(ModelError, match="protected already"):
        oa.sweep(protected(model(TWO)), images(), **ONE)


# ------------------------------------------------------------------------------------------------------- precision


def wanted(stopping: Stopping, metric: Any, data: Dataset) -> tuple[float, ...]:
    """Return the values up to the look at which a point stops."""
    values = alone(model(TWO), "sign", 1, 1, trials=stopping.max_trials, metric=metric, data=data)
    return values[: stopping.required(values)]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(("points", "count"), [(1e-9, 12), (6.0, 6), (99.0, 3)])
def test_the_precision_of_a_share_is_in_percentage_points(points, count, labelled):
    data = images() if labelled else Dataset(images().inputs, None)
    options = {**ONE, "trials": 3, "max_trials": 12}
    (point,) = oa.sweep(model(TWO), data, precision=points, **options).points
    stopping = Stopping(trials=3, precision=points / 100, max_trials=12)
    assert point.evaluation.metric == ("top1" if labelled else "agreement")
    assert point.evaluation.values == wanted(stopping, None, data)
    assert point.ci95 == stopping.interval(point.evaluation.values, bounds=(0, 1))
    assert len(point.evaluation.values) == count or points == 6.0


@pytest.mark.parametrize("precision", [1e-9, 1.0, 99.0])
def test_the_precision_of_any_other_metric_is_in_its_unit(precision):
    (point,) = oa.sweep(
        model(TWO), images(), metric=metrics.sqnr_db, precision=precision, **{**ONE, "trials": 3, "max_trials": 12}
    ).points
    stopping = Stopping(trials=3, precision=precision, max_trials=12)
    assert len(point.evaluation.values) == len(wanted(stopping, metrics.sqnr_db, images()))
    assert len(point.evaluation.values) == {1e-9: 12, 1.0: len(point.evaluation.values), 99.0: 3}[precision]


def test_the_precision_of_a_share_that_is_named_is_in_percentage_points_too():
    options = {**ONE, "trials": 3, "max_trials": 12, "precision": 1.0}
    (point,) = oa.sweep(model(TWO), images(), metric="onnx_analog.run.metrics:top1", **options).points
    (other,) = oa.sweep(model(TWO), images(), **options).points
    assert point.evaluation.values == other.evaluation.values


# --------------------------------------------------------------------------------------------- folder, and printing


def test_a_folder_says_what_was_swept(tmp_path):
    path, data = saved(model(TWO), tmp_path), tmp_path / "data.npz"
    np.savez(data, x=images().inputs["x"], y=images().labels)
    found = oa.sweep(
        path,
        data,
        out=str(tmp_path / "out"),
        sparsity=0.5,
        selection=Selection(min_size=100),
        samples=50,
        seed=4,
        **ONE,
    )
    assert found.folder == tmp_path / "out"
    facts = json.loads((tmp_path / "out" / "sweep.json").read_text())
    expected = {
        "models": ["model"], "models_sha256": [hashlib.sha256(path.read_bytes()).hexdigest()], "data": "data.npz",
        "data_sha256": hashlib.sha256(data.read_bytes()).hexdigest(), "samples": [50], "metric": "top1", "seed": 4,
        "sparsity": 0.5, "prune_scope": "model", "include": [], "exclude": [], "min_size": 100, "preprocess": None,
        "input_mean": [0.0], "input_std": [1.0], "batch": 64, "providers": ["CPUExecutionProvider"],
    }  # fmt: skip
    assert {name: facts.get(name) for name in expected} == expected
    assert oa.sweep(model(TWO), images(), **ONE).folder is None


def test_a_sweep_goes_on_with_a_folder(tmp_path):
    path = saved(model(TWO), tmp_path)
    first = oa.sweep(path, images(), out=tmp_path / "out", **ONE)
    told = []
    found = oa.sweep(path, images(), out=tmp_path / "out", progress=lambda *now: told.append(now), **SMALL)
    assert told[0] == (2, 8)
    assert first.points[0] == found.points[0]
    assert found.points == oa.sweep(path, images(), **SMALL).points


@pytest.mark.parametrize("what", ["model", "data", "sparsity", "selection", "mean"])
def test_a_folder_of_another_sweep_is_refused_by_what_differs(what, tmp_path):
    path, data = saved(model(TWO), tmp_path), tmp_path / "data.npz"
    pixels = np.random.default_rng(0).integers(128, size=(60, 16), dtype=np.uint8)
    np.savez(data, x=pixels, y=images().labels)
    oa.sweep(path, data, out=tmp_path / "out", **ONE)
    changes = {"sparsity": 0.5, "mean": [0.1], "selection": Selection(min_size=10)}
    options = {what: changes[what]} if what in changes else {}
    if what == "model":
        files.write_model(model(TWO, seed=1), path)
    if what == "data":
        np.savez(data, x=2 * pixels, y=images().labels)
    said = {"model": "the file of another model", "data": "other data", "selection": "min_size is 10"}
    with pytest.raises(OutputError, match=said.get(what, f"{what} is .*, and it is .* in the sweep of")):
        oa.sweep(path, data, out=tmp_path / "out", **ONE, **options)


@pytest.mark.parametrize("what", ["model", "data"])
def test_a_folder_of_another_object_is_refused(what, tmp_path):
    oa.sweep(model(TWO), images(), out=tmp_path / "out", **ONE)
    data = Dataset({"x": 2 * images().inputs["x"]}, images().labels) if what == "data" else images()
    with pytest.raises(OutputError):
        oa.sweep(model(TWO, seed=int(what == "model")), data, out=tmp_path / "out", **ONE)


def test_a_folder_of_other_weights_beside_the_model_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    ir.save(model(TWO), path, external_data="model.data")
    oa.sweep(path, images(), out=tmp_path / "out", **ONE)
    ir.save(model(TWO, seed=1), path, external_data="model.data")
    with pytest.raises(OutputError):
        oa.sweep(path, images(), out=tmp_path / "out", **ONE)


def test_a_sweep_prints_one_line_for_each_point():
    found = oa.sweep(model(TWO), images(), **SMALL)
    lines = str(found).splitlines()
    assert len(lines) == len(found.points) == 4
    for line, point in zip(lines, found.points, strict=True):
        assert line == (
            f"model0, {QUIET}, granularity tensor{point.setting.large_text}, {point.setting.stored_as} "
            f"({point.cost:.2f} all-in cells per weight; as the memory allows, {point.honest_cost:.2f}, decoding "
            f"hard): {point.evaluation}"
        )


def test_the_interval_that_is_printed_is_that_of_the_point():
    found = oa.sweep(model(TWO), images(), **{**ONE, "trials": 3}, precision=1e-9, max_trials=12)
    (point,) = found.points
    assert point.ci95 is not None
    assert point.ci95 != point.evaluation.ci95
    assert f"{100 * point.ci95[0]:.2f} to {100 * point.ci95[1]:.2f} %" in str(found)


# ------------------------------------------------------------------------------------------- maps and strange models


# As scikit-learn's exporters write it: labels, and a map from label to probability for each sample.
MAPS = """<ir_version: 8, opset_import: ["" : 18, "ai.onnx.ml" : 3]>
    net (float[N, 16] x) => (int64[N] label, seq(map(int64, float)) probabilities) <float[16, 16] w = random> {
        z = MatMul(x, w)
        p = Softmax <axis = 1> (z)
        label = ArgMax <axis = 1, keepdims = 0> (p)
        probabilities = ai.onnx.ml.ZipMap <classlabels_int64s = [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]> (p)
    }"""


def test_a_classifier_that_returns_maps_is_protected_and_evaluated(tmp_path):
    plain = proto(MAPS)
    (tmp_path / "m.onnx").write_bytes(plain.SerializeToString())
    oa.protect(tmp_path / "m.onnx", strategy="raw").save(tmp_path / "p.onnx")
    x = np.random.default_rng(0).normal(size=(70, 16)).astype(np.float32)  # more than one call of 64, the last not full
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    labels, maps = session.run(None, {"x": x})
    assert [max(one, key=one.get) for one in maps] == labels.tolist()
    for output, metric in (("label", "exact_match"), ("probabilities", "top1")):
        data = {"x": x, "y": np.where(np.arange(70) % 7, labels, (labels + 1) % 16)}
        found = oa.evaluate(tmp_path / "p.onnx", data, trials=2, output=output)
        assert (found.metric, found.stored) == (metric, pytest.approx(60 / 70))


def answers_of_maps(folder, samples=2000):
    """Return the path of a model that returns maps, inputs, and labels of which three in four are its own answers."""
    x = np.random.default_rng(0).normal(size=(samples, 16)).astype(np.float32)
    own = ort.InferenceSession(proto(MAPS).SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    (folder / "maps.onnx").write_bytes(proto(MAPS).SerializeToString())
    return folder / "maps.onnx", x, np.where(np.arange(samples) % 4, own[0], (own[0] + 1) % 16)


@pytest.mark.parametrize("labels", [True, False])
def test_a_classifier_that_returns_maps_is_checked_by_its_scores_or_its_labels(tmp_path, labels):
    """Label and largest score are of the same class, so both lose as much, and as much as `evaluate` finds."""
    plain, x, y = answers_of_maps(tmp_path)
    data, named = ({"x": x, "y": y}, "top1") if labels else ({"x": x}, "agreement")
    by_scores = oa.check(plain, data, max_drop=5, integers=4)
    by_labels = oa.check(plain, data, max_drop=5, integers=4, output="label")
    assert (by_scores.metric, by_scores.output) == (named, "probabilities")
    assert (by_labels.metric, by_labels.output) == ("exact_match", "label")
    assert oa.check(plain, data, max_drop=5, integers=4, metric=named).decision == by_scores.decision
    scored = oa.Experiment(plain, data, output="probabilities").score(oa.Scheme.int4(), trials=1)
    expected = (scored.original if labels else 1.0) - scored.values[0]
    assert by_scores.decision.loss == pytest.approx(expected)
    assert by_labels.decision.loss == pytest.approx(expected)
    assert expected != 0


def test_a_classifier_that_returns_maps_is_tuned_and_analysed_by_its_scores(tmp_path):
    """As one that returns the scores as an array."""
    plain, x, y = answers_of_maps(tmp_path)
    array = proto(MAPS.replace("seq(map(int64, float))", "float[N, 16]").replace("ai.onnx.ml.ZipMap", "Identity"))
    array.graph.node[-1].ClearField("attribute")
    for data in ({"x": x, "y": y}, {"x": x}):
        of_maps, of_array = (oa.sensitivity(each, data, trials=2) for each in (plain, ir.from_proto(array)))
        assert list(of_maps.rows()) == list(of_array.rows())
        assert of_maps.metric == of_array.metric == ("top1" if "y" in data else "agreement")
    tuned = oa.tune(plain, {"x": x, "y": y}, max_drop=10, trials=2)
    assert tuned.metric == "top1"
    assert tuned.classes


@pytest.mark.parametrize("options", [{"output": "label"}, {"metric": "exact_match"}])
def test_labels_alone_do_not_tell_how_far_outputs_are_off(tmp_path, options):
    plain, x, y = answers_of_maps(tmp_path, 200)
    for call in (oa.sensitivity, functools.partial(oa.tune, max_drop=5)):
        with pytest.raises(OptionError, match="exact_match, which does not tell how far outputs are off: choose an"):
            call(plain, {"x": x, "y": y}, **options)


def test_inspect_says_why_there_is_nothing_to_store():
    """As scikit-learn's exporters write linear models: weights are attributes."""
    numbers = ", ".join(f"{number}.5" for number in range(64))
    plain = model(
        f"""<ir_version: 8, opset_import: ["" : 18, "ai.onnx.ml" : 3]>
        net (float[N, 16] x) => (int64[N] label, float[N, 4] y) {{
            label, y = ai.onnx.ml.LinearClassifier <classlabels_ints = [0, 1, 2, 3], coefficients = [{numbers}],
                intercepts = [0.5, 1.5, 2.5, 3.5]> (x)
        }}"""
    )
    why = "Weights that are attributes of nodes, such as 'coefficients' of LinearClassifier (64 numbers), are not taken"
    assert why in oa.inspect(plain).to_dict()["refused"]
    assert why in str(oa.inspect(plain))
    with pytest.raises(NothingToStore, match=re.escape(why)):
        oa.protect(plain)


def test_inspect_says_that_protect_would_refuse():
    old = proto(
        '<ir_version: 7, opset_import: ["" : 9]> net (float[4, 16] x) => (float[4, 16] y) '
        "<float[16, 16] w = random> { y = MatMul(x, w) }"
    )
    said = oa.inspect(old).to_dict()["refused"]
    assert "opset 9" in said
    with pytest.raises(ModelError, match="opset 9"):
        oa.protect(old)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"granularity": ""}, "granularity is ''"), ({"prune_scope": "layer"}, "prune_scope is 'layer'")],
)
def test_options_that_would_do_nothing_are_checked_all_the_same(options, said):
    with pytest.raises(OptionError, match=said):
        oa.protect(made("matmul"), **options)


def test_inspect_counts_subnormal_weights():
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[n, 16] x) => (float[n, 16] y) { y = MatMul(x, w) }'
    )
    array = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    array.reshape(-1)[:3] = 1e-40, -1e-45, 0
    array.reshape(-1)[3] = np.finfo(np.float32).tiny
    model.graph.initializer.append(onnx.numpy_helper.from_array(array, "w"))
    found = oa.inspect(model)
    assert found.subnormal == found.to_dict()["subnormal"] == 2


def test_a_sweep_is_pickled_and_copied_without_its_models():
    found = oa.sweep(model(TWO), images(), **ONE)
    found.protected(found.points[0])
    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert again == found
        with pytest.raises(OptionError, match="this copy of the sweep has no models: ask the sweep that was returned"):
            again.protected(again.points[0])


def test_every_channel_inside_another_is_known():
    whole = Modifiers(cells_hold="residual", read_bits=4, write_bits=4).apply(channels.resolve("pcm-drift"))
    names = {kind.__name__ for kind in _tune._kinds(whole)}
    assert names >= {"ResidualCells", "LimitedPrecision"}
    assert len(names) == 3
