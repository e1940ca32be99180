"""Models as people have them: every .onnx file under a folder, `python -m fuzz.real_models FOLDER`.

Wheels that ship models are a good source: `pip download --no-deps silero-vad`, then unzip. Each model is inspected,
protected, read back and evaluated. What protect writes is compared with the original, and what evaluate says with a few
lines of onnxruntime and numpy, on random inputs of the model's own shapes.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fuzz import agreement
from fuzz.agreement import Reference
from fuzz.invoke import Ran, invoke
from fuzz.judge import reason
from fuzz.lane import prepare

OPTIONS = ("--channel", "gaussian:sigma=0.01", "--strategy", "redundancy", "--cells-large", "4")
SAMPLES = 2


class Line(NamedTuple):
    """What came of one model."""

    model: str
    megabytes: float
    stored: str  # weights
    outcome: str
    ours: str  # signal-to-noise ratio of trial 0 as evaluate says it, in dB
    own: str  # the same by onnxruntime and numpy


def tried(path: Path, name: str, main: Any) -> Line:
    """Run one model through the commands."""
    size = path.stat().st_size / 1e6
    with tempfile.TemporaryDirectory(prefix="fuzz-") as text:
        folder = Path(text)
        for file in path.parent.iterdir():
            if file == path or (file.is_file() and file.suffix != ".onnx" and file.stem.startswith(path.stem)):
                shutil.copy(file, folder / ("m.onnx" if file == path else file.name))
        sizes = _sizes(folder / "m.onnx")
        reference = _reference(folder / "m.onnx", sizes)
        if reference.refused or reference.failed:
            return Line(name, size, "", f"onnxruntime: {reference.refused or reference.failed}"[:120], "", "")

        def run(*arguments: str) -> Ran:
            return invoke(arguments, folder, main)

        for command in (
            ("inspect", "m.onnx"),
            ("protect", "m.onnx", *OPTIONS, "-o", "p.onnx", "--manifest", "p.json", "--json"),
        ):
            ran = run(*command)
            if ran.code:
                return Line(name, size, "", f"{command[0]} refuses: {reason(ran.err)}", "", "")
        stored = f"{json.loads(ran.out)['totals']['stored_weights']:,}"
        findings = [*agreement.protected(folder / "m.onnx", folder / "p.onnx", reference)]
        outcome = "; ".join(f"{finding.oracle}: {finding.detail}" for finding in findings) or "agrees"
        return _evaluated(Line(name, size, stored, outcome, "", ""), folder, sizes, run)


def _sizes(path: Path) -> dict[str, int]:
    """Return the first sizes of open sides, and sampling rate, with which a model runs."""
    tries: list[dict[str, int]] = [{"side": side, "scalar": 16000} for side in (2, 1, 32, 64, 512)]
    return next((choice for choice in tries if _reference(path, choice).outputs is not None), tries[0])


def _reference(path: Path, sizes: dict[str, int]) -> Reference:
    try:
        session = agreement.session(path)
    except Exception as error:
        return Reference(refused=str(error)[:300])
    try:
        feeds = agreement.feeds_for(session, **sizes)
        return Reference(feeds, session.run(None, feeds))
    except Exception as error:
        return Reference(failed=str(error)[:300])


def _evaluated(line: Line, folder: Path, sizes: dict[str, int], run: Any) -> Line:
    """Return the line with what evaluate and numpy say of trial 0."""
    samples = [agreement.feeds_for(agreement.session(folder / "m.onnx"), seed, **sizes) for seed in range(SAMPLES)]
    # Each sample is a call of its own.
    arrays = {name: np.stack([feeds[name] for feeds in samples]) for name in samples[0]}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    (folder / "d.npz").write_bytes(file.getvalue())
    evaluated = run("evaluate", "p.onnx", "--data", "d.npz", "--trials", "1", "--threads", "1", "--json")
    read = run("readback", "p.onnx", "--decoded", "-o", "r.onnx")
    for ran in (evaluated, read):
        if ran.code:
            return line._replace(outcome=f"{line.outcome}; {ran.command} refuses: {reason(ran.err)}")
    body = json.loads(evaluated.out)
    pairs: list[Any] = []
    for feeds in samples:
        names = [body["output"]] if body.get("output") else None
        clean, noisy = (agreement.session(folder / name).run(names, feeds) for name in ("p.onnx", "r.onnx"))
        pairs += [
            (np.asarray(a, float), np.asarray(b, float))
            for a, b in zip(clean, noisy, strict=True)
            if a.dtype.kind in "fiub"
        ]
    signal, noise = (
        sum(np.square(part).sum() for part in parts) for parts in ([a for a, _ in pairs], [a - b for a, b in pairs])
    )
    with np.errstate(all="ignore"):
        own = float(10 * np.log10(np.float64(signal) / np.float64(noise)))
    ours = (body.get("sqnr_db") or [None])[0]
    if ours is not None and np.isfinite(own) and abs(ours - own) > 0.1:
        line = line._replace(outcome=f"{line.outcome}; another SQNR")
    return line._replace(ours="none" if ours is None else f"{ours:.2f}", own=f"{own:.2f}")


def lines(folder: Path) -> Iterator[Line]:
    """Yield what came of every model under `folder`, the smallest first."""
    from onnx_analog.cli import main

    prepare()
    for path in sorted(folder.rglob("*.onnx"), key=lambda path: path.stat().st_size):
        yield tried(path, str(path.relative_to(folder)), main)


def main() -> int:
    """Print the table; return 1 unless every model that onnxruntime runs agrees."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz.real_models", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("folder", type=Path, help="where .onnx files are, in folders of any depth")
    bad = 0
    print(f"{'model':60} {'MB':>7} {'weights stored':>15} {'SQNR':>8} {'own':>8}  outcome")
    for line in lines(parser.parse_args().folder):
        bad += line.outcome != "agrees" and not line.outcome.startswith("onnxruntime")
        numbers = f"{line.megabytes:7.1f} {line.stored:>15} {line.ours:>8} {line.own:>8}"
        print(f"{line.model[-60:]:60} {numbers}  {line.outcome}", flush=True)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
