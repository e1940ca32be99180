"""Which tensors of a model `protect` would store, and why not the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_analog._inputs import AnyModel, load_model, selection_of
from onnx_analog.graph.build import opset_of, reason_against
from onnx_analog.graph.correction import read_as
from onnx_analog.graph.normalisation import remembered
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.stored import is_protected
from onnx_analog.graph.uses import consumers
from onnx_analog.graph.weights import Selection, Weight, attributes_left, find, referring, scopes
from onnx_analog.passes import ProtectPass
from onnx_analog.results import Inspection
from onnx_analog.settings import keywords


@keywords
def inspect(model: AnyModel, *, selection: Selection | None = None) -> Inspection:
    """Return which tensors of a model `protect` would store, and why not the others.

    Whether a tensor's magnitudes lie too far apart is judged for the default scheme, in which each tensor has a scale
    of its own. With one scale for the model, or one class of weights, more tensors may stay digital; `protect` names
    them.

    Parameters
    ----------
    model : model
        Plain, protected or read back.
    selection : Selection, optional
        Which tensors, of a plain model.
    """
    selection = selection_of(selection)
    loaded = load_model(model)
    protected = is_protected(loaded)
    kinds = [node.op_type for _, graph, _ in scopes(loaded) for node in graph]
    if protected:
        rows = [{**_stored_row(tensor), "reason": None} for tensor in open_protected(loaded).tensors]
    else:
        rows = _plain_rows(loaded, selection)
    return Inspection(
        normalisation=remembered(loaded),
        opset=opset_of(loaded),
        ir_version=loaded.ir_version or 0,
        protected=protected,
        read_back=read_as(loaded),
        refused=None if protected else reason_against(loaded) or _nothing_in(rows, loaded),
        batch_norms=kinds.count("BatchNormalization"),
        convolutions=sum(kind in ("Conv", "ConvTranspose") for kind in kinds),
        rows=tuple(rows),
    )


def _nothing_in(rows: list[dict[str, Any]], model: ir.Model) -> str | None:
    return None if rows else f"no tensor holds weights. {attributes_left(model)}"


def _plain_rows(model: ir.Model, selection: Selection) -> list[dict[str, Any]]:
    selected = find(model, selection)
    unfit = ProtectPass(selection=selection).unfit(selected.weights)
    rows = [_row(weight, unfit.get(weight.key)) for weight in selected.weights]
    rows += [_row(weight, why) for weight, why in selected.skipped]
    return [*rows, *(_referring_row(key, why) for key, why in referring(model))]


def _row(weight: Weight, reason: str | None) -> dict[str, Any]:
    magnitudes = {"largest": None, "subnormal": 0} if reason is not None else _magnitudes(weight.array())
    return {
        "name": weight.name,
        "key": weight.key,
        "shape": list(weight.shape),
        "dtype": weight.tensor.dtype.name,
        "weights": weight.size,
        "used_by": list(weight.consumers()),
        **magnitudes,
        "reason": reason,
    }


def _magnitudes(array: Any) -> dict[str, Any]:
    """Return the largest magnitude of an array, and the number of its subnormal values."""
    magnitude = np.abs(array.astype(np.float32, copy=False))
    subnormal = np.count_nonzero((magnitude > 0) & (magnitude < np.finfo(np.float32).tiny))
    return {"largest": float(magnitude.max(initial=0)), "subnormal": int(subnormal)}


def _referring_row(key: str, reason: str) -> dict[str, Any]:
    row = {"name": key.rpartition("/")[2], "key": key, "shape": [], "dtype": "UNDEFINED", "weights": 0}
    return {**row, "used_by": [], "largest": None, "subnormal": 0, "reason": reason}


def _stored_row(tensor: Any) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "key": tensor.key,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype.name,
        "weights": tensor.size,
        "used_by": sorted(consumers(tensor.node.outputs[0])),
        **_magnitudes(tensor.decode()),
    }
