"""Small models, one for every place where weights hide, and what the tests ask of them.

Models are ONNX text, in which `random` stands for the numbers of a tensor: `float[16, 16] w = random`, normal with a
standard deviation of 0.3, or `float[16, 16] w = 20 random`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from onnx_analog.channels import GaussianNoise
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.planes import of_each
from onnx_analog.coding.scheme import STRATEGIES, Scheme
from onnx_analog.graph import files
from onnx_analog.graph.stored import StoredTensor, stored_tensors
from onnx_analog.graph.weights import FLOATS, Selection, all_tensors
from onnx_analog.passes import ManifestPass, ProtectPass, PrunePass

Feeds = Mapping[str, NDArray[Any]]
Outputs = list[NDArray[Any]]

U = 2.0**-24  # half a unit in the last place of a float32 number, relative to it
HALF_UNIT = {np.dtype(np.float16): 2.0**-11, np.dtype(ml_dtypes.bfloat16): 2.0**-8}
LEAST_HALF = 2.0**-25  # half the spacing of float16 below its normal numbers; bfloat16's is far smaller
NEWEST_OPSET = 28  # that onnxruntime loads

QUIET = GaussianNoise(sigma=0.1)  # a channel that is cheap to make
LOUD = GaussianNoise(sigma=1.0)
UNIT = GaussianNoise(sigma=0.1, low=0, high=1)  # output ranges of one unit, for numbers by hand
CENTRED = GaussianNoise(sigma=0.1, low=-0.5, high=0.5)

SMALL = Selection(min_size=1)  # tensors of any size
HEAVY = frozenset(  # packages that take long to import, and that help and the version do without
    {
        "numpy",
        "scipy",
        "onnx",
        "onnx_ir",
        "onnxruntime",
        "onnxscript",
        "rich",
        "matplotlib",
        "ml_dtypes",
        "constriction",
    }
)

# ---------------------------------------------------------------------------------------------------- schemes

# One of each kind of scheme: where the sign is, how classes are parted, which have cells, what shares scales, and
# whether side information is analog. Class indices of 1, 2, 4 and 8 bits are among them.
FAMILY: dict[str, Scheme] = {
    "raw": Scheme.paper("raw", channel=QUIET),
    "sign": Scheme.paper("sign", channel=QUIET, cells_small=3),
    "mapping of the model": Scheme.paper("mapping", channel=QUIET, large_fraction=0.3, granularity="model"),
    "redundancy": Scheme.paper("redundancy", channel=QUIET, large_fraction=0.3),
    "redundancy by a bound": Scheme.paper("redundancy", channel=QUIET, threshold=0.4),
    "redundancy of channels": Scheme.paper("redundancy", channel=QUIET, large_fraction=0.3, granularity="channel"),
    "one class of channels": Scheme.paper("raw", channel=QUIET, granularity="channel"),
    "three classes": Scheme(classes=3, shares=(0.3, 0.1), cells=(1, 2, 20), channel=QUIET),
    "four classes, one without cells": Scheme(classes=4, partition="lloyd", cells=(0, 1, 2, 3), channel=QUIET),
    "signed bounds": Scheme(
        sign="level", classes=3, partition="bounds", bounds=(-0.2, 0.2), cells=(2, 0, 1), channel=QUIET
    ),
    "five classes of the model": Scheme(
        sign="level", classes=5, partition="uniform", cells=(0, 1, 2, 1, 0), granularity="model", channel=QUIET
    ),
    "mixed cells of channels": Scheme(
        classes=3, shares=(0.3, 0.1), cells=(0, 1, 2), granularity="channel", channel=QUIET, side_bits_per_cell=3
    ),
    "two points": Scheme(classes=2, partition="lloyd", cells=(0,), channel=QUIET),
    "sixteen points": Scheme(classes=16, partition="lloyd", cells=(0,), channel=QUIET, side_bits_per_cell=8),
    "int4 of channels": Scheme.int4(granularity="channel", channel=QUIET),
    "int8": Scheme.int8(channel=QUIET, side_bits_per_cell=1),
    "analog side": Scheme.paper(
        "redundancy", channel=QUIET, large_fraction=0.3, side_channel=LOUD, side_cells=2, side_copies=3
    ),
    "analog side of 7 classes": Scheme(classes=7, partition="lloyd", cells=(2,), channel=QUIET, side_channel=LOUD),
    "int4 in analog cells": Scheme.int4(channel=QUIET, side_channel=LOUD, side_bits_per_cell=3),
}

CODED: dict[str, Scheme] = {  # other ways to store signs, classes, masks and codebooks
    "entropy-coded": Scheme.entropy_coded(0.5, channel=QUIET),
    "refined": Scheme.refined(0.5, channel=QUIET),
    "coded classes": Scheme.paper("redundancy", channel=QUIET, large_fraction=0.3, entropy="static"),
    "coded mask": Scheme.paper("sign", channel=QUIET, entropy="context"),
    "without a code": Scheme.paper("redundancy", channel=QUIET, cells_large=1, code="none"),
    "tables": Scheme.paper("redundancy", channel=QUIET, estimator="unbiased"),
    "words of several cells": Scheme.paper("mapping", channel="rram-wan"),
    "differential": Scheme.paper("redundancy", channel="pcm-drift:differential=true", cells_large=2),
    "signs in differential cells": Scheme.paper("raw", channel="pcm-drift:differential=true"),
}

# ------------------------------------------------------------------------------------------------------- text

_RANDOM = re.compile(r"\b(float|double|float16|bfloat16)\[([\d, ]*)\]((?: \w+ =)?)(?: ([\d.]+))? random")
_KINDS: dict[str, Any] = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}


def proto(text: str, *, seed: int = 0) -> onnx.ModelProto:
    """Return the model in `text`, of opset 18 and IR 10 unless it says so itself."""
    rng = np.random.default_rng(seed)

    def drawn(found: re.Match[str]) -> str:
        kind, sides, name, scale = found.groups()
        shape = [int(side) for side in sides.split(",")]
        array = rng.normal(scale=float(scale or 0.3), size=shape).astype(_KINDS[kind])
        return f"{kind}[{sides}]{name} {{{', '.join(_written(array))}}}"

    header = "" if text.lstrip().startswith("<ir_version") else '<ir_version: 10, opset_import: ["" : 18]>\n'
    return onnx.parser.parse_model(_RANDOM.sub(drawn, header + text))


def f32(numbers: Any) -> NDArray[np.float32]:
    """Return `numbers` as a float32 array."""
    return np.array(numbers, np.float32)


def _written(array: NDArray[Any]) -> Iterator[str]:
    narrow = array.dtype.itemsize == 2  # ONNX text gives the bits of these
    return map(str, (array.view(np.uint16) if narrow else array).ravel().tolist())


def model(text: str, *, seed: int = 0) -> ir.Model:
    """Return the model in `text`, as a user would load it."""
    return files.load(proto(text, seed=seed))


def holding(**weights: NDArray[Any]) -> ir.Model:
    """Return y_w = x_w·w for each of the matrices given by name."""
    kinds = {np.dtype(dtype): kind for kind, dtype in _KINDS.items()}
    named = [(name, kinds[array.dtype], *array.shape) for name, array in weights.items()]
    found = model(f"""
        net ({", ".join(f"{kind}[2, {rows}] x_{name}" for name, kind, rows, _ in named)})
            => ({", ".join(f"{kind}[2, {columns}] y_{name}" for name, kind, _, columns in named)})
        <{", ".join(f"{kind}[{rows}, {columns}] {name} = random" for name, kind, rows, columns in named)}> {{
            {" ".join(f"y_{name} = MatMul(x_{name}, {name})" for name, *_ in named)}
        }}""")
    for name, array in weights.items():
        found.graph.initializers[name].const_value = ir.tensor(array, name=name)
    return found


def make_sparse(model: onnx.ModelProto, *, flat: bool) -> None:
    """Store the tensor w of the main graph, initializer or constant, as a sparse one; negative numbers become zero."""
    graph = model.graph
    for place in [place for place, tensor in enumerate(graph.initializer) if tensor.name == "w"]:
        graph.sparse_initializer.append(_sparse(graph.initializer.pop(place), "w", flat=flat))
    for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] == "w"]:
        tensor = _sparse(node.attribute.pop().t, "", flat=flat)
        node.attribute.append(onnx.helper.make_attribute("sparse_value", tensor))


def _sparse(dense: onnx.TensorProto, name: str, *, flat: bool) -> onnx.SparseTensorProto:
    array = onnx.numpy_helper.to_array(dense)
    array = np.where(array > 0, array, np.zeros((), array.dtype))
    indices = np.flatnonzero(array) if flat else np.argwhere(array)
    return onnx.helper.make_sparse_tensor(
        onnx.numpy_helper.from_array(array[array != 0], name),
        onnx.numpy_helper.from_array(indices.astype(np.int64), f"{name}.indices"),
        array.shape,
    )


# -------------------------------------------------------------------------------------------------------- zoo


@dataclass(frozen=True)
class Case:
    """A model and the keys of its weights."""

    text: str
    keys: tuple[str, ...] = ("w",)
    linear: bool = True  # in each weight
    sparse: str = ""  # how weights are stored: "flat" or "rows" of indices; "" is dense


ZOO = {
    "matmul": Case("""
        net (float[4, 16] x) => (float[4, 16] y) <float[16, 16] w = random> { y = MatMul(x, w) }"""),
    "gemm": Case("""
        net (float[4, 16] x) => (float[4, 32] y) <float[16, 32] w = random, float[32] b = random> { y = Gemm(x, w, b) }
    """),
    "gemm, transposed": Case("""
        net (float[4, 16] x) => (float[4, 32] y)
        <float[32, 16] w = random, float[32] b = random> { y = Gemm <transB = 1> (x, w, b) }"""),
    "conv": Case("""
        net (float[2, 4, 6, 6] x) => (float[2, 8, 6, 6] y)
        <float[8, 4, 3, 3] w = random, float[8] b = random> { y = Conv <pads = [1, 1, 1, 1]> (x, w, b) }"""),
    "conv transpose": Case("""
        net (float[2, 8, 3, 3] x) => (float[2, 4, 5, 5] y)
        <float[8, 4, 3, 3] w = random> { y = ConvTranspose(x, w) }"""),
    "gather": Case("""
        net (int64[5] i) => (float[5, 16] y) <float[16, 16] w = random> { y = Gather(w, i) }"""),
    "two scales": Case(
        """
        net (float[4, 16] x) => (float[4, 16] y, float[4, 32] z)
        <float[16, 16] a = random, float[16, 32] b = 3 random> { y = MatMul(x, a) z = MatMul(x, b) }""",
        keys=("a", "b"),
    ),
    "lstm": Case(
        """
        net (float[3, 2, 8] x) => (float[3, 1, 2, 16] y) <float[1, 64, 8] W = random, float[1, 64, 16] R = random> {
            y = LSTM <hidden_size = 16> (x, W, R)
        }""",
        keys=("W", "R"),
        linear=False,
    ),
    "lstm through slice and concat": Case(
        """
        net (float[3, 2, 8] x) => (float[3, 1, 2, 16] y)
        <float[1, 80, 8] W = random, float[1, 32, 16] R0 = random, float[1, 32, 16] R1 = random,
         int64[1] first = {16}, int64[1] end = {80}, int64[1] axis = {1}> {
            sliced = Slice(W, first, end, axis)
            joined = Concat <axis = 1> (R0, R1)
            y = LSTM <hidden_size = 16> (x, sliced, joined)
        }""",
        keys=("W", "R0", "R1"),
        linear=False,
    ),
    "tied": Case("""
        net (float[4, 16] x, float[4, 16] z) => (float[4, 16] y, float[4, 16] v) <float[16, 16] w = random> {
            y = MatMul(x, w)
            v = MatMul(z, w)
        }"""),
    "tied through transpose": Case("""
        net (float[4, 16] x, float[4, 32] z) => (float[4, 32] y, float[4, 16] v) <float[16, 32] w = random> {
            turned = Transpose <perm = [1, 0]> (w)
            y = MatMul(x, w)
            v = MatMul(z, turned)
        }"""),
    "constant": Case("""
        net (float[4, 16] x) => (float[4, 16] y) {
            w = Constant <value = float[16, 16] random> ()
            y = MatMul(x, w)
        }"""),
    "if": Case(
        """
        net (float[4, 16] x, bool c) => (float[4, 16] y) {
            y = If (c) <
                then_branch = yes () => (float[4, 16] t) <float[16, 16] w = random> { t = MatMul(x, w) },
                else_branch = no () => (float[4, 16] e) <float[16, 16] w = random> { e = MatMul(x, w) }
            >
        }""",
        keys=("y.then_branch/w", "y.else_branch/w"),
    ),
    "if of constants": Case(
        """
        net (float[4, 16] x, bool c) => (float[4, 16] y) {
            y = If (c) <
                then_branch = body () => (float[4, 16] t) { w = Constant <value = float[16, 16] random> ()
                                                            t = MatMul(x, w) },
                else_branch = body () => (float[4, 16] e) { w = Constant <value = float[16, 16] random> ()
                                                            e = MatMul(x, w) }
            >
        }""",
        keys=("y.then_branch/w", "y.else_branch/w"),
    ),
    "if that returns its weight": Case(
        """
        net (float[4, 16] x, bool c) => (float[4, 16] y) {
            chosen = If (c) <
                then_branch = yes () => (float[16, 16] w) <float[16, 16] w = random> { },
                else_branch = no () => (float[16, 16] w) { w = Constant <value = float[16, 16] random> () }
            >
            y = MatMul(x, chosen)
        }""",
        keys=("chosen.then_branch/w", "chosen.else_branch/w"),
    ),
    "if that uses an outer weight": Case("""
        net (float[4, 16] x, bool c) => (float[4, 16] y) <float[16, 16] w = random> {
            y = If (c) <
                then_branch = yes () => (float[4, 16] t) { t = MatMul(x, w) },
                else_branch = no () => (float[4, 16] e) { twice = Add(x, x) e = MatMul(twice, w) }
            >
        }"""),
    "loop": Case(
        """
        net (float[4, 16] x) => (float[4, 16] y)
        <int64 trips = {3}, bool more = {1}, float[4, 16] start = random> {
            y = Loop (trips, more, start) <
                body = step (int64 i, bool go, float[4, 16] sum) => (bool on, float[4, 16] next)
                <float[16, 16] w = random> {
                    on = Identity(go)
                    part = MatMul(x, w)
                    next = Add(sum, part)
                }
            >
        }""",
        keys=("y.body/w",),
    ),
    "scan": Case(
        """
        net (float[4, 16] x) => (float[16] y, float[4, 16] rows) <float[16] start = random> {
            y, rows = Scan <
                num_scan_inputs = 1,
                body = step (float[16] sum, float[16] row) => (float[16] next, float[16] out)
                <float[16, 16] w = random> {
                    out = MatMul(row, w)
                    next = Add(sum, out)
                }
            > (start, x)
        }""",
        keys=("y.body/w",),
    ),
    "function": Case(
        """
        <ir_version: 10, opset_import: ["" : 18, "local" : 1]>
        net (float[4, 16] x, float[4, 16] z) => (float[4, 16] y, float[4, 16] v) {
            y = local.project(x)
            v = local.project(z)
        }
        <domain: "local", opset_import: ["" : 18]>
        project (x) => (y) {
            w = Constant <value = float[16, 16] random> ()
            y = MatMul(x, w)
        }""",
        keys=("local.project()/w",),
    ),
    "function with a body": Case(
        """
        <ir_version: 10, opset_import: ["" : 18, "local" : 1]>
        net (float[4, 16] x, bool c) => (float[4, 16] y) { y = local.project(x, c) }
        <domain: "local", opset_import: ["" : 18]>
        project (x, c) => (y) {
            y = If (c) <
                then_branch = yes () => (float[4, 16] t) { w = Constant <value = float[16, 16] random> ()
                                                           t = MatMul(x, w) },
                else_branch = no () => (float[4, 16] e) <float[16, 16] w = random> { e = MatMul(x, w) }
            >
        }""",
        keys=("local.project()/y.then_branch/w", "local.project()/y.else_branch/w"),
    ),
    "function of an older opset": Case(
        """
        <ir_version: 10, opset_import: ["" : 18, "local" : 1]>
        net (float[4, 16] x) => (float[4, 16] y) { y = local.project(x) }
        <domain: "local", opset_import: ["" : 13]>
        project (x) => (y) {
            w = Constant <value = float[16, 16] random> ()
            y = MatMul(x, w)
        }""",
        keys=("local.project()/w",),
    ),
    "sparse": Case(
        """
        net (float[4, 16] x) => (float[4, 16] y) <float[16, 16] w = random> { y = MatMul(x, w) }""",
        sparse="flat",
    ),
    "sparse by rows": Case(
        """
        net (float[4, 16] x) => (float[4, 16] y) <float[16, 16] w = random> { y = MatMul(x, w) }""",
        sparse="rows",
    ),
    "sparse constant": Case(
        """
        net (float[4, 16] x) => (float[4, 16] y) {
            w = Constant <value = float[16, 16] random> ()
            y = MatMul(x, w)
        }""",
        sparse="flat",
    ),
    "weight that is an output": Case("""
        net (float[4, 16] x) => (float[4, 16] y, float[16, 16] w) <float[16, 16] w = random> { y = MatMul(x, w) }"""),
    "constant that is an output": Case("""
        net (float[4, 16] x) => (float[4, 16] y, float[16, 16] w) {
            w = Constant <value = float[16, 16] random> ()
            y = MatMul(x, w)
        }"""),
    "weight that is an input": Case("""
        net (float[16, 16] w = random, float[4, 16] x) => (float[4, 16] y) { y = MatMul(x, w) }"""),
    "IR 3": Case("""
        <ir_version: 3, opset_import: ["" : 11]>
        net (float[4, 16] x, float[16, 32] w = random, float[32] b = random) => (float[4, 32] y) { y = Gemm(x, w, b) }
    """),
    "opset 11": Case("""
        <ir_version: 6, opset_import: ["" : 11]>
        net (float[4, 16] x) => (float[4, 16] y) <float[16, 16] w = random> { y = MatMul(x, w) }"""),
    "newest opset": Case(f"""
        <ir_version: 10, opset_import: ["" : {NEWEST_OPSET}]>
        net (float[4, 16] x) => (float[4, 16] y) <float[16, 16] w = random> {{ y = MatMul(x, w) }}"""),
    "float16": Case(
        """
        net (float16[4, 16] x) => (float16[4, 16] y) <float16[16, 16] w = random> { y = MatMul(x, w) }""",
        linear=False,  # its outputs are rounded to float16
    ),
    "float16 behind a cast": Case("""
        net (float[4, 16] x) => (float[4, 16] y) <float16[16, 16] w = random> {
            wide = Cast <to = 1> (w)
            y = MatMul(x, wide)
        }"""),
    "bfloat16 behind a cast": Case("""
        net (float[4, 16] x) => (float[4, 16] y) <bfloat16[16, 16] w = random> {
            wide = Cast <to = 1> (w)
            y = MatMul(x, wide)
        }"""),
    "double": Case("""
        net (double[4, 16] x) => (double[4, 16] y) <double[16, 16] w = random> { y = MatMul(x, w) }"""),
}


def cases(*, linear: bool = False) -> list[str]:
    """Return the names of the models, or of those only that are linear in each weight."""
    return [name for name, case in ZOO.items() if case.linear or not linear]


def made_proto(name: str) -> onnx.ModelProto:
    """Return a fresh model of the zoo, as its file has it."""
    case = ZOO[name]
    found = proto(case.text)
    if case.sparse:
        make_sparse(found, flat=case.sparse == "flat")
    return found


def made(name: str) -> ir.Model:
    """Return a fresh model of the zoo, as a user would load it."""
    return files.load(made_proto(name))


def of_strategy(strategy: str = "redundancy", **settings: Any) -> dict[str, Any]:
    """Return settings of `Scheme.paper` without those that the strategy does not have, for tests of all strategies."""
    row = STRATEGIES[strategy]
    absent = set() if row.adaptive else {"cells_large"}
    absent |= set() if row.classes == 2 else {"large_fraction", "threshold"}
    return {"strategy": strategy, **{name: value for name, value in settings.items() if name not in absent}}


def protected(
    plain: ir.Model | str,
    plan: Plan | Scheme | None = None,
    *,
    sparsity: float = 0.0,
    selection: Selection = SMALL,
    manifest: bool = False,
    **settings: Any,
) -> ir.Model:
    """Return `plain`, or a fresh model of the zoo by its name, protected in place.

    Without a plan, all tensors are stored as `Scheme.paper` says with these settings, for the channel `QUIET`.
    """
    found = made(plain) if isinstance(plain, str) else plain
    assert plan is None or not settings, "a plan has its settings already"
    if sparsity:
        PrunePass(sparsity=sparsity, selection=selection)(found)
    ProtectPass(
        plan=Plan.of(plan or Scheme.paper(**of_strategy(**{"channel": QUIET, **settings}))), selection=selection
    )(found)
    if manifest:
        ManifestPass()(found)
    return found


def numbers(model: ir.Model, name: str) -> NDArray[Any]:
    """Return an initializer of the main graph."""
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


# ---------------------------------------------------------------------------------------------------- running


def session(model: ir.Model | onnx.ModelProto, optimised: Path | None = None) -> ort.InferenceSession:
    """Return an onnxruntime session, which writes the graph that it runs to `optimised` if given."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors
    if optimised is not None:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # beyond: not portable
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(serialized(model), options, providers=["CPUExecutionProvider"])


