"""Trains, distils and exports example networks. Only this part of the package needs PyTorch.

Storing a network needs nothing of it: any ONNX model will do.
"""

from __future__ import annotations

try:
    import torch as torch
except ImportError as error:
    raise ImportError("onnx_analog.train needs PyTorch: pip install 'onnx-analog[train]'") from error
