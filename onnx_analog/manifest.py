"""The storage manifest: which cell holds what, and what it all costs.

`account` derives it from a protected model. The JSON form is specified by manifest.schema.json beside this module and
explained in docs/formats.md: a reader ignores fields that it does not know.

Cells, with b digital bits in a cell of the digital planes, N stored of n weights, K classes:

    analog      Σ over classes of N_class · r_class                         times 2 for differential pairs
    header      ⌈N · (1 if the sign is in the header, + ⌈log2 K⌉) / b⌉      per tensor; analog: × reads, copies, devices
    mask        ⌈⌈log2 C(n, N)⌉ / b⌉, the entropy-coded length              per tensor; 0 if all are stored
    codebook    ⌈32 · 2·K / b⌉, α and β as float32                          once per scope

The paper's r_avg (Isik et al. 2020, section 2) counts the first line only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_origin, get_type_hints

import numpy as np
import onnx_ir as ir

from onnx_analog.channels.building import build
from onnx_analog.errors import ManifestError
from onnx_analog.stored import COMMAND_KEY, SOURCE_KEY, Protection, StoredTensor, lean, stored_tensors

FORMAT = "onnx-analog-manifest/1"
_FEW = 1000  # stored, or not stored: then too
_EXACT = 10_000  # up to so many weights, the binomial coefficient is computed as an integer


@dataclass(frozen=True, kw_only=True)
class ClassEntry:
    """One class of one tensor. `low` and `high` are its scope's bounds, in the unit of the weights."""

    low: float
    high: float
    alpha: float
    beta: float
    count: int  # weights
    cells: int  # per weight


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """One stored tensor. Address ranges are half open, [first, end), and may be empty."""

    name: str
    key: str
    shape: tuple[int, ...]
    dtype: str
    uses: int
    original: int  # n, weights
    stored: int  # N, weights
    classes: tuple[ClassEntry, ...]
    mask_bitmap_bits: int  # n if some weights are pruned, 0 otherwise
    cells: Mapping[str, tuple[int, int]]  # plane -> address range: level, header, mask, codebook
    sha256: Mapping[str, str]  # plane -> digest of its bytes

    def cells_for(self, plane: str) -> int:
        """Return how many cells `plane` takes."""
        first, end = self.cells[plane]
        return end - first


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over the tensors, and what a weight costs."""

    original_weights: int
    stored_weights: int
    analog_cells: int
    header_cells: int
    mask_cells: int
    mask_bitmap_bits: int
    codebook_cells: int

    @property
    def all_in_cells(self) -> int:
        """All cells: analog, header, mask and codebook."""
        return self.analog_cells + self.header_cells + self.mask_cells + self.codebook_cells

    def ratios(self) -> dict[str, float]:
        """Return cells per weight: the paper's r_avg, and those that count more."""
        return {
            "r_avg": self.analog_cells / self.stored_weights,
            "stored_cells_per_stored_weight": (self.analog_cells + self.header_cells) / self.stored_weights,
            "all_in_cells_per_stored_weight": self.all_in_cells / self.stored_weights,
            "all_in_cells_per_original_weight": self.all_in_cells / self.original_weights,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return counts and ratios, ready for JSON."""
        return {**asdict(self), "all_in_cells": self.all_in_cells, **self.ratios()}


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """The same weights held digitally."""

    name: str  # float32, float16, int8 or int4
    pruned: bool  # only the stored weights, with the same mask; else all
    bits_per_cell: int
    cells: int
    cells_per_original_weight: float


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a protected model stores, where, and what it costs."""

    strategy: str
    scope: str
    bits_per_cell: int
    channel: Mapping[str, Any]  # with its table and its source, less its residuals
    devices_per_cell: int  # 2 where a level is the difference of two memory elements
    header: Mapping[str, Any] | None  # channel, reads and copies; None: free of error
    source_sha256: str | None  # of the file that was protected
    command: str | None
    tensors: tuple[TensorEntry, ...]

    @cached_property
    def totals(self) -> Totals:
        """Return sums over the tensors."""
        return Totals(
            original_weights=sum(entry.original for entry in self.tensors),
            stored_weights=sum(entry.stored for entry in self.tensors),
            analog_cells=sum(entry.cells_for("level") for entry in self.tensors),
            header_cells=sum(entry.cells_for("header") for entry in self.tensors),
            mask_cells=sum(entry.cells_for("mask") for entry in self.tensors),
            mask_bitmap_bits=sum(entry.mask_bitmap_bits for entry in self.tensors),
            codebook_cells=sum(entry.cells_for("codebook") for entry in self.tensors),
        )

    def yardsticks(self) -> tuple[Yardstick, ...]:
        """Return what the weights would take digitally, dense and pruned, at 1 and at `bits_per_cell` bits a cell."""
        return tuple(
            self._yardstick(name, bits, pruned, per_cell)
            for per_cell in sorted({1, self.bits_per_cell})
            for pruned in (False, True)
            for name, bits in (("float32", 32), ("float16", 16), ("int8", 8), ("int4", 4))
        )

    def _yardstick(self, name: str, bits: int, pruned: bool, per_cell: int) -> Yardstick:
        weights = self.totals.stored_weights if pruned else self.totals.original_weights
        cells = -(-weights * bits // per_cell)
        if pruned:
            cells += sum(-(-mask_bits(entry.original, entry.stored) // per_cell) for entry in self.tensors)
        return Yardstick(
            name=name,
            pruned=pruned,
            bits_per_cell=per_cell,
            cells=cells,
            cells_per_original_weight=cells / self.totals.original_weights,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest, ready for JSON."""
        body = {"format": FORMAT, **asdict(self), "totals": self.totals.to_dict()}
        return {**body, "yardsticks": [asdict(yardstick) for yardstick in self.yardsticks()]}

    def to_json(self, indent: int | None = 2) -> str:
        """Return the manifest as JSON, on one line without `indent`."""
        compact = (",", ":") if indent is None else None
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, separators=compact)

    def __str__(self) -> str:
        totals = self.totals
        return (
            f"{totals.stored_weights:,} of {totals.original_weights:,} weights in {totals.analog_cells:,} analog cells "
            f"(r_avg {totals.ratios()['r_avg']:.3f}); all-in {totals.all_in_cells:,} cells, "
            f"{totals.ratios()['all_in_cells_per_original_weight']:.3f} per original weight"
        )

    def check(self, model: ir.Model) -> None:
        """Raise `ManifestError` naming the first tensor of `model` that this manifest does not describe."""
        actual = account(model)
        for name in ("strategy", "scope", "bits_per_cell", "channel", "devices_per_cell", "header"):
            if getattr(self, name) != getattr(actual, name):
                raise ManifestError(
                    f"the manifest is of another {name} than the model was protected with: they do not belong together"
                )
        found = {entry.key: entry for entry in actual.tensors}
        listed = {entry.key: entry for entry in self.tensors}
        for key in [*listed, *found]:
            if key not in found or key not in listed:
                where = "model" if key in listed else "manifest"
                raise ManifestError(f"tensor {key!r} is not in the {where}: the two do not belong together")
            if found[key] != listed[key]:
                what = next(name for name, value in asdict(listed[key]).items() if asdict(found[key])[name] != value)
                raise ManifestError(
                    f"tensor {key!r} does not fit the manifest: its {what} is {asdict(found[key])[what]} in the model "
                    f"and {asdict(listed[key])[what]} in the manifest. Write the manifest again from the model."
                )


# ---------------------------------------------------------------------------------------------- accounting


def account(model: ir.Model) -> Manifest:
    """Return the manifest of a protected model.

    Cells are addressed from 0 in the order of the tensors, with no gap and no overlap: level cells (in the order of the
    flat index, the r cells of a weight side by side), header cells, mask cells, codebook cells.

    Raises
    ------
    ModelError
        If the model is not protected.
    """
    protection = Protection.of(model)
    tensors = stored_tensors(model)
    counts, digests = zip(*((tensor.class_counts(), tensor.digests()) for tensor in tensors), strict=True)
    shared = np.sum(counts, axis=0) if protection.scope == "model" and counts else None
    entries, address = [], 0
    for place, (tensor, count, sha256) in enumerate(zip(tensors, counts, digests, strict=True)):
        owns_codebook = shared is None or place == 0
        ranges, address = _addresses(_cells(tensor, count, protection, owns_codebook=owns_codebook), address)
        entries.append(_entry(tensor, count, count if shared is None else shared, ranges, protection, sha256))
    return Manifest(
        strategy=protection.strategy,
        scope=protection.scope,
        bits_per_cell=protection.bits_per_cell,
        channel=lean(protection.channel.to_dict(), samples=False),
        devices_per_cell=protection.channel.devices_per_cell,
        header=None if protection.header is None else lean(protection.header_dict(), samples=False),
        source_sha256=model.metadata_props.get(SOURCE_KEY),
        command=model.metadata_props.get(COMMAND_KEY),
        tensors=tuple(entries),
    )


def _cells(tensor: StoredTensor, count: Any, protection: Protection, *, owns_codebook: bool) -> dict[str, int]:
    classes = tensor.alpha.size
    bits = protection.bits_per_cell
    symbols = -(-tensor.count * tensor.header_bits // bits)
    return {
        "level": protection.channel.devices_per_cell
        * sum(int(weights) * cells for weights, cells in zip(count, protection.cells, strict=True)),
        "header": symbols * (1 if protection.header is None else protection.header.devices_per_symbol),
        "mask": -(-mask_bits(tensor.size, tensor.count) // bits),
        "codebook": -(-32 * 2 * classes // bits) if owns_codebook else 0,
    }


def mask_bits(total: int, stored: int) -> int:
    """Return ⌈log2 C(total, stored)⌉: the bits that tell which `stored` of `total` weights are stored.

    Examples
    --------
    >>> mask_bits(4, 2)  # C(4, 2) = 6
    3
    >>> mask_bits(1000, 1000)
    0
    """
    if total <= _EXACT or min(stored, total - stored) <= _FEW:
        return (math.comb(total, stored) - 1).bit_length()
    logarithm = math.lgamma(total + 1) - math.lgamma(stored + 1) - math.lgamma(total - stored + 1)
    return math.ceil(logarithm / math.log(2)) if 0 < stored < total else 0


def _addresses(cells: Mapping[str, int], address: int) -> tuple[dict[str, tuple[int, int]], int]:
    ranges = {}
    for plane, number in cells.items():
        ranges[plane] = (address, address + number)
        address += number
    return ranges, address


def _entry(
    tensor: StoredTensor,
    count: Any,
    scope_count: Any,
    ranges: Mapping[str, tuple[int, int]],
    protection: Protection,
    sha256: dict[str, str],
) -> TensorEntry:
    span = protection.channel.span
    return TensorEntry(
        name=tensor.name,
        key=tensor.key,
        shape=tensor.shape,
        dtype=tensor.dtype.name,
        uses=tensor.uses,
        original=tensor.size,
        stored=tensor.count,
        classes=tuple(
            ClassEntry(
                low=_bound(alpha, beta, span[0], tensor) if in_scope else 0.0,
                high=_bound(alpha, beta, span[1], tensor) if in_scope else 0.0,
                alpha=float(alpha),
                beta=float(beta),
                count=int(weights),
                cells=cells,
            )
            for alpha, beta, weights, in_scope, cells in zip(
                tensor.alpha, tensor.beta, count, scope_count, protection.cells, strict=True
            )
        ),
        mask_bitmap_bits=tensor.size if tensor.has("mask") else 0,
        cells=ranges,
        sha256=sha256,
    )


def _bound(alpha: Any, beta: Any, level: float, tensor: StoredTensor) -> float:
    """Return the magnitude that stands at one end of the span, as exactly as float32 α and β tell it."""
    bound = float(np.float32((level + float(beta)) / float(alpha)))
    return max(0.0, bound) if tensor.has("sign") else bound


# ------------------------------------------------------------------------------------------------- reading


def from_json(text: str) -> Manifest:
    """Return the manifest in `text`.

    Raises
    ------
    ManifestError
        If it is none, or of a format that this version cannot read.
    """
    try:
        body = json.loads(text)
        if body["format"] != FORMAT:
            raise ManifestError(f"the manifest has format {body['format']!r}, and this version reads {FORMAT!r}")
        tensors = tuple(_entry_from(entry) for entry in body["tensors"])
        return Manifest(**{**_known(Manifest, body), "tensors": tensors})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ManifestError):
            raise
        raise ManifestError("this is no manifest, or an entry of it is missing or of another kind") from error


def read(path: Path) -> Manifest:
    """Return the manifest in a JSON file; raises `ManifestError` as `from_json` does."""
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read {str(path)!r}: {error}") from error


def _entry_from(body: Mapping[str, Any]) -> TensorEntry:
    known = _known(TensorEntry, body)
    classes = tuple(build(ClassEntry, _known(ClassEntry, entry)) for entry in known["classes"])
    cells = {plane: (int(first), int(end)) for plane, (first, end) in known["cells"].items()}
    return TensorEntry(**{**known, "classes": classes, "cells": cells, "shape": tuple(known["shape"])})


def _known(cls: type, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `body` that this version knows."""
    hints = get_type_hints(cls)
    known = {name: body[name] for name in hints}
    for name, value in known.items():
        if not _is_of(value, hints[name]):
            raise ManifestError(f"{name} is {json.dumps(value)[:40]} in the manifest, where it cannot be")
    return known


def _is_of(value: Any, hint: Any) -> bool:
    """Return whether a JSON value may stand for a field of this type; counts are not negative."""
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (str, bool):
        return isinstance(value, hint)
    if hint == str | None:
        return value is None or isinstance(value, str)
    kind = get_origin(hint)
    return kind is None or kind in (UnionType, Union) or isinstance(value, Mapping if kind is Mapping else list)
