"""Measures what a correction after programming costs, as ratios: `python -m benchmarks.correction [RESNET]`.

Against inference of the same 256 images, in one thread: inference with corrected layers, and the measurement of gains.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from benchmarks.networks import pictures, resnet
from benchmarks.timing import ratio
from onnx_analog import api
from onnx_analog.run.correction import LayerCorrector, LayerNetworks
from onnx_analog.run.data import Dataset
from onnx_analog.run.session import Network


def ratios(model: ir.Model, samples: Dataset, pairs: int = 7) -> dict[str, float]:
    """Return inference of `samples` with corrected layers, and their measurement, each over plain inference."""
    protected, running = api.protect(model), {"threads": 1}
    network = Network(protected, threads=1)
    weights = {name: tensor.decode() for name, tensor in network.tensors.items()}
    corrector = LayerCorrector(LayerNetworks(protected, samples, running), weights)
    corrected, changed = corrector.apply(network, weights)

    def plain() -> object:
        return network.run(samples, weights)

    return {
        "inference with corrected layers": ratio(lambda: corrected.run(samples, changed), plain, pairs)["ratio"],
        "measurement": ratio(lambda: corrector.apply(network, weights), plain, pairs)["ratio"],
    }


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "resnet20"
    with TemporaryDirectory() as folder:
        for what, value in ratios(resnet(name, Path(folder)), pictures(256)).items():
            print(f"{value:6.2f}  {what}, over inference of the same 256 images ({name})")
