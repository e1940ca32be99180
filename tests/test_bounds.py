"""What docs/security.md says of memory and time: each file here is refused, or read, within its bounds.

Everything is imported first. What a command may then take beyond that is limited: memory by RLIMIT_AS, time by
RLIMIT_CPU, so that a machine that is busy with other work changes nothing.
"""

import json
import os
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_analog as oa
from tests.conftest import faults, printed_errors
from tests.forking import Bounded, forking
from tests.models import proto

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of a process is not known here")

MIB = 2**20


@pytest.fixture(scope="module")
def bounded() -> Iterator[Bounded]:
    """Return a function that runs a command, which may take so many bytes and seconds beyond its imports."""
    with forking() as run:
        yield run


def assert_refused(found: "subprocess.CompletedProcess[str]", said: str) -> None:
    assert found.returncode in (1, 2, 3), (found.returncode, found.stderr[-500:])
    (message,) = printed_errors(found.stderr)
    assert faults(message) == []
    assert said in message
    assert "memory" not in message


# ---------------------------------------------------------------------------------------- files of each kind

NET = "net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] w = random> { y = MatMul(x, w) }"


def table(points: int, **more: object) -> str:
    rng = np.random.default_rng(0)
    columns = {
        "inputs": np.linspace(-1, 1, points).tolist(),
        "means": rng.uniform(-1, 1, points).tolist(),  # up and down: each level has very many inputs
        "stds": rng.uniform(0.01, 0.2, points).tolist(),
    }
    return json.dumps({"family": "table", "name": "t", **columns, **more})


