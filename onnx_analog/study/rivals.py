"""Lists the digital rivals of a sweep: what else the same cells could hold, through the same channel."""

from __future__ import annotations

from types import MappingProxyType

from onnx_analog.coding.scheme import Scheme

STEPS = (0.25, 0.5, 0.75, 1.0, 1.5)  # of entropy-coded quantisation, over the root mean square of the weights
RIVALS = MappingProxyType(  # by name; each is stored in cells of every channel of the sweep
    {
        "int8 per tensor": Scheme.int8(),
        "int8 per channel": Scheme.int8(granularity="channel"),
        "int4 per tensor": Scheme.int4(),
        "int4 per channel": Scheme.int4(granularity="channel"),
        **{f"entropy-coded {step:g}": Scheme.entropy_coded(step) for step in STEPS},
    }
)
