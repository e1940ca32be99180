"""Writes the corpus beside it, `python -m tests.fuzz.make_corpus`: one small input for each kind of fault."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fuzz import of_models, of_texts, seeds

CORPUS = Path(__file__).resolve().parent / "corpus"
PROTECT = "protect {} --min-size 16 --channel gaussian:sigma=0.01 -o out.onnx --manifest out.json"
OUT = ["out.onnx", "out.json"]
REFUSED, DONE, EITHER = [1, 2], [0], [0, 1, 2]

rows: list[dict[str, Any]] = []


def save(name: str, data: bytes | onnx.ModelProto | dict[str, Any]) -> str:
    """Write a file of the corpus; return its name."""
    if isinstance(data, onnx.ModelProto):
        data = data.SerializeToString(deterministic=True)
    (CORPUS / name).write_bytes(json.dumps(data).encode() if isinstance(data, dict) else data)
    return name


def expect(
    files: str,
    command: str,
    exits: list[int],
    *says: str,
    never: tuple[str, ...] = (),
    outputs: list[str] | None = None,
) -> None:
    """Add a row: the files, separated by spaces, a command on them ({} is the first), and what must come of it."""
    names = files.split()
    row = {"files": names, "command": command.format(names[0]), "exit": exits, "says": list(says), "never": list(never)}
    rows.append({**row, "outputs": outputs or []})


def dense(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(scale=0.3, size=shape).astype(np.float32)


def named(name: str, array: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def net(text: str, *weights: TensorProto, head: str = '<ir_version: 10, opset_import: ["": 18]>') -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"{head} {text}")
    model.graph.initializer.extend(weights)
    return model


def product(*weights: TensorProto) -> onnx.ModelProto:
    """Return y = x·w, and weights beside it."""
    return net("g (float[N, 16] x) => (float[N, 16] y) { y = MatMul(x, w) }", *weights)


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def models() -> None:
    x = save("x.npz", npz(x=dense(3, 16, seed=1), y=np.arange(3)))
    evaluate = "evaluate {} --data x.npz --trials 0 --json"
    w = named("w", dense(16, 16))

    empty = product(TensorProto(name="w", data_type=1, dims=[16, 16]))
    for command in ("inspect {}", PROTECT):
        expect(save("no-data.onnx", empty), command, REFUSED, "w")
    expect(f"no-data.onnx {x}", evaluate, REFUSED, "w")
    huge = product(TensorProto(name="w", data_type=1, dims=[40000, 40000]))
    expect(save("no-data-6-gigabytes.onnx", huge), "inspect {}", REFUSED, "w")
    over = product(TensorProto(name="w", data_type=1, dims=[2**32, 2**32], raw_data=b"0123"))
    expect(save("dims-overflow.onnx", over), PROTECT, REFUSED, "w")
    short = product(w)
    short.graph.initializer[0].raw_data = short.graph.initializer[0].raw_data[:-4]
    expect(save("short-data.onnx", short), "inspect {}", REFUSED, "w")
    negative = product(TensorProto(name="w", data_type=1, dims=[-16, -16], raw_data=bytes(1024)))
    expect(save("negative-dims.onnx", negative), "inspect {}", REFUSED, "w")

    expect(save("twice.onnx", product(w, named("w", dense(16, 16, seed=5)))), PROTECT, REFUSED, "w")
    wide = dense(16, 16)
    wide[0, 0] = 1e10
    expect(save("wide-range.onnx", product(named("w", wide))), PROTECT, [0, 3], "w", never=("ModelError",), outputs=OUT)
    expect(save("unused.onnx", product(w, named("old", dense(16, 16)))) + f" {x}", evaluate, DONE, '"original"')
    expect(f"unused.onnx {x}", "evaluate {} --data x.npz --trials 0", DONE)

    shadowed = net(
        """g (float[N, 16] x, bool[] c) => (float[N, 16] y) {
            o = Mul(x, w) i = If(c) <then_branch = t () => (float[N, 16] p) { p = MatMul(x, w) },
                                      else_branch = e () => (float[N, 16] q) { q = Relu(o) }>
            y = Add(i, x) }""",
        named("w", dense(16)),
    )
    next(one for one in shadowed.graph.node[1].attribute if one.name == "then_branch").g.initializer.append(w)
    expect(save("shadowed.onnx", shadowed), PROTECT, DONE, "out.onnx", outputs=OUT)

    for name in ("map", "sequence"):
        expect(save(f"{name}.onnx", seeds.MODELS[name]()), PROTECT, DONE, "out.onnx", outputs=OUT)
        expect(f"{name}.onnx {x}", "evaluate {} --data x.npz --trials 0 --json", DONE, '"top1"')
    images = save("images.npz", npz(x=dense(2, 2, 6, 6)))
    detection = save("one-channel.onnx", seeds.MODELS["images"]())
    expect(f"{detection} {images}", "evaluate {} --data images.npz --trials 0 --json", EITHER, never=('"agreement"',))

    escapes = product(named("w", dense(16, 16)))
    escapes.graph.initializer[0].name = escapes.graph.node[0].input[1] = "\x1b[31mw\r\x1b]0;title\x07"
    expect(save("escapes.onnx", escapes), "inspect {} --min-size 16", EITHER, "\\x1b", never=("\x1b",))
    expect("escapes.onnx", PROTECT, EITHER, outputs=OUT)
    noted = product(w)
    noted.graph.node[0].doc_string = "café"
    bytes_ = noted.SerializeToString().replace("café".encode(), b"caf\xff\xff")
    expect(save("not-utf8.onnx", bytes_), PROTECT, EITHER, outputs=OUT)
    expect(save("no-model.onnx", b"hello, world"), "inspect {}", REFUSED, "no-model.onnx")
    expect(save("empty.onnx", b""), "inspect {}", REFUSED, "empty.onnx")
    typed = net("g (float[N, 16] x) => (float[N, 16] y) { z = NoSuchOperator(x, w) y = Relu(z) }", w)
    expect(save("no-such-operator.onnx", typed) + f" {x}", evaluate, REFUSED, "NoSuchOperator")

    old = net(
        "g (float[N, 16] x) => (float[N, 16] y) { y = MatMul(x, w) }", w, head='<ir_version: 4, opset_import: ["": 9]>'
    )
    expect(save("opset-9.onnx", old), PROTECT, REFUSED, "opset", "9")
    expect("opset-9.onnx", "inspect {} --min-size 16", DONE, "opset 9")
    only = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.5], scale=[2.0])
    alone = net("g (float[N, 1] x) => (float[N, 1] y) { }", head='<ir_version: 8, opset_import: ["ai.onnx.ml": 1]>')
    alone.graph.node.append(only)
    expect(save("ml-only.onnx", alone), "inspect {}", DONE, "opset")

    doubled = " ".join(f"a{i + 1} = Add(a{i}, a{i})" for i in range(30))
    reshaped = " ".join(f"w{i + 1} = Reshape(w{i}, w{i})" for i in range(24))
    doubling = net(
        f"g (float[N, 16] x) => (float[N, 16] y) {{ a0 = Relu(x) {doubled} y = Relu(a30) {reshaped} }}",
        named("w0", dense(16, 16)),
    )
    expect(save("reshape-chain.onnx", doubling), "inspect {} --min-size 16", EITHER)
    bomb = product(w)
    sparse = bomb.graph.sparse_initializer.add(dims=[50000, 50000])
    sparse.values.CopyFrom(named("bomb", dense(1)))
    sparse.indices.CopyFrom(named("", np.array([0])))
    expect(save("sparse-bomb.onnx", bomb), "inspect {}", EITHER)
    outside = product(TensorProto(name="w", data_type=1, dims=[4, 4], data_location=TensorProto.EXTERNAL))
    outside.graph.initializer[0].external_data.add(key="location", value="../../../../etc/passwd")
    expect(save("data-outside.onnx", outside), PROTECT, REFUSED, "w")
    elsewhere = product(w)
    sparse = elsewhere.graph.sparse_initializer.add(dims=[4, 4])
    sparse.values.CopyFrom(TensorProto(name="s", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL))
    sparse.values.external_data.add(key="location", value="x.npz")
    sparse.indices.CopyFrom(named("", np.array([0, 1])))
    expect(save("sparse-external.onnx", elsewhere) + f" {x}", "inspect {}", EITHER)


Change = Callable[[dict[str, Any], onnx.ModelProto], None]


def plane(name: str, change: Callable[[Any], Any]) -> Change:
    """Return what puts another array in the place of a plane."""

    def apply(_: dict[str, Any], model: onnx.ModelProto) -> None:
        tensor = next(one for one in model.graph.initializer if one.name == name)
        array = change(numpy_helper.to_array(tensor).copy())
        tensor.CopyFrom(numpy_helper.from_array(array, name))

    return apply


def first(value: float) -> Callable[[Any], Any]:
    """Return what puts another number in the first place of an array."""

    def change(array: Any) -> Any:
        array.reshape(-1)[0] = value
        return array

    return change


def call(name: str, value: Any) -> Change:
    """Return what gives an attribute of all decode calls another value."""

    def apply(_: dict[str, Any], model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.domain == "onnx_analog":
                attribute = next(one for one in node.attribute if one.name == name)
                attribute.CopyFrom(helper.make_attribute(name, value))

    return apply


def damaged(base: str, data: str, name: str, change: Change) -> None:
    """Save a protected model with one thing changed; `change` gets its scheme too. All commands refuse it."""
    model = onnx.ModelProto.FromString((CORPUS / base).read_bytes())
    entry = next(one for one in model.metadata_props if one.key == "onnx_analog.schemes")
    schemes = json.loads(entry.value)
    change(schemes[0], model)
    entry.value = json.dumps(schemes)
    save(name, model)
    for command in ("evaluate {} --data p.npz --trials 1 --json", "manifest {}", "readback {} --decoded -o out.onnx"):
        expect(f"{name} {data}", command, REFUSED, outputs=["out.onnx"])


def protected_models() -> None:
    files = of_models.protected("mlp", 0)
    x = save("p.npz", files["d.npz"])
    save("p.onnx", files["p.onnx"])

    def changed(name: str, change: Change) -> None:
        damaged("p.onnx", x, name, change)

    for value in (0.0, float("nan"), float("inf"), -1.0):
        changed(f"alpha-{value:g}.onnx", plane("w.alpha", first(value)))
    changed("beta-nan.onnx", plane("w.beta", first(float("nan"))))
    changed("level-other.onnx", plane("w.level", first(0.123)))
    changed("level-short.onnx", plane("w.level", lambda array: array[:-8]))
    changed("sign-short.onnx", plane("w.sign", lambda array: array[:-1]))
    changed("class-padded.onnx", plane("v.class", lambda array: np.append(array, np.uint8(255))))
    changed("shape-large.onnx", plane("w.shape", lambda array: array * 2**14))
    changed("cells-0.onnx", lambda scheme, _: scheme.update(cells=[0, 3]))
    changed("cells-many.onnx", lambda scheme, _: scheme.update(cells=[1, 10**12]))
    changed("bits-negative.onnx", lambda scheme, _: scheme.update(side_bits_per_cell=-2))
    changed("partition-unknown.onnx", lambda scheme, _: scheme.update(partition="magic"))
    changed("granularity-unknown.onnx", lambda scheme, _: scheme.update(granularity="layer"))
    side = {"side_channel": {"family": "gaussian", "sigma": 0.1}, "side_cells": 10**9, "side_copies": 10**9 + 1}
    changed("side-copies.onnx", lambda scheme, _: scheme.update(side))
    changed("estimator-unknown.onnx", lambda scheme, _: scheme.update(estimator="magic"))
    changed("scheme-beyond.onnx", call("scheme", 1))
    changed("scheme-negative.onnx", call("scheme", -1))
    changed("one-key-twice.onnx", call("key", "w"))

    save("four-classes.onnx", of_models.protected("mlp", 5)["p.onnx"])
    expect(f"four-classes.onnx {x}", "evaluate {} --data p.npz --trials 1 --json", DONE, '"original"')
    damaged("four-classes.onnx", x, "analog-other.onnx", plane("w.analog", first(1)))
    damaged("four-classes.onnx", x, "class-other.onnx", plane("w.class", lambda array: array ^ np.uint8(1)))
    damaged(
        "four-classes.onnx", x, "classes-more.onnx", lambda scheme, _: scheme.update(classes=5, cells=[0, 1, 2, 3, 4])
    )
    damaged("four-classes.onnx", x, "levels-more.onnx", plane("w.level", lambda array: np.append(array, array[:1])))
    save("channels.onnx", of_models.protected("mlp", 6)["p.onnx"])
    expect(f"channels.onnx {x}", "evaluate {} --data p.npz --trials 1 --json", DONE, '"original"')
    damaged("channels.onnx", x, "class-beyond.onnx", plane("w.class", first(255)))  # class 3 of 3
    damaged("channels.onnx", x, "stride-0.onnx", plane("w.stride", first(0)))
    damaged("channels.onnx", x, "stride-other.onnx", plane("w.stride", first(16)))
    damaged("channels.onnx", x, "groups-fewer.onnx", plane("w.alpha", lambda array: array[:-1]))
    save("int4.onnx", of_models.protected("mlp", 10)["p.onnx"])
    expect(f"int4.onnx {x}", "evaluate {} --data p.npz --trials 1 --json", DONE, '"original"')
    damaged("int4.onnx", x, "point-nan.onnx", plane("w.beta", first(float("nan"))))
    damaged("int4.onnx", x, "point-other.onnx", plane("w.beta", first(0.5)))

    for command in (
        "manifest {}",
        "inspect {}",
        "readback {} --decoded -o out.onnx",
        "evaluate {} --data p.npz --json",
    ):
        expect(f"format-1.onnx {x}", command, [1], "format 1", outputs=["out.onnx"])  # as an earlier version wrote it
    expect("format-1.json", "manifest {}", [1], "onnx-analog-manifest/1")
    expect("p.onnx format-1.json", "manifest {} --check format-1.json", [1], "onnx-analog-manifest/1")

    body = json.loads(files["p.json"])

    def manifest(name: str, change: Callable[[Any], None], *, alone: bool = True) -> None:
        other = json.loads(files["p.json"])
        change(other)
        save(name, other)
        expect(f"p.onnx {name}", f"manifest {{}} --check {name}", [1])
        if alone:
            expect(name, "manifest {}", [1])

    expect("p.onnx " + save("right.json", body), "manifest {} --check right.json", DONE, "describes")
    manifest("addresses-overlap.json", lambda one: one["tensors"][1]["cells"].update(level=[0, 10]))
    manifest("address-negative.json", lambda one: one["tensors"][0]["cells"].update(level=[-5, 10]))
    manifest("stored-more.json", lambda one: one["tensors"][0].update(stored=1000))
    manifest("totals-other.json", lambda one: one["totals"].update(analog_cells=1))
    manifest("baseline-other.json", lambda one: one["baselines"][0].update(cells=1), alone=False)
    manifest("scheme-other.json", lambda one: one["schemes"][0].update(cells=[2, 3]), alone=False)
    manifest("source-other.json", lambda one: one.update(source_sha256="0" * 64), alone=False)
    manifest("count-true.json", lambda one: one["tensors"][0].update(uses=True))


def plans() -> None:
    """Write plans that are right, and plans that are not."""
    mlp = save("mlp.onnx", seeds.MODELS["mlp"]())
    protect = "protect {} --min-size 16 --plan PLAN -o out.onnx --manifest out.json"
    scheme = {"channel": {"family": "gaussian", "sigma": 0.01}, **of_models.SCHEMES["four"]}
    right = {"format": "onnx-analog-plan/1", "schemes": {"a": scheme}, "default": "a", "tensors": {"v": None}}
    expect(f"{mlp} {save('plan.json', right)}", protect.replace("PLAN", "plan.json"), DONE, "out.onnx", outputs=OUT)
    changes: dict[str, dict[str, Any]] = {
        "format": {"format": "onnx-analog-plan/9"},
        "no-scheme": {"default": "b"},
        "entry": {"extra": 1},
        "cells": {"schemes": {"a": {**scheme, "cells": [1, 2]}}},
        "setting": {"schemes": {"a": {**scheme, "magic": 1}}},
        "key": {"tensors": {"": "a"}},
        "list": {"tensors": ["v"]},
        "unused": {"tensors": {"no such tensor": "a"}},
    }
    for name, change in changes.items():
        file = save(f"plan-{name}.json", {**right, **change})
        exits = EITHER if name == "unused" else REFUSED
        expect(f"{mlp} {file}", protect.replace("PLAN", file), exits, outputs=OUT)
    deep = save("plan-deep.json", b'{"format": ' + b"[" * 5000 + b"]" * 5000 + b"}")
    expect(f"{mlp} {deep}", protect.replace("PLAN", deep), REFUSED, outputs=OUT)
    expect(f"{mlp} right.json", protect.replace("PLAN", "right.json"), REFUSED, "plan", outputs=OUT)


def texts() -> None:
    def channel(name: str, base: str, **fields: Any) -> None:
        save(name, {**of_texts.CHANNELS[base], **fields})
        expect(name, "channel show {}", [1, 2])

    expect(save("table.json", of_texts.CHANNELS["table"]), "channel show {}", DONE, "made")
    points = len(of_texts.CHANNELS["table"]["inputs"])
    channel("sigma-true.json", "gaussian", sigma=True)
    channel("sigma-nan.json", "gaussian", sigma=float("nan"))
    channel("span-empty.json", "gaussian", low=1.0, high=1.0)
    channel("between-nan.json", "table", between=[float("nan")] * points)
    channel("between-negative.json", "table", between=[-0.1] * points)
    channel("residuals-empty-row.json", "table", residuals=[[], *of_texts.CHANNELS["table"]["residuals"][1:]])
    channel("stds-negative.json", "table", stds=[-0.1] * points)
    channel("inputs-not-sorted.json", "table", inputs=[0.0] * points)
    expect(save("deep.json", b"[" * 5000 + b"]" * 5000), "channel show {}", [1, 2], "deep.json")
    expect("deep.json", "manifest {}", [1], "deep.json")
    expect(save("no-text.json", b"\xff\xfe{}"), "channel show {}", [1, 2], "no-text.json")

    mlp, x = save("mlp.onnx", seeds.MODELS["mlp"]()), "x.npz"
    sweep = "sweep {} --data x.npz --engine serial --out run --config "
    expect(
        f"{mlp} {x} " + save("deep.toml", b"a = " + b"[" * 4000 + b"]" * 4000), sweep + "deep.toml", [2], "deep.toml"
    )
    expect(f"{mlp} {x} " + save("escapes.toml", b'"\\u001b[31m" = 1'), sweep + "escapes.toml", [2])
    expect(f"{mlp} {x} " + save("trials.toml", b"trials = 1000000000000"), sweep + "trials.toml", REFUSED, "trials")
    expect(
        f"{mlp} {x} " + save("cells.toml", b"cells = [1, 9223372036854775808]"), sweep + "cells.toml", REFUSED, "cells"
    )

    for name, data in {
        "objects.npz": npz(x=dense(3, 16)).replace(b"'<f4'", b"'|O' "),
        "claims.npz": npz(x=dense(3, 16)).replace(b"(3, 16)", b"(3000000000, 16)"),
        "cut.npz": npz(x=dense(3, 16))[:300],
        "no-samples.npz": npz(x=dense(0, 16)),
        "labels-short.npz": npz(x=dense(3, 16), y=np.arange(2)),
        "labels-high.npz": npz(x=dense(3, 16), y=np.array([0, 1, 99])),
    }.items():
        expect(f"{mlp} {save(name, data)}", f"evaluate {{}} --data {name} --trials 0 --json", [1])

    fit = "channel fit {} --input a --output b -o out.json"
    for name, text in {
        "pairs-nan.csv": "a,b\n" + "\n".join(f"{i / 9},{'nan' if i == 3 else i}" for i in range(10)),
        "pairs-text.csv": "a,b\n" + "\n".join(f"{i / 9},{'x' if i == 3 else i}" for i in range(10)),
        "pairs-few.csv": "a,b\n1,2\n",
        "pairs-constant.csv": "a,b\n" + "1,2\n" * 20,
        "pairs-short-row.csv": "a,b\n1,2\n3\n",
    }.items():
        expect(save(name, text.encode()), fit, [1], name.removesuffix(".csv"), outputs=["out.json"])


def main() -> None:
    """Write the corpus."""
    CORPUS.mkdir(exist_ok=True)
    for part in (models, protected_models, plans, texts):
        part()
    lines = ["# Written by make_corpus.py: of each input what must come of it. `says`: words in what is printed.", ""]
    for row in rows:
        lines += ["[[case]]", *(f"{name} = {json.dumps(value)}" for name, value in row.items() if value), ""]
    (CORPUS / "table.toml").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
