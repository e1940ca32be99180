"""Write the table of docs/digital_or_analog.md: python docs/make_digital.py.

Normal weights in a matrix are stored in several ways, in cells of `pcm`, and read once.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

import onnx_analog as oa

PAGE = Path(__file__).with_name("digital_or_analog.md")
WIDTH = 512  # of the matrix
WAYS = {
    **{f"level, average of {cells} cells": oa.Scheme.paper("raw", cells_small=cells) for cells in (2, 4, 8)},
    **{
        f"the same, posterior mean of {cells} cells": oa.Scheme.paper("raw", cells_small=cells, estimator="posterior")
        for cells in (2, 4, 8)
    },
    "the paper's redundancy, 1 and 20 cells": oa.Scheme.paper("redundancy", cells_small=1, cells_large=20),
    **{f"equal steps of {step:g}, entropy-coded": oa.Scheme.entropy_coded(step) for step in (2, 1, 0.5, 0.25)},
    **{f"equal steps of {step:g}, and an analog cell": oa.Scheme.refined(step) for step in (3, 2, 1)},
}
_HEAD = "| weights are stored | cells per weight | signal to noise, dB | times the limit |"
_TABLE = re.compile(rf"{re.escape(_HEAD)}\n(?:\|.*\n)*")


def network() -> onnx.ModelProto:
    """Return a network of one matrix of normal weights."""
    weight = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> '
        f"net (float[n, {WIDTH}] x) => (float[n, {WIDTH}] y) {{ y = MatMul(x, w) }}"
    )
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return model


def rows() -> dict[str, tuple[float, float, float]]:
    """Return cells per weight, signal to noise of the weights in dB, and times the limit, of each way."""
    model = network()
    weight = numpy_helper.to_array(model.graph.initializer[0])
    power = float(np.square(weight.astype(np.float64)).mean())
    data = {"x": np.eye(WIDTH, dtype=np.float32)[:8]}
    found = {}
    for name, scheme in WAYS.items():
        limit = oa.evaluate(
            oa.protect(model, scheme), data, metric="sqnr_db", trials=1, reference=model, limit=True
        ).limit
        (tensor,) = limit.tensors
        assert limit.factor is not None
        found[name] = (limit.honest_cells / weight.size, 10 * math.log10(power / tensor.mse), limit.factor)
    return found


def table() -> str:
    lines = (
        f"| {name} | {cells:.2f} | {ratio:.1f} | {factor:.2f} |\n" for name, (cells, ratio, factor) in rows().items()
    )
    return f"{_HEAD}\n{'|---' * 4}|\n" + "".join(lines)


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    (before,) = _TABLE.findall(page)
    PAGE.write_text(page.replace(before, table()), encoding="utf-8")
    print(PAGE)
