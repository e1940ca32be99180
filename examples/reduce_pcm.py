"""Reduce the measurements of the 2014 PCM array to the table that onnx-analog ships as channel `pcm`.

    python examples/reduce_pcm.py pcm_array_2014.csv onnx_analog/channels/data/pcm.json

The CSV holds device, input_volts and resistance_ohm: 83,931 pairs of 7 devices at 101 inputs. Resistances are taken as
log10; inputs and outputs are scaled to [-1, 1] by their extremes; the devices are pooled as they are, with no
alignment. At each input the table keeps mean and standard deviation of all reads there (k = 1), the part of the latter
that is between devices, and 256 means of equally full bins of the residuals.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from onnx_analog.channels import from_pairs
from onnx_analog.channels.base import Source
from onnx_analog.channels.pairs_csv import read_columns
from onnx_analog.cli.console import Command

SOURCE = Source(
    citation="Zarcone et al., Analog coding in emerging memory systems, Scientific Reports 10 (2020), PCM_20140605",
    figure="83,931 pairs of 7 devices at 101 inputs, pooled and not aligned",
    licence="the measurements have none, so only a table is kept: mean, spread and quantiles at 101 inputs",
    left_out="Drift is not modelled. Successive reads of one device are independent here; in the measurement they are "
    "correlated.",
)

COLUMNS = ("input_volts", "resistance_ohm")


@click.command(cls=Command)
@click.argument("raw", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def main(raw: Path, out: Path) -> None:
    """Reduce the measurements in RAW to a table, OUT."""
    device, inputs, outputs = read_columns(raw, ("device", *COLUMNS))
    channel = from_pairs(
        inputs, outputs, devices=device, name="pcm", units=COLUMNS, log=True, source=SOURCE, residuals=256
    )
    body = {key: value for key, value in channel.to_dict().items() if key != "family"}
    out.write_text(json.dumps(body, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
