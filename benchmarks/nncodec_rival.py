"""DeepCABAC as a yardstick: bits per weight and accuracy of entropy-coded weights, without noise.

    python -m benchmarks.nncodec_rival model.onnx --data test.npz --mean 0.49,0.48,0.45 --std 0.25,0.24,0.26

The package nncodec (a Clear BSD licence, without a patent grant) is no dependency. Where this Python does not have it,
`--python` names one that does; it needs numpy and nncodec only. Steps are uniform in a tensor and proportional to the
root mean square of its weights; the coder's own settings are left as they are. The length is that of the bitstream.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import onnx_analog as oa

STEPS = (0.5, 0.75, 1.0, 1.5)  # over the root mean square
MISSING = "nncodec is not installed here: name a Python that has it with --python, or pip install nncodec==2.1.3"
CODER = """
import sys
import numpy as np
from nncodec import nnc

source, target, stream, step = *sys.argv[1:4], float(sys.argv[4])
weights = dict(np.load(source))
qp = {name: round(4 * np.log2(step * np.sqrt(np.square(w).mean()))) for name, w in weights.items()}  # step 2^(qp/4)
coded = nnc.compress(dict(weights), bitstream_path=stream, qp_per_tensor=qp, return_bitstream=True)
np.savez(target, length=8 * len(coded), **nnc.decompress(stream))
"""


def has_nncodec(python: str) -> bool:
    """Return whether a Python has the package."""
    return subprocess.run([python, "-c", "import nncodec"], capture_output=True, check=False).returncode == 0


def coded(weights: Mapping[str, Any], step: float, python: str = sys.executable) -> tuple[int, dict[str, Any]]:
    """Return the bits of a bitstream of weights, and the weights that it decodes to.

    Parameters
    ----------
    weights : mapping of str to float32 array
    step : float, > 0
        Over the root mean square of each.
    python : str
        One that has nncodec.
    """
    names = {f"w{number}.weight": name for number, name in enumerate(weights)}
    with TemporaryDirectory() as folder:
        source, target, stream = (Path(folder) / name for name in ("source.npz", "target.npz", "stream.nnc"))
        np.savez(source, **{name: weights[key] for name, key in names.items()})
        paths = map(str, (source, target, stream))
        subprocess.run([python, "-c", CODER, *paths, str(step)], check=True, capture_output=True, cwd=folder)
        with np.load(target) as decoded:
            return int(decoded["length"]), {key: decoded[name].astype(np.float32) for name, key in names.items()}


def main() -> None:
    """Print bits per weight and the metric at each step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    for name, default in (("mean", "0"), ("std", "1"), ("steps", ",".join(map(str, STEPS)))):
        parser.add_argument(f"--{name}", default=default, type=lambda text: [float(word) for word in text.split(",")])
    parser.add_argument("--samples", type=int)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    if not has_nncodec(options.python):
        print(MISSING)
        return
    experiment = oa.Experiment(options.model, options.data, mean=options.mean, std=options.std, samples=options.samples)
    probe = experiment.probe(oa.Scheme.int8())
    print(f"original {experiment.original_value:.4f} on {len(experiment.data):,} samples")
    for step in options.steps:
        bits, decoded = coded(probe.weights, step, options.python)
        count = sum(np.size(array) for array in probe.weights.values())
        outputs = probe.run(decoded)
        value = experiment.metric(outputs, labels=experiment.data.labels, clean=experiment.clean)
        print(f"step {step:g}: {bits / count:.3f} bits per weight, {value:.4f}")


if __name__ == "__main__":
    main()
