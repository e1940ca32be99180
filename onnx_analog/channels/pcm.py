"""Phase-change memory, as measured. data/SOURCE.md says where the measurements come from and how they were reduced."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import as_file, files

from onnx_analog.channels.base import Source
from onnx_analog.channels.estimate import from_pairs
from onnx_analog.channels.pairs_csv import read_columns
from onnx_analog.channels.table import TableChannel
from onnx_analog.serialise import from_json_dict

_DATA = files("onnx_analog.channels") / "data"


@cache
def pcm() -> TableChannel:
    """Return the default channel: a real PCM array, seven devices pooled, 83,931 pairs.

    It assumes that each cell is an independently drawn device; three quarters of the variance is between devices. It is
    the closest public measurement of the line of research that Isik et al. 2020 stand in. That it is the array of their
    Figure 1 is not known.
    """
    return from_json_dict(TableChannel, json.loads((_DATA / "pcm.json").read_text(encoding="utf-8")))


@cache
def pcm_partial_reset() -> TableChannel:
    """Return the channel of PCM cells under partial-reset pulses: 15,200 pairs, quieter than `pcm`.

    Its residuals are far from normal at the lower inputs, which this conditional Gaussian channel leaves out.
    """
    with as_file(_DATA / "pcm_partial_reset.csv") as path:
        inputs, outputs = read_columns(path, ("input_volts", "resistance_ohm"))
    return from_pairs(
        inputs,
        outputs,
        name="pcm-partial-reset",
        units=("input_volts", "resistance_ohm"),
        log=True,
        source=Source(
            citation="R. Zarcone, CAEs, Partial_Reset_PCM (2017)",
            figure="15,200 pairs, 40 input voltages",
            licence="BSD-2-Clause, © 2017 rzarcone",
            left_out="By default, residuals are normal; the measured ones are skewed, with an excess kurtosis of up to "
            "43. Drift is not modelled. Reads of one device are independent.",
        ),
    )
