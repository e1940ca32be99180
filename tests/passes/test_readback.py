import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as others
import pytest
import scipy.stats
from numpy.typing import NDArray

from onnx_analog.channels import Channel, GaussianNoise, Source
from onnx_analog.channels.pcm import pcm
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import ChannelError, ModelError, OptionError
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.stored import MANIFEST_KEY, READ_DIGESTS_KEY, READBACK_KEY, StoredTensor, stored_tensors
from onnx_analog.graph.weights import Selection, find, scopes
from onnx_analog.passes import DecodePass, ManifestPass, ReadbackPass
from onnx_analog.randomness import stream
from onnx_analog.testing import assert_law, assert_mean, assert_std, assert_uncorrelated
from tests.models import (
    FAMILY,
    LOUD,
    QUIET,
    ZOO,
    differences,
    f32,
    feeds,
    holding,
    made,
    model,
    protected,
    run,
    same_bits,
    serialized,
)

LARGE = """
    net (float[1, 128] x) => (float[1, 128] y) <float[128, 128] a = random, float[128, 128] b = random> {
        t = MatMul(x, a)
        y = MatMul(t, b)
    }"""


def read(found: ir.Model, **options) -> dict[str, NDArray[np.float32]]:
    """Return the levels read from each tensor, by key."""
    return {tensor.key: tensor.level for tensor in stored_tensors(ReadbackPass(**options)(found).model)}


def noise(found: ir.Model, **options) -> dict[str, NDArray[np.float64]]:
    """Return what each read is off by, in standard deviations of one cell of QUIET."""
    levels = {tensor.key: tensor.level.astype(np.float64) for tensor in stored_tensors(found)}
    return {key: (level - levels[key]) / QUIET.sigma for key, level in read(found, **options).items()}


# ------------------------------------------------------------------------------------------- only the levels


@pytest.mark.parametrize("name", ZOO)
def test_only_levels_differ_from_the_protected_model(name):
    found = protected(made(name))
    before, levels = serialized(found), {str(tensor.inputs["level"].name) for tensor in stored_tensors(found)}
    perturbed = ReadbackPass()(found).model
    assert differences(ir.to_proto(found), unmarked(perturbed)) == levels
    assert all((tensor.level != original.level).all() for tensor, original in _paired(perturbed, found))
    assert serialized(found) == before


def unmarked(perturbed: ir.Model) -> onnx.ModelProto:
    """Return a perturbed model without the entries that say so."""
    proto = ir.to_proto(perturbed)
    kept = [entry for entry in proto.metadata_props if entry.key not in (READBACK_KEY, READ_DIGESTS_KEY)]
    assert len(kept) == len(proto.metadata_props) - 2
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    return proto


def _paired(one: ir.Model, other: ir.Model) -> list[tuple[StoredTensor, StoredTensor]]:
    return list(zip(stored_tensors(one), stored_tensors(other), strict=True))


@pytest.mark.parametrize("name", ["matmul", "if", "loop", "function with a body", "float16"])
def test_the_graph_computes_with_what_was_read(name):
    perturbed = ReadbackPass(seed=1)(protected(made(name), selection=Selection())).model
    decoded = made(name)
    for weight, tensor in zip(find(decoded).weights, stored_tensors(perturbed), strict=True):
        weight.replace(tensor.decode())
    assert all(same_bits(run(perturbed, given), run(decoded, given)) for given in feeds(decoded))


def test_side_information_that_is_analog_is_read_too():
    found = protected("matmul", side_channel=LOUD)
    perturbed = ReadbackPass()(found).model
    assert differences(ir.to_proto(found), unmarked(perturbed)) == {"w.level", "w.sign", "w.class"}