def run(model: ir.Model | onnx.ModelProto, feeds: Feeds) -> Outputs:
    """Return the outputs of `model`, as onnxruntime computes them."""
    outputs: Outputs = session(model).run(None, dict(feeds))
    return outputs


def feeds(model: ir.Model, *, seed: int = 0) -> list[dict[str, NDArray[Any]]]:
    """Return random inputs of `model`, one set for each combination of the truth values among them."""
    rng = np.random.default_rng(seed)
    given = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    drawn = {str(value.name): _drawn(value, rng) for value in given if value.dtype != ir.DataType.BOOL}
    flags = [str(value.name) for value in given if value.dtype == ir.DataType.BOOL]
    return [
        {**drawn, **{name: np.array(flag) for name, flag in zip(flags, combination, strict=True)}}
        for combination in product([True, False], repeat=len(flags))
    ]


def _drawn(value: ir.Value, rng: np.random.Generator) -> NDArray[Any]:
    assert value.shape is not None
    assert value.dtype is not None
    shape = tuple(value.shape.numpy())
    if value.dtype.is_integer():
        return rng.integers(16, size=shape)
    return rng.normal(size=shape).astype(value.dtype.numpy())


def operators(model: ir.Model) -> list[str]:
    """Return the operators that onnxruntime runs for `model` in the end, in bodies too; constants are none."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        session(model, path)
        found = [node.op_type for node in ir.load(path).graph.all_nodes()]
    return sorted(kind for kind in found if kind != "Constant")


# -------------------------------------------------------------------------------------------------- comparing


def serialized(model: ir.Model | onnx.ModelProto) -> bytes:
    """Return the bytes of a model's file."""
    found = ir.to_proto(model) if isinstance(model, ir.Model) else model
    return bytes(found.SerializeToString(deterministic=True))


