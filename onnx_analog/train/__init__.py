"""Train and distill example networks with PyTorch, and export them: the only part of the package that needs it.

Nothing else imports this, and nothing here is needed to store a network: any ONNX model will do.
"""

from __future__ import annotations

try:
    import torch as torch
except ImportError as error:
    raise ImportError("onnx_analog.train needs PyTorch: pip install 'onnx-analog[train]'") from error