CHANNELS: dict[str, tuple[Callable[[], str], str]] = {
    "many points": (lambda: table(10_000), "lengths [10000]; 2 to 1,024"),
    "many lists": (
        lambda: '{"family": "table", "inputs": [' + "[]," * (5 * MIB) + "[]]}",
        "the field 'name' is missing",
    ),
    "many lists in a row": (
        lambda: table(2, residuals=[[], []])[:-2] + ",[]" * (5 * MIB) + "]}",
        "residuals has 5,242,882 entries",
    ),
    "many numbers": (
        lambda: table(2, residuals=[[0] * (5 * MIB), [True]]),
        "residuals[1][0] is true",
    ),
    "a long number": (lambda: '{"family": "gaussian", "sigma": ' + "9" * (15 * MIB) + "}", "is beyond 64 bits"),
    "a long name": (lambda: table(2, cells_on="x" * (15 * MIB)), "it must be different or same"),
    "many keys": (
        lambda: '{"family": "gaussian", ' + ", ".join(f'"{i}": 0' for i in range(MIB)) + "}",
        "there is no field '0'",
    ),
    "one key often": (lambda: '{"family": "gaussian"' + ', "low": 0' * MIB + "}", "an object has the name 'low' twice"),
    "deep lists": (lambda: "[" * (15 * MIB), "nested more than 32 deep"),
    "deep channels": (lambda: '{"family": "precision", "inner": ' * (MIB // 4), "nested more than 32 deep"),
    "too large": (lambda: " " * (17 * MIB), "more than the 16,777,216 that are read"),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_a_channel_is_refused_within_its_bounds(bounded, tmp_path, name):
    made, said = CHANNELS[name]
    (tmp_path / "c.json").write_text(made())
    assert_refused(bounded(tmp_path, "channel show c.json", memory=768 * MIB, seconds=10), said)


@pytest.mark.parametrize("limits", ["", " --write-bits 3 --read-bits 3", " --write-bits 16 --read-bits 16"])
def test_the_largest_channel_is_shown_within_its_bounds(bounded, tmp_path, limits):
    (tmp_path / "c.json").write_text(table(1024, residuals=[[0.1234, -0.1234] * 512] * 1024))
    found = bounded(tmp_path, f"channel show c.json{limits}", memory=768 * MIB, seconds=30)
    assert (found.returncode, found.stderr) == (0, "")


CSV: dict[str, tuple[Callable[[], str], str]] = {
    "many rows": (lambda: "a,b\n" + "1,2\n" * 1_000_001, "has more than 1,000,000 rows"),
    "empty lines": (lambda: "a,b\n" + "\n" * (20 * MIB), "has no rows"),
    "a long line": (lambda: "a,b\n" + "," * (40 * MIB), "line 2 has more than 1,048,576 characters"),
    "a wide header": (lambda: "," * (MIB - 2) + "\n1,2\n", "names no columns"),
    "a quote without an end": (lambda: 'a,b\n1,"2\n' + "3,4\n" * MIB, "line 2 is not CSV"),
    "a long cell": (lambda: "a,b\n1," + "9" * 120_000 + "\n", "line 2: column 'b' holds '999"),
    "wide labels": (
        lambda: "a,b,d\n" + "".join(f"{i % 7},{i % 3},{i:0100000}\n" for i in range(300)),
        "each device was read once",
    ),
    "too large": (lambda: " " * (65 * MIB), "more than the 67,108,864 that are read"),
}


@pytest.mark.parametrize("name", CSV)
def test_a_csv_file_is_refused_within_its_bounds(bounded, tmp_path, name):
    made, said = CSV[name]
    (tmp_path / "p.csv").write_text(made())
    group = " --group d" if name == "wide labels" else ""
    found = bounded(tmp_path, f"channel fit p.csv --input a --output b{group}", memory=512 * MIB, seconds=15)
    assert_refused(found, said)


TOML: dict[str, tuple[str, str]] = {
    "a key of many parts": ("a." * 60_000 + "b = 1", "more than 1,000 dots in a line"),
    "a table of many parts": ("[" + "a." * 60_000 + "b]", "more than 1,000 dots in a line"),
    "deep lists": ("a = " + "[" * 60_000, "nested too deeply"),
    "many entries": ("\n".join(f"a{i} = 1" for i in range(12_000)), "cannot be set there"),
    "too large": ("#" * (2**17 + 1), "more than the 131,072 that are read"),
}


@pytest.mark.parametrize("name", TOML)
def test_a_config_file_is_refused_within_its_bounds(bounded, tmp_path, name):
    text, said = TOML[name]
    (tmp_path / "c.toml").write_text(text)
    (tmp_path / "m.onnx").write_bytes(b"")
    found = bounded(tmp_path, "sweep m.onnx --data m.onnx --out o --config c.toml", memory=256 * MIB, seconds=10)
    assert_refused(found, said)
    assert not (tmp_path / "o").exists()


def without_data(dims: list[int]) -> onnx.ModelProto:
    model = proto(NET)
    del model.graph.initializer[:]
    model.graph.initializer.add(name="w", dims=dims, data_type=onnx.TensorProto.FLOAT)
    return model


def sparse(side: int) -> onnx.ModelProto:
    model = proto(NET)
    del model.graph.initializer[:]
    held = model.graph.sparse_initializer.add(dims=[side, side])
    held.values.CopyFrom(onnx.numpy_helper.from_array(np.ones(1, np.float32), "w"))
    held.indices.CopyFrom(onnx.numpy_helper.from_array(np.zeros(1, np.int64), "w_indices"))
    return model


def reshapes(depth: int) -> onnx.ModelProto:
    lines = "\n".join(f"s{i + 1} = Reshape(s{i}, s{i})" for i in range(depth))
    return proto(f"net (float[n, 16] x, int64[1] s0) => (float[n, 16] y, int64[1] z) <float[16, 16] w = random> {{ "
                 f"{lines}\n z = Identity(s{depth})\n y = MatMul(x, w) }}")  # fmt: skip


MODELS: dict[str, tuple[Callable[[], onnx.ModelProto], bool]] = {  # and whether it is refused, or may be shown
    "a tensor without data": (lambda: without_data([100_000, 100_000]), True),
    "a shape that overflows": (lambda: without_data([2**40, 2**40]), True),
    "a sparse tensor": (lambda: sparse(60_000), True),
    "a chain that doubles": (lambda: reshapes(60), False),
}


@pytest.mark.parametrize("command", ["inspect", "protect"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_opened_within_its_bounds(bounded, tmp_path, name, command):
    made, refused = MODELS[name]
    (tmp_path / "m.onnx").write_bytes(made().SerializeToString())
    found = bounded(tmp_path, f"{command} m.onnx", memory=512 * MIB, seconds=5)
    if refused:
        assert_refused(found, "w")
    else:
        assert (found.returncode, found.stderr) == (0, "")


def test_an_expression_that_runs_away_is_none(bounded, tmp_path):
    model = proto(NET.replace("w", "a" * 40 + "b"))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    found = bounded(tmp_path, "inspect m.onnx --include (a+)+$", memory=256 * MIB, seconds=5)
    assert found.returncode in (0, 3)


@pytest.fixture
def protected(tmp_path):
    """Return a folder with a protected model and its manifest."""
    (tmp_path / "m.onnx").write_bytes(proto(NET).SerializeToString())
    made = oa.protect(tmp_path / "m.onnx")
    made.save(tmp_path / "p.onnx")
    (tmp_path / "p.json").write_text(made.manifest.to_json())
    return tmp_path


@pytest.mark.parametrize("number", [2**22, 2**62, 10**300], ids=["millions", "2^62", "300 digits"])
def test_a_manifest_is_read_within_its_bounds(bounded, protected, number):
    body = json.loads((protected / "p.json").read_text())
    entry = {**body["tensors"][0], "original": number, "stored": number // 2}
    body["tensors"] = [{**entry, "name": f"w{i}", "key": f"w{i}"} for i in range(8)]
    (protected / "bad.json").write_text(json.dumps(body))
    found = bounded(protected, "manifest bad.json", memory=512 * MIB, seconds=5)
    assert_refused(found, "")


@pytest.mark.parametrize(
    "line",
    [
        "protect m.onnx --side-copies 999999999 --side-channel pcm",
        "protect m.onnx --side-cells 999999999 --side-channel pcm",
        "protect m.onnx --classes 999999999 --cells 1 --partition lloyd",
        "protect m.onnx --cells 99999999999999",
    ],
)
def test_settings_of_a_scheme_are_bounded(bounded, protected, line):
    found = bounded(protected, f"{line} -o q.onnx", memory=512 * MIB, seconds=5)
    assert_refused(found, "--" if "--cells 9" not in line else "it must be from 0 to")


def test_the_largest_scheme_is_stored_within_its_bounds(bounded, protected):
    line = "protect m.onnx --classes 256 --partition lloyd --cells 1000000000000 --side-channel pcm -o q.onnx"
    found = bounded(protected, f"{line} --side-cells 1000 --side-copies 999 --side-bits-per-cell 8", memory=768 * MIB,
                    seconds=15)  # fmt: skip
    assert found.returncode == 0, found.stderr


# ---------------------------------------------------------------------------------------------------- plans


def plan(**entries: object) -> str:
    return json.dumps({"format": "onnx-analog-plan/1", "schemes": {}, **entries})


PLANS: dict[str, tuple[Callable[[], str], str]] = {
    "no plan": (lambda: "[]", "this is not a plan"),
    "deep lists": (lambda: "[" * (15 * MIB), "nested more than 32 deep"),
    "too large": (lambda: " " * (17 * MIB), "more than the 16,777,216 that are read"),
    "many tensors": (lambda: plan(tensors=dict.fromkeys(map(str, range(100_001)))), "tensors has 100,001 entries"),
    "many patterns": (
        lambda: plan(patterns=[{"pattern": f"{i}*", "scheme": None} for i in range(1001)]),
        "patterns has 1,001 entries",
    ),
    "a long key": (lambda: plan(tensors={"k" * (10 * MIB): None}), "text of at most 4,096 characters"),
    "many shares": (lambda: plan(schemes={"a": {"shares": [0] * MIB}}), "shares has"),
    "many bounds": (
        lambda: plan(schemes={"a": {"partition": "bounds", "bounds": [*range(1, MIB)]}}),
        "bounds has",
    ),
    "many cells": (lambda: plan(schemes={"a": {"cells": [0, 1] * MIB}}), "cells has"),
    "many classes": (lambda: plan(schemes={"a": {"classes": 10**18}}), "classes is 1000000000000000000"),
    "a large number": (lambda: plan(schemes={"a": {"cells": 10**18}}), "cells is 1000000000000000000"),
    "many schemes": (
        lambda: plan(schemes={str(i): {"classes": 1, "cells": 1, "channel": "gaussian"} for i in range(9999)}
                     | {"last": {"sign": "x"}}),
        "scheme 'last': sign is 'x'",
    ),
    "too many schemes": (lambda: plan(schemes={str(i): {} for i in range(1_000_000)}), "a plan has 1,000,000 schemes"),
    "deep channels": (
        lambda: plan(schemes={"a": {"channel": json.loads('{"family": "precision", "inner": ' * 25 + "1" + "}" * 25)}}),
        "channels are nested more than",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_is_refused_within_its_bounds(bounded, protected, name):
    made, said = PLANS[name]
    (protected / "plan.json").write_text(made())
    found = bounded(protected, "protect m.onnx --plan plan.json -o q.onnx", memory=768 * MIB, seconds=10)
    assert_refused(found, said)
    assert not (protected / "q.onnx").exists()


def test_patterns_take_time_in_proportion_to_the_key(bounded, protected):
    patterns = {f"{'a*' * 2000}b{i}": None for i in range(1000)}  # each tries 2,000 places in a key of 40 characters
    listed = [{"pattern": pattern, "scheme": scheme} for pattern, scheme in patterns.items()]
    (protected / "plan.json").write_text(plan(patterns=listed))
    model = proto(NET.replace("w", "a" * 4000))
    (protected / "long.onnx").write_bytes(model.SerializeToString())
    found = bounded(protected, "protect long.onnx --plan plan.json -o q.onnx", memory=512 * MIB, seconds=30)
    assert found.returncode == 3, found.stderr  # nothing to store: the default is null


def test_arrays_that_no_input_takes_are_not_read(bounded, protected):
    with zipfile.ZipFile(protected / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w") as file:
            np.lib.format.write_array(file, np.ones((4, 16), np.float32))
        with archive.open("unused.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (2**30 // 4,)}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(1024):
                file.write(bytes(MIB))
    assert (protected / "d.npz").stat().st_size < 2 * MIB
    line = "evaluate m.onnx --data d.npz --samples 1 --trials 0"
    found = bounded(protected, line, memory=512 * MIB, seconds=15)
    assert (found.returncode, found.stderr) == (0, "")


def test_a_table_of_trials_with_an_endless_line_is_refused(bounded, protected):
    np.savez(protected / "d.npz", x=np.ones((4, 16), np.float32))
    line = "sweep m.onnx --data d.npz --cells 1 --strategy sign --trials 1 --engine serial --out o"
    first = bounded(protected, line, memory=1024 * MIB, seconds=60)
    assert first.returncode == 0, first.stderr
    with (protected / "o" / "trials.csv").open("r+b") as file:
        file.truncate(2**30)  # a hole of zero bytes takes no room on the disk
        file.seek(2**30)
        file.write(b"\n")
    assert_refused(bounded(protected, line, memory=512 * MIB, seconds=30), "trials.csv")


@pytest.mark.parametrize("command", ["readback p.onnx --trials 1000000000", "readback p.onnx --trials 1000000000 -o f"])
def test_a_thousand_million_trials_are_refused(bounded, protected, command):
    found = bounded(protected, command, memory=256 * MIB, seconds=10)
    assert found.returncode in (1, 2)
    assert "memory" not in found.stderr


# ------------------------------------------------------------------------------------------- pipes and devices


@pytest.mark.parametrize(
    "line",
    [
        "channel show {}.json",
        "channel fit {} --input a --output b",
        "protect m.onnx --channel {}.json",
        "sweep m.onnx --data m.onnx --out o --config {}",
        "inspect {}",
        "evaluate m.onnx --data {}",
        "manifest {}.json",
        "protect m.onnx --plan {}.json",
    ],
)
def test_a_pipe_or_a_device_is_not_read(bounded, tmp_path, line):
    (tmp_path / "m.onnx").write_bytes(proto(NET).SerializeToString())
    for name in ("zero", "zero.json"):
        (tmp_path / name).symlink_to("/dev/zero")
        os.mkfifo(tmp_path / name.replace("zero", "pipe"))
    for name in ("zero", "pipe"):
        found = bounded(tmp_path, line.format(name), memory=256 * MIB, seconds=5)
        assert_refused(found, "is not a regular file")


# ------------------------------------------------------------------------------------------------ the harness


def test_a_command_that_takes_too_much_is_stopped(bounded, tmp_path):
    (tmp_path / "c.json").write_text(CHANNELS["many keys"][0]())  # takes several seconds
    slow = bounded(tmp_path, "channel show c.json", memory=768 * MIB, seconds=1)
    assert slow.returncode < 0
    large = bounded(tmp_path, "channel show c.json", memory=1 * MIB, seconds=30)
    assert large.returncode != 0
    with pytest.raises(AssertionError):
        assert_refused(large, "")
