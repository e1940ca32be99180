from dataclasses import fields

import onnx_ir as ir
import onnx_ir.passes.common as others
import pytest

from onnx_analog.channels import GaussianNoise
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import ModelError, NothingToStore
from onnx_analog.graph import files
from onnx_analog.graph.layout import DOMAIN
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.stored import MANIFEST_KEY, stored_tensors
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import DecodePass, ManifestPass, ProtectPass, PrunePass, ReadbackPass, pipeline
from tests.models import QUIET, ZOO, feeds, made, numbers, protected, run, same_bits, serialized

PASSES = [
    PrunePass(sparsity=0.5, scope="tensor"),
    ProtectPass(plan=Plan.of(Scheme.paper("sign", cells_small=3, channel=QUIET)), selection=Selection(min_size=5)),
    ManifestPass(),
    ReadbackPass(seed=5, trial=6, channel=QUIET),
    DecodePass(),
]


def test_passes_come_in_the_order_of_the_data():
    protect = ProtectPass(plan=Scheme(channel=QUIET), selection=Selection(min_size=7))
    assert pipeline.protecting(protect) == [protect, ManifestPass()]
    prune = PrunePass(sparsity=0.25, scope="tensor", selection=Selection(min_size=7))
    assert pipeline.protecting(protect, sparsity=0.25, prune_scope="tensor") == [prune, protect, ManifestPass()]


@pytest.mark.parametrize("decoded", [False, True])
def test_a_model_that_is_open_is_read_as_by_the_passes(decoded):
    stored = protected("matmul")
    step = ReadbackPass(seed=1, trial=2, channel=QUIET)
    read = pipeline.read_back(step.read, open_protected(stored), decoded=decoded)
    assert serialized(read) == serialized(pipeline.run([step, *[DecodePass()] * decoded], stored))


@pytest.mark.parametrize("step", PASSES, ids=lambda step: type(step).__name__)
def test_a_pass_is_printed_with_its_fields(step):
    shown = ", ".join(f"{field.name}={getattr(step, field.name)!r}" for field in fields(step))
    assert repr(step) == str(step) == f"{type(step).__name__}({shown})"
    if not isinstance(step, ProtectPass):  # a plan is told in short
        assert eval(repr(step)) == step


def test_what_a_pass_is_printed_with_is_imported_here():
    assert Modifiers() == ReadbackPass().modifiers


def test_prune_is_printed_as_it_was_built():
    assert repr(PrunePass(sparsity=0.5)) == (
        "PrunePass(sparsity=0.5, scope='model', selection=Selection(include=(), exclude=(), min_size=256))"
    )


@pytest.mark.parametrize("name", ZOO)
def test_all_passes_work_in_one_sequence_with_those_of_others(name):
    steps = [
        others.CheckerPass(),
        others.IdentityEliminationPass(),
        PrunePass(sparsity=0.3),
        ProtectPass(plan=Scheme(channel=QUIET)),
        ManifestPass(),
        others.CheckerPass(full_check=True),
        others.TopologicalSortPass(),
        others.RemoveUnusedNodesPass(),
        ReadbackPass(seed=1),
        DecodePass(),
        others.NameFixPass(),
        others.CheckerPass(full_check=True),
    ]
    plain = made(name)
    found = ir.passes.Sequential(*steps)(plain).model
    protecting = pipeline.protecting(ProtectPass(plan=Scheme(channel=QUIET)), sparsity=0.3)
    by_hand = pipeline.run([others.IdentityEliminationPass(), *protecting], made(name))
    by_hand = pipeline.run([ReadbackPass(seed=1), DecodePass()], by_hand)
    assert all(same_bits(run(found, given), run(by_hand, given)) for given in feeds(by_hand))


def test_passes_work_after_others_made_every_weight_an_initializer():
    lift = [
        others.InlinePass(),
        others.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=1),
        others.LiftSubgraphInitializersToMainGraphPass(),
        others.RemoveInitializersFromInputsPass(),
    ]
    found = pipeline.run([*lift, ProtectPass(plan=Scheme(channel=QUIET))], made("function with a body"))
    assert len(stored_tensors(found)) == 2
    assert all(tensor.graph is found.graph for tensor in stored_tensors(found))


def test_the_whole_way_gives_a_plain_model_again():
    found = pipeline.run(pipeline.protecting(ProtectPass(plan=Scheme(channel=QUIET)), sparsity=0.5), made("matmul"))
    assert MANIFEST_KEY in found.metadata_props
    read = pipeline.run([ReadbackPass(), DecodePass()], found)
    assert (numbers(read, "w") == 0).sum() == 128
    assert DOMAIN not in read.opset_imports
    assert MANIFEST_KEY in found.metadata_props


def test_reading_leaves_the_protected_model_alone():
    found = pipeline.run(pipeline.protecting(ProtectPass(plan=Scheme(channel=QUIET))), made("function"))
    before = serialized(found)
    pipeline.run([ReadbackPass(), DecodePass()], found)
    assert serialized(found) == before


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([DecodePass()], ModelError),
        ([PrunePass(sparsity=0.1), ir.passes.Sequential(ReadbackPass())], ModelError),
        ([PrunePass(sparsity=0.1), ProtectPass(selection=Selection(include=("none",)))], NothingToStore),
    ],
)
def test_an_error_of_ours_comes_out_as_it_was_raised(steps, error):
    with pytest.raises(error) as caught:
        pipeline.run(steps, made("matmul"))
    assert type(caught.value) is error
    met, link = [], caught.value
    while link is not None:  # so that who follows the errors behind an error comes to an end
        assert link not in met
        met.append(link)
        link = link.__cause__ or link.__context__


class Broken(ir.passes.InPlacePass):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        try:
            raise self.error
        except Exception as error:
            raise ir.passes.PassError("around\nit") from error


@pytest.mark.any_message  # that nobody foresaw
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("two\nlines"), "two lines"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"), "'utf-8' codec can't decode byte 0xff"),
        (RecursionError("too deep"), "too deep"),
        (MemoryError(), "there is not enough memory to work on it"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_of_an_error_of_another_the_cause_is_said(error, said, tmp_path):
    ir.save(made("matmul"), tmp_path / "m.onnx")
    with pytest.raises(ModelError) as caught:
        pipeline.run([Broken(error)], files.load(tmp_path / "m.onnx"))
    assert str(caught.value).startswith(f"{str(tmp_path / 'm.onnx')!r}: {said}")


def test_another_channel_reads_through_the_pipeline():
    found = pipeline.run(pipeline.protecting(ProtectPass(plan=Scheme(channel=QUIET))), made("matmul"))
    loud = GaussianNoise(sigma=0.2)
    one, other = (pipeline.run([ReadbackPass(channel=channel)], found) for channel in (None, loud))
    level, a, b = (stored_tensors(m)[0].level.astype(float) for m in (found, one, other))
    # The same draw, twice as large; each level is rounded once when it is read.
    assert abs((b - level) - 2 * (a - level)).max() <= 3 * 2.0**-24