@pytest.mark.parametrize("name", FAMILY)
def test_what_is_read_of_each_kind_of_scheme(name):
    """Levels, if any weight has cells; signs and classes, if they are read from noisy cells; and nothing else."""
    scheme = FAMILY[name]
    found = protected("conv", scheme, manifest=True)
    perturbed = ReadbackPass(seed=2)(found).model
    names = [f"w.{plane}" for plane in ("level",) if scheme.analog != "none"]
    if scheme.side is not None:
        names += [f"w.{plane}" for plane in ("sign", "class") if f"w.{plane}" in found.graph.initializers]
    assert differences(ir.to_proto(found), unmarked(perturbed)) == set(names)
    (tensor,), (before,) = stored_tensors(perturbed), stored_tensors(found)
    assert open_protected(perturbed).manifest == open_protected(found).manifest
    decoded = made("conv")
    find(decoded).weights[0].replace(tensor.decode())
    for given in feeds(decoded):
        assert same_bits(run(perturbed, given), run(decoded, given))
    if scheme.analog == "some":
        points = ~(np.array(scheme.cells_of_class) > 0)[before.class_index]
        kept, read_back = (each.decode().ravel()[unpacked(each)][points] for each in (before, tensor))
        assert same_bits([kept], [read_back])


def unpacked(tensor: StoredTensor) -> NDArray[np.bool_]:
    return np.ones(tensor.size, bool) if tensor.mask is None else tensor.mask


# --------------------------------------------------------------------------------------------- the same bytes


def test_the_same_call_reads_the_same_levels():
    found = protected(model(LARGE))
    assert same_bits([*read(found, seed=3, trial=2).values()], [*read(found, seed=3, trial=2).values()])


def test_the_order_of_tensors_does_not_matter():
    found = protected(model(LARGE))
    before = read(found)
    graph = found.graph
    for name in list(graph.initializers)[::-1]:
        graph.initializers[name] = graph.initializers.pop(name)
    call = stored_tensors(found)[1].node
    graph.remove(call)
    graph.insert_before(graph[0], call)
    after = read(found)
    assert list(before) == list(after)[::-1] == ["a", "b"]
    assert all(same_bits([before[key]], [after[key]]) for key in before)


def test_a_new_name_does_not_matter():
    found = protected(model(LARGE))
    before = read(found)
    for tensor in stored_tensors(found):
        tensor.node.name = tensor.node.outputs[0].name = f"other_{tensor.name}"
        for value in tensor.inputs.values():
            value.name = f"other_{value.name}"
    assert all(same_bits([before[key]], [level]) for key, level in read(found).items())
    assert [tensor.name for tensor in stored_tensors(found)] == ["other_a", "other_b"]


@pytest.mark.parametrize(
    "lift",
    [
        others.LiftSubgraphInitializersToMainGraphPass(),
        others.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=1),
        others.NameFixPass(),
        others.TopologicalSortPass(),
    ],
    ids=lambda given: type(given).__name__,
)
@pytest.mark.parametrize("name", ["if", "if of constants", "function with a body", "loop"])
def test_another_tool_may_move_planes(name, lift):
    found = protected(made(name))
    before = read(found)
    lift(found)
    assert {key: level.tobytes() for key, level in read(found).items()} == {k: v.tobytes() for k, v in before.items()}


def test_two_weights_whose_planes_another_tool_merged_are_read_apart():
    weight = np.random.default_rng(0).normal(size=(128, 128)).astype(np.float32)
    found = protected(holding(a=weight, b=weight))
    before = read(found)
    others.DeduplicateInitializersPass(size_limit=2**20)(found)
    assert len({id(tensor.inputs["level"]) for tensor in stored_tensors(found)}) == 1
    after = read(found)
    assert all(same_bits([before[key]], [after[key]]) for key in before)