def same_bits(one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> bool:
    """Return whether two lists of arrays are equal in number, types, shapes and every bit: -0 is not 0."""
    return len(one) == len(other) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(one, other, strict=True)
    )


def differences(one: onnx.ModelProto, other: onnx.ModelProto) -> set[str]:
    """Return what differs between two models: names of tensors, wherever they are kept, and "" for all else.

    A tensor is named by its own name, or by that of its Constant node's output.
    """
    (rest, tensors), (other_rest, other_tensors) = _taken_apart(one), _taken_apart(other)
    names = {place: name for place, (name, _) in (tensors | other_tensors).items()}
    found = {names[place] for place in names if tensors.get(place) != other_tensors.get(place)}
    return found | ({""} if rest != other_rest else set())


def _taken_apart(model: onnx.ModelProto) -> tuple[bytes, dict[int, tuple[str, bytes]]]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensors = []
    for name, tensor in _tensors(copy.graph):
        tensors.append((name, tensor.SerializeToString(deterministic=True)))
        tensor.Clear()
    for function in copy.functions:
        for name, tensor in _tensors(function):
            tensors.append((name, tensor.SerializeToString(deterministic=True)))
            tensor.Clear()
    return serialized(copy), dict(enumerate(tensors))


def _tensors(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in getattr(graph, "initializer", ()):
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield node.output[0], attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


# ----------------------------------------------------------------------------------------------------- bounds


def decode_bound(tensor: StoredTensor, weight: NDArray[Any], span: tuple[float, float]) -> NDArray[np.float64]:
    """Return how far each decoded weight may be from `weight`.

    u·(4·|w| + 5·S/α) is the bound of `onnx_analog.coding.planes`; the second order of u, and one rounding to its type
    where that is narrower than float32, are added.
    """
    alpha = np.ones(tensor.size)
    stored = weight.ravel() != 0
    alpha[stored] = of_each(tensor.alpha, tensor.class_index, tensor.group)
    size = np.abs(weight.astype(np.float64))
    scale = max(abs(level) for level in span) / alpha.reshape(weight.shape)
    bound = U * (4 * size + 5 * scale) * (1 + 8 * U)
    if weight.dtype in HALF_UNIT:
        bound += HALF_UNIT[weight.dtype] * (size + bound) + LEAST_HALF
    found: NDArray[np.float64] = np.where(weight == 0, 0.0, bound)
    return found


def with_floats(model: ir.Model, change: Callable[[str, NDArray[Any]], NDArray[Any]]) -> ir.Model:
    """Return a copy of `model` in which every float tensor a called key, weight or not, is change(key, a)."""
    copy = model.clone()
    for tensor in [tensor for tensor in all_tensors(copy) if tensor.tensor.dtype in FLOATS]:
        tensor.replace(change(tensor.key, tensor.array()))
    return copy


def output_bound(plain: ir.Model, protected: ir.Model, feeds: Feeds, span: tuple[float, float]) -> Outputs:
    """Return how far each output of `protected` may be from that of `plain`, a model that is linear in each weight.

    Σ|x|·δ, where each weight may be δ off, is what the model itself makes of |x| and δ. Each run rounds each of its
    n terms, and so is off by n·u·Σ|x|·|w| at most; n is what the model makes of ones.
    """
    stored = {tensor.key: tensor for tensor in stored_tensors(protected)}

    def off(key: str, array: NDArray[Any]) -> NDArray[Any]:
        return _up(decode_bound(stored[key], array, span), array.dtype) if key in stored else np.zeros_like(array)

    moved = run(with_floats(plain, off), {name: _abs(array) for name, array in feeds.items()})
    sums = run(with_floats(plain, lambda _, array: np.abs(array)), {name: _abs(array) for name, array in feeds.items()})
    terms = run(with_floats(plain, lambda _, array: np.ones_like(array)), {n: _ones(a) for n, a in feeds.items()})
    return [m * (1 + 2 * n * U) + 2 * n * U * s for m, s, n in zip(moved, sums, terms, strict=True)]


def _up(array: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    above: NDArray[Any] = np.nextafter(array.astype(dtype), np.array(np.inf, dtype))
    return above


def _abs(array: NDArray[Any]) -> NDArray[Any]:
    return np.abs(array) if array.dtype.kind == "f" else array


def _ones(array: NDArray[Any]) -> NDArray[Any]:
    return np.ones_like(array) if array.dtype.kind == "f" else array


def assert_within(found: Outputs, expected: Outputs, bounds: Outputs) -> None:
    """Fail unless each output is within its bound of what is expected."""
    for one, other, bound in zip(found, expected, bounds, strict=True):
        assert one.shape == other.shape, "another shape"
        worst = float((np.abs(one.astype(np.float64) - other) / np.maximum(bound, np.finfo(float).tiny)).max())
        assert worst <= 1, f"an output is off by {worst:.3g} times its bound"


def assert_same_top(found: Outputs, expected: Outputs, bounds: Outputs) -> None:
    """Fail unless the largest value along the last axis is the same wherever it leads by more than twice the bound."""
    for one, other, bound in zip(found, expected, bounds, strict=True):
        second, first = np.moveaxis(np.sort(other, axis=-1)[..., -2:], -1, 0)
        clear = first - second > 2 * bound.max(axis=-1)
        assert clear.any(), "no value leads, so none was compared"
        assert (one.argmax(axis=-1) == other.argmax(axis=-1))[clear].all(), "another value is the largest"
