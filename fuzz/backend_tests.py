"""ONNX's own backend tests, each as it is and with its float inputs made initializers.

Number 2·i is test i as it is; 2·i + 1 has its float inputs of rank 2 and more as initializers, so that there is
something to store. What protect writes must agree with the original as `fuzz.agreement` says, on the inputs that come
with the test.
"""

from __future__ import annotations

import functools
import io
import json
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper

from fuzz import account, agreement, oracles
from fuzz.agreement import Reference
from fuzz.judge import Case, Judge
from fuzz.mutate_proto import of_type

_RANDOM = {
    "Bernoulli",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Dropout",
}
OPTIONS = ("--min-size", "1", "--channel", "gaussian:sigma=0.01")


class Test(NamedTuple):
    """One backend test: a model, and inputs and outputs where there are such."""

    name: str
    model: bytes
    inputs: Sequence[Any]
    outputs: Sequence[Any]


@functools.cache
def tests() -> list[Test]:
    """Return all backend tests that onnx ships, the generated ones first."""
    from onnx.backend.test.case.node import collect_testcases
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generated = collect_testcases(None)
    tests = [
        Test(case.name, case.model.SerializeToString(), *(case.data_sets or [((), ())])[0])
        for case in generated
        if case.model is not None
    ]
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        tests += [
            _from_folder(case.name, Path(case.model_dir)) for case in load_model_tests(kind=kind) if case.model_dir
        ]
    light = Path(onnx.backend.test.__file__).parent / "data" / "light"
    tests += [Test(path.stem, path.read_bytes(), (), ()) for path in sorted(light.glob("*.onnx"))]
    return tests


def _from_folder(name: str, folder: Path) -> Test:
    model = onnx.load(folder / "model.onnx")
    data = folder / "test_data_set_0"
    parts = [
        [_value(data / f"{kind}_{i}.pb", value) for i, value in enumerate(values) if (data / f"{kind}_{i}.pb").exists()]
        for kind, values in (("input", model.graph.input), ("output", model.graph.output))
    ]
    return Test(name, (folder / "model.onnx").read_bytes(), *parts)


def _value(path: Path, described: onnx.ValueInfoProto) -> Any:
    kind = described.type.WhichOneof("value")
    if kind == "tensor_type":
        return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))
    if kind == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(path.read_bytes()))
    return numpy_helper.to_optional(onnx.OptionalProto.FromString(path.read_bytes()))


def case(number: int) -> Case:
    """Return variant `number` as an input."""
    test, fixed = tests()[number // 2], number % 2 == 1
    model = onnx.ModelProto.FromString(test.model)
    initializers = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input]
    if len(test.inputs) < len(names):
        names = [name for name in names if name not in initializers]
    feeds = dict(zip(names, test.inputs, strict=False))
    if fixed:
        feeds = _made_initializers(model, feeds)
    unmutated = {"feeds": pickle.dumps(feeds), "expected": pickle.dumps(list(test.outputs))}
    files = {"m.onnx": model.SerializeToString(), **_npz(feeds)}
    return Case("backend", 0, number, files, ("initializers" if fixed else "as it is",), test.name, (), unmutated)


def _made_initializers(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, Any]:
    left = {}
    for name, value in feeds.items():
        floats = isinstance(value, np.ndarray) and (value.dtype.kind == "f" or value.dtype.name == "bfloat16")
        if not (floats and value.ndim >= 2 and value.size):
            left[name] = value
            continue
        model.graph.initializer.append(numpy_helper.from_array(value, name))
        for index, value in enumerate(model.graph.input):
            if value.name == name:
                del model.graph.input[index]
                break
    return left


def _npz(feeds: dict[str, Any]) -> dict[str, bytes]:
    """Return d.npz with one sample of each input, where inputs are arrays of numbers."""
    if not feeds or not all(isinstance(value, np.ndarray) and value.dtype.kind in "biuf" for value in feeds.values()):
        return {}
    file = io.BytesIO()
    try:
        np.savez(file, allow_pickle=False, **{name: value[None] for name, value in feeds.items()})
    except (TypeError, ValueError):  # an input has a name of savez's own
        return {}
    return {"d.npz": file.getvalue()}


def judge(judge: Judge) -> None:
    """Inspect, protect and evaluate a variant."""
    case, folder = judge.case, judge.folder
    if case.steps == ("initializers",) and case.number % 2 and not _changed(case):
        judge.verdict.outcomes.append(("variant", "no float input of rank 2: the same as it is"))
        return
    reference = _reference(judge)
    judge.accepted(judge.run("inspect", "m.onnx", "--min-size", "1", "--json"), reference)
    outputs = ("p.onnx", "p.json")
    protect = judge.run(
        "protect", "m.onnx", *OPTIONS, "-o", "p.onnx", "--manifest", "p.json", "--json", outputs=outputs
    )
    judge.accepted(protect, reference)
    if protect.code == 0:
        judge.add(agreement.protected(folder / "m.onnx", folder / "p.onnx", reference))
        body = json.loads(protect.out)
        judge.add(agreement.totals(folder / "p.onnx", body, command="protect"))
    model = "p.onnx" if protect.code == 0 else "m.onnx"
    if "d.npz" not in case.files:
        return
    trials = "1" if protect.code == 0 else "0"
    evaluated = judge.run("evaluate", model, "--data", "d.npz", "--trials", trials, "--threads", "1", "--json")
    judge.accepted(evaluated, reference)
    if protect.code or evaluated.code or case.number % 6 != 1:
        return
    if judge.run("readback", "p.onnx", "--decoded", "-o", "r.onnx", outputs=("r.onnx",)).code == 0:
        paths = folder / "p.onnx", folder / "r.onnx", folder / "d.npz"
        judge.add(agreement.noisy(*paths, oracles.json_of(evaluated)))


def _changed(case: Case) -> bool:
    return len(account.tensors(onnx.ModelProto.FromString(case.files["m.onnx"]))) > len(
        account.tensors(onnx.ModelProto.FromString(tests()[case.number // 2].model))
    )


def _reference(judge: Judge) -> Reference:
    """Return what onnxruntime gives on the test's own inputs; no outputs where they are random."""
    judge._stage("onnxruntime")
    case, path = judge.case, judge.folder / "m.onnx"
    try:
        session = agreement.session(path)
    except Exception as error:
        return Reference(refused=str(error)[:300])
    feeds, expected = (pickle.loads(case.unmutated[name]) for name in ("feeds", "expected"))
    try:
        if not feeds and not expected:
            feeds = agreement.feeds_for(session)
        outputs = session.run(None, feeds)
    except Exception as error:
        return Reference(failed=str(error)[:300])
    operators = {node.op_type for node in of_type(onnx.ModelProto.FromString(case.files["m.onnx"]), "NodeProto")}
    text = agreement.difference(outputs, expected, 1e-3) if expected else None
    if operators & _RANDOM:
        return Reference(feeds)
    judge.verdict.outcomes.append(
        ("onnxruntime", "accepted" if text is None else "differs from the test's own outputs")
    )
    return Reference(feeds, outputs)