def test_a_level_is_read_in_blocks_with_streams_of_their_own(monkeypatch):
    found = protected(made("matmul"), cells_small=4, cells_large=4)
    monkeypatch.setattr("onnx_analog.randomness.BLOCK", 100)
    expected = stored_tensors(found)[0].level.copy()
    for block, part in enumerate([slice(0, 100), slice(100, 200), slice(200, 256)]):
        drawn = stream(7, 5, "w", plane="level", block=block).standard_normal(expected[part].size, dtype=np.float32)
        expected[part] += drawn * np.float32(QUIET.sigma / 2)
    assert same_bits([read(found, seed=7, trial=5)["w"]], [expected])


# ------------------------------------------------------------------------------------------------- the law


@pytest.mark.parametrize("strategy", ["raw", "sign", "mapping", "redundancy"])
def test_noise_is_normal_and_shrinks_with_the_root_of_the_cells(strategy):
    found = protected(model(LARGE), strategy=strategy, cells_small=4, cells_large=25, large_fraction=0.3)
    off, tensor = noise(found)["a"], stored_tensors(found)[0]
    cells = {"raw": [4], "sign": [4], "mapping": [4, 4], "redundancy": [4, 25]}[strategy]
    place = np.zeros(off.size, int) if tensor.class_index is None else tensor.class_index
    for index, count in enumerate(cells):
        part = off[place == index] * np.sqrt(count)
        assert part.size > 4000
        assert_std(part, 1.0)
        assert_mean(part, 0.0)
        assert_law(part, scipy.stats.norm.cdf)


def test_noise_of_the_measured_channel_depends_on_the_level():
    channel = pcm()
    found = protected(model(LARGE), channel=channel, cells_small=3, cells_large=3)
    level = stored_tensors(found)[0].level
    assert_law((read(found)["a"] - level) * np.sqrt(3) / channel.std(level), scipy.stats.norm.cdf)


@pytest.mark.parametrize("other", [{"seed": 1}, {"trial": 1}, {"seed": 1, "trial": 1}])
def test_another_trial_is_independent(other):
    found = protected(model(LARGE), cells_large=1)
    one, two = noise(found)["a"], noise(found, **other)["a"]
    assert_uncorrelated(one, two)
    assert_std(one - two, np.sqrt(2))


def test_tensors_are_independent():
    off = noise(protected(model(LARGE), cells_large=1))
    assert_uncorrelated(off["a"], off["b"])


def test_two_branches_that_own_one_name_are_independent():
    off = noise(protected(made("if"), cells_large=1))
    assert_uncorrelated(off["y.then_branch/w"], off["y.else_branch/w"])


def test_blocks_are_independent(monkeypatch):
    found = protected(model(LARGE), cells_large=1)
    monkeypatch.setattr("onnx_analog.randomness.BLOCK", 128 * 64)
    assert_uncorrelated(*np.split(noise(found)["a"], 2))


# ------------------------------------------------------------------------------------------ another's channel


