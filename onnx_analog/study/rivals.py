"""Lists the digital rivals of a sweep: what else the same cells could hold, through the same channel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from onnx_analog.channels import Channel
from onnx_analog.coding.scheme import Scheme
from onnx_analog.graph.baselines import Held, honest_cells
from onnx_analog.graph.totals import Totals
from onnx_analog.graph.weights import Selection
from onnx_analog.run.experiment import Experiment

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


def family(name: str) -> str:
    """Return the name of the rivals that a chart shows as one line; any other name is its own.

    >>> family("entropy-coded 0.5"), family("int8 per tensor"), family("mine")
    ('rivals: entropy-coded', 'rivals: integers', 'mine')
    """
    if name not in RIVALS:
        return name
    return f"rivals: {'entropy-coded' if name.startswith('entropy-coded') else 'integers'}"


@dataclass(frozen=True, kw_only=True)
class Float16:
    """The weights of a model rounded to float16, in cells of a channel with a code that leaves no errors.

    A scheme has 256 classes at most, so this is no point of a grid: it is evaluated once, without noise.

    Attributes
    ----------
    model : str
    channel : str
    value : float
        Of the metric.
    cost : float
        Cells per original weight as the paper counts, two bits in each: the stored weights and a bitmap of them.
    honest_cost : float or None
        The same as the memory allows; None where the channel is too noisy for the code.
    decoding : str
    """

    model: str
    channel: str
    value: float
    cost: float
    honest_cost: float | None
    decoding: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def float16(experiment: Experiment, name: str, channels: Sequence[Channel], selection: Selection) -> Iterator[Float16]:
    """Yield what a model is worth in float16, and what it costs in cells of each channel."""
    totals, value = experiment.totals(Scheme.int8(), selection=selection), experiment.float16_value(selection=selection)
    for channel in channels:
        scheme = Scheme.int8(channel=channel)
        cells, decoding = honest_cells([_held(scheme, totals)], 16, pruned=True)
        yield Float16(
            model=name,
            channel=str(channel),
            value=value,
            cost=(16 * totals.stored_weights + totals.mask_bitmap_bits)
            / (scheme.side_bits_per_cell * totals.original_weights),
            honest_cost=None if cells is None else cells / totals.original_weights,
            decoding=decoding,
        )


def _held(scheme: Scheme, totals: Totals) -> Held:
    return Held(scheme, totals.original_weights, totals.stored_weights, totals.mask_bitmap_bits, mask_coded=False)
