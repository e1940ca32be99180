"""How costs grow: with the number of weights, with workers, with the size of a file."""

from __future__ import annotations

import cProfile
import pstats
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.networks import chain, write_chain
from benchmarks.ours import reading
from benchmarks.timing import memory, ratio, run, seconds
from onnx_analog import api
from onnx_analog.disk import writing
from onnx_analog.graph import files

Row = dict[str, float]
LARGEST = 2**25  # weights of a tensor; larger models are that many tensors, measured one after another

PROTECT = """
import sys
from onnx_analog import api
api.protect(sys.argv[2]).save(sys.argv[3], force=True)
"""
SESSION = """
import sys
import onnxruntime as ort
ort.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
"""


def weights(count: int) -> Row:
    """Return what `count` weights cost, in seconds: to protect (encode, without a file), and for each trial."""
    whole = max(count // LARGEST, 1)
    side = round((min(count, LARGEST)) ** 0.5)
    model = chain(side, 1)
    start = time.perf_counter()
    protected = api.protect(model).model
    protecting = time.perf_counter() - start
    read = reading(protected)
    read()
    least = min(seconds(read) for _ in range(3))
    return {"weights": whole * side**2, "protect_s": whole * protecting, "trial_s": whole * least}


def slope(rows: list[Row], name: str) -> float:
    """Return the exponent p of cost ∝ weights^p over the upper half of the sizes, by least squares in logarithms."""
    upper = rows[len(rows) // 2 :]
    x, y = (np.log([row[key] for row in upper]) for key in ("weights", name))
    return float(np.polyfit(x, y, 1)[0])


def protecting(side: int, layers: int, folder: Path) -> Row:
    """Return the memory that protecting a file takes, against its weights."""
    path = folder / "large.onnx"
    write_chain(path, side, layers)
    found = memory(PROTECT, str(path), str(folder / "out.onnx"))
    mib = layers * side**2 * 4 / 2**20
    for file in folder.iterdir():
        file.unlink()
    return {"ratio": found["anonymous_mib"] / mib, "mib": found["anonymous_mib"], "bound_mib": mib, **found}


def session(model: ir.Model, weights_mib: float, path: Path) -> Row:
    """Return the memory that creating a session takes, beyond onnxruntime's own, against the weights."""
    files.write_model(model, path)
    alone = memory("import onnxruntime")["anonymous_mib"]
    taken = memory(SESSION, str(path))["anonymous_mib"] - alone
    return {"ratio": taken / weights_mib, "mib": taken, "bound_mib": weights_mib}


def protect_against_partition(folder: Path) -> Row:
    """Return load + protect + save against load + save + five np.partition of the weights."""
    path, out = folder / "chain.onnx", folder / "out.onnx"
    files.write_model(chain(), path)

    def bound() -> None:
        model = files.load(path)
        for value in model.graph.initializers.values():
            assert value.const_value is not None
            flat = np.abs(value.const_value.numpy().reshape(-1))
            for _ in range(5):
                np.partition(flat, flat.size // 2)
        writing.write_all({out: lambda target: files.write_model(model, target)}, force=True)

    return ratio(lambda: api.protect(path).save(out, force=True), bound, pairs=3)


_SWEEP = """
import sys
import onnx_analog as oa
from onnx_analog import demo
if __name__ == "__main__":
    oa.sweep(
        demo.MODEL, demo.IMAGES, mean=[0.1307], std=[0.3081], strategy="redundancy", cells=1,
        trials=int(sys.argv[2]), engine=oa.engines.build("local", workers=int(sys.argv[1]), threads=1),
    )
"""


def one_against_two_workers(folder: Path, trials: int = 400) -> Row:
    """Return a sweep by one worker against one by two, of the trials alone: what starts and ends it is taken off."""
    script = folder / "sweep.py"
    script.write_text(_SWEEP, encoding="utf-8")

    def took(workers: int) -> float:
        few, many = (seconds(run(str(script), str(workers), str(count))) for count in (trials // 10, trials))
        return many - few

    pairs = [(took(1), took(2)) for _ in range(3)]
    one, two = (1000 * float(np.median(column)) for column in zip(*pairs, strict=True))
    return {"ratio": float(np.median([a / b for a, b in pairs])), "ms": one, "bound_ms": two}


def help_against_numpy() -> Row:
    """Return `onnx-analog --help` against `python -c 'import numpy'`."""
    return ratio(run("-c", "from onnx_analog.cli import main; main(['--help'])"), run("-c", "import numpy"))


_THOUSANDTH = """
import json, re, sys
import numpy as np
import onnx_analog as oa
if __name__ == "__main__":
    path, count, trials, workers = sys.argv[1], *map(int, sys.argv[2:])
    x = np.random.default_rng(0).standard_normal((1, count), dtype=np.float32)
    oa.sweep(
        path, oa.Dataset({"x": x}, None), strategy="redundancy", cells=1, trials=trials,
        engine=oa.engines.build("local", workers=workers, threads=1),
    )
"""


def thousandth(folder: Path, *, side: int = 1000, layers: int = 10, trials: int = 1000, workers: int = 2) -> Row:
    """Return what `trials` trials of a model of side²·layers weights take: a thousandth of either, and so a millionth.

    One sample is inferred, so that what is measured is what a trial costs beside inference.
    """
    files.write_model(chain(side, layers), folder / "chain.onnx")
    script = folder / "sweep.py"
    script.write_text(_THOUSANDTH, encoding="utf-8")
    given = (str(script), str(folder / "chain.onnx"), str(side))
    few, many = (seconds(run(*given, str(count), str(workers))) for count in (trials // 10, trials))
    each = (many - few) / (trials - trials // 10)
    weights_ = side**2 * layers
    return {
        "weights": weights_, "trials": trials, "workers": workers, "seconds": many,
        "core_s_per_trial": workers * each, "core_ns_per_weight_and_trial": 1e9 * workers * each / weights_,
    }  # fmt: skip


def protect_profile(folder: Path) -> dict[str, float]:
    """Return where load + protect + save of 46 MB spend their time, in milliseconds, under the profiler."""
    path, out = folder / "chain.onnx", folder / "out.onnx"
    files.write_model(chain(), path)
    api.protect(path).save(out, force=True)
    profile = cProfile.Profile()
    profile.runcall(lambda: api.protect(path).save(out, force=True))
    found = pstats.Stats(profile)
    stats = found.stats  # type: ignore[attr-defined]  # what the standard library does not type
    rows = {(Path(file).name, name): numbers[3] for (file, _, name), numbers in stats.items()}
    parts = {
        "load": ("files.py", "load"), "encode": ("protect.py", "_encoded"), "check": ("protected.py", "open_protected"),
        "digests of planes": ("stored.py", "digests"),
        "digest of the file": ("files.py", "own_digests"), "save": ("writing.py", "write_all"),
    }  # fmt: skip
    told = {part: 1000 * rows[name] for part, name in parts.items()}
    total = 1000 * found.total_tt  # type: ignore[attr-defined]  # what the standard library does not type
    return {**told, "all else": total - sum(told.values()), "total": total}