@dataclass(frozen=True, kw_only=True)
class Uniform(Channel):
    """level ± up to 1/√cells, uniformly: no Gaussian channel."""

    family: ClassVar[str] = "uniform"
    low: float = QUIET.low
    high: float = QUIET.high

    @property
    def span(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def source(self) -> Source:
        return Source(citation="none")

    def read(self, level, *, cells, rng):
        return (level + rng.uniform(-1, 1, level.shape) / np.sqrt(cells)).astype(np.float32)


@pytest.mark.parametrize("strategy", ["raw", "sign", "mapping", "redundancy"])
def test_a_channel_with_a_read_of_its_own_is_read_by_it(strategy, monkeypatch):
    monkeypatch.setattr("onnx_analog.randomness.BLOCK", 5000)
    found = protected(model(LARGE), strategy=strategy, cells_small=4, cells_large=4)
    level = stored_tensors(found)[0].level.astype(np.float64)
    once, again = read(found, channel=Uniform())["a"], read(found, channel=Uniform())["a"]
    assert_law(2 * (once - level), scipy.stats.uniform(-1, 2).cdf)
    assert_uncorrelated((once - level)[:5000], (once - level)[5000:10_000])
    assert same_bits([once], [again])


def test_such_a_channel_is_told_the_cells_of_each_weight():
    found = protected(model(LARGE), cells_small=1, cells_large=100, large_fraction=0.5)
    tensor = stored_tensors(found)[0]
    off = np.abs(read(found, channel=Uniform())["a"].astype(np.float64) - tensor.level)
    rounding = 2.0**-23
    assert off[tensor.class_index == 1].max() <= 0.1 + rounding < off[tensor.class_index == 0].max() <= 1 + rounding


@pytest.mark.parametrize(("low", "high"), [(-0.6499, 0.75), (-0.65, 0.7499)])
def test_a_channel_that_does_not_hold_the_levels_is_refused(low, high):
    found = protected(made("matmul"))
    with pytest.raises(ChannelError, match=r"protected for levels from -0.65 to 0.75.*Protect the original"):
        ReadbackPass(channel=GaussianNoise(low=low, high=high)).call(found)


def test_a_channel_of_the_same_span_replaces_the_stored_one():
    loud = GaussianNoise(sigma=0.3)
    found, other = protected(model(LARGE)), protected(model(LARGE), channel=loud)
    assert same_bits([*read(found, channel=loud).values()], [*read(other).values()])


# --------------------------------------------------------------------------------------------------- refusals


def test_a_plain_model_is_refused():
    with pytest.raises(ModelError, match="not protected"):
        ReadbackPass().call(made("matmul"))


def test_a_model_that_was_read_is_marked_and_not_read_again():
    perturbed = ReadbackPass(seed=3, trial=4, channel=GaussianNoise(sigma=0.5))(protected(made("matmul"))).model
    assert perturbed.metadata_props[READBACK_KEY].startswith("seed 3, trial 4, channel gaussian")
    with pytest.raises(ModelError, match=r"read from noisy cells already \(seed 3, trial 4, channel gaussian.*\)"):
        ReadbackPass().call(perturbed)


def test_plain_weights_are_marked_until_they_are_protected_again():
    plain = DecodePass()(ReadbackPass()(protected(made("matmul"))).model).model
    assert plain.metadata_props[READBACK_KEY].startswith("seed 0, trial 0")
    assert ReadbackPass(trial=1)(protected(plain)).model.metadata_props[READBACK_KEY].startswith("seed 0, trial 1")


def test_a_negative_seed_or_trial_is_refused():
    with pytest.raises(OptionError, match="seed is -1; it must be from 0 to"):
        ReadbackPass(seed=-1)
    with pytest.raises(OptionError, match="trial is -1; it must be from 0 to"):
        ReadbackPass(trial=-1)


@pytest.mark.parametrize("name", ["seed", "trial"])
def test_seed_and_trial_are_at_most_those_of_int64(name):
    assert getattr(ReadbackPass(**{name: 2**63 - 1}), name) == 2**63 - 1
    for large in (2**63, 10**30):
        with pytest.raises(OptionError, match=f"{name} is {large}; it must be from 0 to 9,223,372,036,854,775,807"):
            ReadbackPass(**{name: large})


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"channel": 3}, ChannelError, "3"),
        ({"channel": "no such"}, ChannelError, "no such"),
        ({"modifiers": 3}, OptionError, "modifiers is 3; it must be Modifiers"),
        ({"seed": "a"}, OptionError, "seed is 'a'; it must be a whole number"),
    ],
)
def test_options_of_another_type_are_refused_before_a_model_is_read(wrong, error, message):
    with pytest.raises(error, match=message):
        ReadbackPass(**wrong)


def test_digital_streams_are_read_through_a_channel_too():
    stored = protected(made("matmul"), Scheme.int8())
    assert ReadbackPass(trial=1)(stored).model.metadata_props[READBACK_KEY] == "seed 0, trial 1, channel pcm"
    read = ReadbackPass(channel="rram-milo").read(open_protected(stored))
    assert read.read_mark == "seed 0, trial 0, channel rram-milo"


