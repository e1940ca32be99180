"""Draw docs/sensitivity/lenet.png: where noise hurts the packaged LeNet.

python docs/make_sensitivity.py
"""

from __future__ import annotations

from pathlib import Path

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.harm_plot import plot_harms

PATH = Path(__file__).parent / "sensitivity" / "lenet.png"

if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    plot_harms(oa.sensitivity(demo.MODEL, demo.IMAGES, mean=0.1307, std=0.3081))(PATH)
