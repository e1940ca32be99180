"""Write docs/channels.md from the channels that are installed: python docs/make_channels.py."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np

from onnx_analog import channels
from onnx_analog.channels import Channel, capacity
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.channels.residual import ResidualCells
from onnx_analog.channels.statistical import StatisticalPcm

HEAD = """# Channels

`docs/make_channels.py` writes this page from the installed channels. `onnx-analog channel show NAME` prints one of
them, and `--plot` draws it. `--channel` takes a name, a name with options (`NAME:key=value,...`), the file that
`onnx-analog channel fit` writes, or a class of your own as `module:Class` ([writing a
channel](writing_a_channel.md)).

σ is the standard deviation of one cell's read, in the unit of the level. The tables give it at 101 levels over the
whole span. `onnx-analog channel fit` prints σ at the measured inputs, in the unit of the device, so its values differ.
For a channel without a closed form of σ, the tables use 20,000 reads of each level (standard error 0.5 %). The
capacity is that of one cell (Blahut and Arimoto 1972): for normal reads and, where residuals were measured, for these,
[smoothed](own_measurements.md#capacity).

`--write-bits` and `--read-bits` limit the precision of any channel. `--residuals empirical` draws the noise of a
measured channel from its measured residuals. `--cells-on same` puts the cells of a weight on one device.
`--cells-hold residual` lets each cell of a weight hold what earlier ones lack ([residual cells](#residual-cells)).
`--read-after` sets the time of the read, if the channel changes with time.

"""
RESIDUAL = """## Residual cells

With `--cells-hold residual`, the first cells of a weight hold its level and are verified, that is read after
programming. The next cell holds what they lack, scaled up to the whole output range, so that its own error counts for
little. This needs a channel that separates programming from reading: `pcm-drift`, or a
[channel of your own](writing_a_channel.md). A verify read tells the error of programming, but not the noise of the
later read nor the drift until then, which remain. So residuals pay where programming is noisier than reading, where
weights have several cells, and soon after programming. If reads had no noise and nothing drifted, each further cell
would divide the error by the same factor. Which cells hold what follows from the law of the channel
(`onnx_analog/channels/stages.py`): where residuals do not lower the mean squared error over all levels, all cells hold
the level, and are averaged.

Measured for `pcm-drift`: bits per cell, for normal reads, if each weight has r cells.

"""
RESIDUAL_END = """
With four verify reads of each cell (`ResidualCells(inner=..., verify_reads=4)` in Python), the noise of these reads is
taken for independent. Real 1/f noise averages more slowly, so these rows are upper bounds. A row can have fewer bits
than an average with the same mean squared error, because residuals spread the error evenly over the levels.
"""
CELLS = (1, 2, 3, 8)
TIMES = {"0 s": 0.0, "1 hour": 3600.0, "1 day": 86_400.0}

NEEDS_A_FILE = {
    "measured": "Pairs of (input, output) from a CSV file: `measured:csv=pairs.csv,input=volts,output=ohms,log=true`.",
    "table": "The file that `onnx-analog channel fit` writes, named by its path.",
    "empirical": "A measured channel with `--residuals empirical`.",
    "precision": "Any channel with `--write-bits` or `--read-bits`.",
    "residual": "A channel that separates programming from reading, with `--cells-hold residual`.",
}


def main() -> None:
    path = Path(__file__).with_name("channels.md")
    path.write_text(text(), encoding="utf-8")
    print(path)


def text() -> str:
    """Return the page."""
    names = channels.available()
    ours = [name for name, entry in names.items() if entry.value.startswith("onnx_analog.")]
    parts = [section(name) for name in ours if name not in NEEDS_A_FILE]
    forms = [f"## {name}\n\n{NEEDS_A_FILE[name]}\n" for name in ours if name in NEEDS_A_FILE]
    return HEAD + "\n".join([*parts, *forms, residual_cells()])


def section(name: str) -> str:
    channel = channels.resolve(name)
    rows = {
        "span": "{:.3f} to {:.3f}".format(*channel.span),
        "σ at levels": "{:.3f} to {:.3f}".format(*spread(channel)),
        "capacity": str(capacity.both(channel)),
        "options": options(name),
        "source": str(channel.source),
        "licence": channel.source.licence,
        "limits of the model": channel.source.left_out,
    }
    lines = [f"## {name}", "", f"{channels.summary(name)}", "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {key} | {value} |" for key, value in rows.items() if value)]) + "\n"


def residual_cells() -> str:
    """Return the section about cells that hold residuals, with what they gain."""
    lines = [f"| read after | cells hold | {' | '.join(f'r = {cells}' for cells in CELLS)} |", "|---" * 6 + "|"]
    for time, read_after_s in TIMES.items():
        inner = StatisticalPcm(read_after_s=read_after_s)
        rows: dict[str, Channel] = {
            "the level": inner,
            "residuals": ResidualCells(inner=inner),
            "residuals, 4 verify reads": ResidualCells(inner=inner, verify_reads=4),
        }
        lines += [
            f"| {time} | {what} | {' | '.join(f'{bits(channel, cells):.2f}' for cells in CELLS)} |"
            for what, channel in rows.items()
        ]
    return RESIDUAL + "\n".join(lines) + "\n" + RESIDUAL_END


def bits(channel: Channel, cells: int) -> float:
    """Return the capacity of a weight's cells, divided by their number, from their moments at 65 levels."""
    level = clip_to_range(np.linspace(*channel.span, 65).astype(np.float32), channel.span)
    return capacity.blahut_arimoto(capacity.transition(*channel.moments(level, cells=cells))).bits / cells


def spread(channel: Channel) -> tuple[float, float]:
    """Return the smallest and the largest σ of one cell over the span."""
    level = clip_to_range(np.linspace(*channel.span, 101).astype(np.float32), channel.span)
    _, std = channel.moments(level)
    return float(std.min()), float(std.max())


def options(name: str) -> str:
    parameters = inspect.signature(channels.available()[name].load()).parameters.values()
    return ", ".join(f"`{p.name}` ({p.default})" for p in parameters if p.default is not inspect.Parameter.empty)


if __name__ == "__main__":
    main()