def test_what_was_read_is_guarded_by_digests_of_its_own():
    found = protected(made("matmul"), side_channel=LOUD)
    ManifestPass()(found)
    perturbed = ReadbackPass()(found).model
    digests = json.loads(perturbed.metadata_props[READ_DIGESTS_KEY])
    (tensor,) = stored_tensors(perturbed)
    assert digests == {"w": {name: tensor.digests()[name] for name in ("level", "sign", "class")}}
    assert perturbed.metadata_props[MANIFEST_KEY] == found.metadata_props[MANIFEST_KEY]
    assert open_protected(perturbed).manifest == open_protected(found).manifest
    tensor.replace_level(tensor.level + f32(1e-6))
    with pytest.raises(ModelError, match=r"tensor 'w': its level, by its SHA-256, is .*, and .* in the model's"):
        DecodePass().call(perturbed)


def test_only_planes_that_are_read_get_other_digests():
    perturbed = ReadbackPass()(protected(made("matmul"))).model
    assert json.loads(perturbed.metadata_props[READ_DIGESTS_KEY]).keys() == {"w"}
    assert json.loads(perturbed.metadata_props[READ_DIGESTS_KEY])["w"].keys() == {"level"}
    assert READ_DIGESTS_KEY not in DecodePass()(perturbed).model.metadata_props


@pytest.mark.parametrize("key", [READBACK_KEY, READ_DIGESTS_KEY])
def test_a_model_that_lost_half_of_its_mark_is_refused(key):
    found = protected(made("matmul"))
    ManifestPass()(found)
    perturbed = ReadbackPass()(found).model
    del perturbed.metadata_props[key]
    with pytest.raises(ModelError, match=r"tensor 'w'|lost its metadata entry"):
        open_protected(perturbed)


def test_classes_that_were_read_are_not_counted_as_those_that_were_written():
    perturbed = ReadbackPass()(protected(made("matmul"), side_channel=LOUD)).model
    with pytest.raises(ModelError, match=r"cells cannot be counted\. Name the protected model"):
        _ = open_protected(perturbed).manifest


SHADOWING = """
    net (float[1, 16] x, bool b) => (float[1, 16] y) <float[16, 16] outer = random> {
        u = MatMul(x, outer)
        y = If (b) <
            then_branch = yes () => (float[1, 16] r) <float[16, 16] w = random> { r = MatMul(u, w) },
            else_branch = no () => (float[1, 16] r) <float[16, 16] w = random> { r = MatMul(u, w) }>
    }"""


def test_a_plane_of_its_own_takes_no_name_of_any_graph():
    plain = model(SHADOWING)
    yes, no = (weight for weight in find(plain).weights if weight.name == "w")
    no.replace(yes.array())
    plain.graph.initializers["outer"].name = "w.level_1"  # which text cannot spell
    found = protected(plain, selection=Selection(include=("branch",)))
    others.LiftSubgraphInitializersToMainGraphPass()(found)
    others.DeduplicateInitializersPass(size_limit=2**20)(found)
    one, other = stored_tensors(found)
    assert one.inputs["level"] is other.inputs["level"]
    perturbed = ReadbackPass()(found).model
    names = [value.name for _, graph, _ in scopes(perturbed) for value in graph.initializers.values()]
    assert len(set(names)) == len(names)
    decoded = DecodePass()(ReadbackPass()(found).model).model
    for given in feeds(plain):
        assert same_bits(run(perturbed, given), run(decoded, given))


def test_levels_outside_the_span_are_refused():
    found = protected(made("matmul"))
    tensor = stored_tensors(found)[0]
    tensor.replace_level(f32(np.full(256, 0.76)))
    with pytest.raises(ModelError, match=r"tensor 'w': its levels run from 0\.76 to 0\.76, outside the -0.65 to 0.75"):
        ReadbackPass().call(found)
