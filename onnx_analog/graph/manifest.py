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
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, Decimal, localcontext
from functools import cached_property, lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_origin, get_type_hints

import numpy as np
import onnx_ir as ir

from onnx_analog import serialise
from onnx_analog.coding.side import MOST_COPIES, MOST_READS
from onnx_analog.coding.strategies import MOST_CELLS, SCOPES, STRATEGIES, Strategy
from onnx_analog.disk import transactions
from onnx_analog.disk.reading import MIB, read_text
from onnx_analog.errors import ManifestError
from onnx_analog.graph.stored import COMMAND_KEY, SOURCE_KEY, Protection, StoredTensor, lean, stored_tensors
from onnx_analog.graph.weights import FLOATS

FORMAT = "onnx-analog-manifest/1"
PLANES = ("level", "header", "mask", "codebook")  # in the order of their addresses

MOST_BYTES = 32 * MIB  # of a manifest's file: some 20,000 tensors
MOST_WEIGHTS = 2**40  # of a tensor
MOST_AXES = 64
MOST_DEVICES = 1000  # in a cell


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
        self.compare(account(model))

    def compare(self, actual: Manifest) -> None:
        """Raise `ManifestError` naming the first thing in which this manifest is not `actual`, the model's account."""
        self._compare(actual, "strategy", "scope", "bits_per_cell", "channel", "devices_per_cell", "header")
        found = {entry.key: asdict(entry) for entry in actual.tensors}
        listed = {entry.key: asdict(entry) for entry in self.tensors}
        for key in [*listed, *found]:
            if key not in found or key not in listed:
                where = "model" if key in listed else "manifest"
                raise ManifestError(f"tensor {key!r} is not in the {where}: the two do not belong together")
            for what, value in listed[key].items():
                if found[key][what] != value:
                    raise ManifestError(
                        f"tensor {key!r} does not fit the manifest: its {what} is {found[key][what]} in the model and "
                        f"{value} in the manifest. Write the manifest again from the model."
                    )
        self._compare(actual, "source_sha256", "command")

    def _compare(self, actual: Manifest, *names: str) -> None:
        for name in names:
            if getattr(self, name) != getattr(actual, name):
                raise ManifestError(
                    f"the manifest is of another {name} than the model was protected with: they do not belong together"
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
    calls: dict[str, list[StoredTensor]] = {}
    for tensor in stored_tensors(model):  # of one key where another tool inlined a function that is called twice
        calls.setdefault(tensor.key, []).append(tensor)
    tensors = [group[0] for group in calls.values()]
    counts, digests = zip(*((tensor.class_counts(), tensor.digests()) for tensor in tensors), strict=True)
    shared = np.sum(counts, axis=0) if protection.scope == "model" and counts else None
    entries, address = [], 0
    for place, (tensor, count, sha256) in enumerate(zip(tensors, counts, digests, strict=True)):
        owns_codebook = shared is None or place == 0
        ranges, address = _addresses(_cells(tensor, count, protection, owns_codebook=owns_codebook), address)
        uses = sum(call.uses for call in calls[tensor.key])
        entries.append(_entry(tensor, uses, count, count if shared is None else shared, ranges, protection, sha256))
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
    widths = _digital(
        tensor.size, tensor.count, tensor.header_bits, tensor.alpha.size, protection.bits_per_cell, owns_codebook
    )
    widths["header"] *= 1 if protection.header is None else protection.header.devices_per_symbol
    return {"level": _analog(count, protection.cells, protection.channel.devices_per_cell), **widths}


def _analog(counts: Sequence[Any], cells: Sequence[int], devices: int) -> int:
    return devices * sum(int(count) * each for count, each in zip(counts, cells, strict=True))


def _digital(
    original: int, stored: int, header_bits: int, classes: int, bits: int, owns_codebook: bool
) -> dict[str, int]:
    """Return how many symbols of `bits` bits each digital plane of a tensor takes."""
    return {
        "header": -(-stored * header_bits // bits),
        "mask": -(-mask_bits(original, stored) // bits),
        "codebook": -(-32 * 2 * classes // bits) if owns_codebook else 0,
    }


_FEW = 100  # stored, or not stored
_EXACT = 1000  # up to so many weights, as with few, the binomial coefficient is computed as an integer
_HALF_LOG_2_PI = Decimal("0.918938533204672741780329736405617639861397473637783412817151540")
_LOG_2 = Decimal("0.693147180559945309417232121458176568075500134360255254120680009")
# Of Stirling's series for ln n!, in 1/n, 1/n³, ...: B(2k)/(2k·(2k - 1)). The next term is below 1e-27 for n >= 100.
_STIRLING = ((1, 12), (-1, 360), (1, 1260), (-1, 1680), (1, 1188), (-691, 360360))


@lru_cache(maxsize=2**16)
def mask_bits(total: int, stored: int) -> int:
    """Return ⌈log2 C(total, stored)⌉: the bits that tell which `stored` of `total` weights are stored.

    It is exact up to 1,000 weights, and where at most 100 are stored or left out; else the logarithm is known to 1e-25.

    Examples
    --------
    >>> mask_bits(4, 2)  # C(4, 2) = 6
    3
    >>> mask_bits(1000, 1000)
    0
    """
    if total <= _EXACT or min(stored, total - stored) <= _FEW:
        return (math.comb(total, stored) - 1).bit_length()
    with localcontext(prec=60):
        logarithm = _log_factorial(total) - _log_factorial(stored) - _log_factorial(total - stored)
        return int((logarithm / _LOG_2).to_integral_value(ROUND_CEILING))


def _log_factorial(number: int) -> Decimal:
    n = Decimal(number)
    series = sum((Decimal(a) / b / n ** (2 * k + 1) for k, (a, b) in enumerate(_STIRLING)), Decimal(0))
    return (n + Decimal("0.5")) * n.ln() - n + _HALF_LOG_2_PI + series


def _addresses(cells: Mapping[str, int], address: int) -> tuple[dict[str, tuple[int, int]], int]:
    ranges = {}
    for plane, number in cells.items():
        ranges[plane] = (address, address + number)
        address += number
    return ranges, address


def _entry(
    tensor: StoredTensor,
    uses: int,
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
        uses=uses,
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

    It must agree with itself: counts, bounds and digests can be so, every cell has one address and no other, and totals
    and yardsticks follow from the tensors. A tensor has at most 2^40 weights and 64 axes.

    Raises
    ------
    ManifestError
        If it is none, does not agree with itself, or is of a format that this version cannot read.
    """
    try:
        body = serialise.parse(text)
        if not isinstance(body, dict):
            raise ManifestError("this is not a manifest: it is not a JSON object")
        if body["format"] != FORMAT:
            raise ManifestError(f"the manifest has format {body['format']!r}, and this version reads {FORMAT!r}")
        for name, kind in (("tensors", list), ("yardsticks", list), ("totals", dict)):
            if not isinstance(body[name], kind):
                raise ManifestError(
                    f"{name} is {json.dumps(body[name])[:40]} in the manifest, which is not a valid value"
                )
        if not all(isinstance(entry, dict) for entry in [*body["tensors"], *body["yardsticks"]]):
            raise ManifestError(
                "tensors and yardsticks are lists of objects in a manifest; here they hold something else"
            )
        tensors = tuple(_entry_from(entry) for entry in body["tensors"])
        found = Manifest(**{**_known(Manifest, body), "tensors": tensors})
        _check(found)
        _check_told(found.totals.to_dict(), body["totals"], "totals")
        _check_yardsticks(found, body["yardsticks"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ManifestError):
            raise
        told = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ManifestError(f"this is not a manifest: {told}") from error
    return found


def read(path: Path) -> Manifest:
    """Return the manifest in a JSON file of at most 32 MiB; raises `ManifestError` as `from_json` does."""
    transactions.check_whole(path, error=ManifestError)
    text = read_text(path, limit=MOST_BYTES, error=ManifestError)
    try:
        return from_json(text)
    except ManifestError as error:
        raise ManifestError(f"{str(path)!r}: {error}") from error


def _entry_from(body: Mapping[str, Any]) -> TensorEntry:
    known = _known(TensorEntry, body)
    classes = tuple(serialise.from_json_dict(ClassEntry, _known(ClassEntry, entry)) for entry in known["classes"])
    cells = {plane: _range(known["cells"][plane]) for plane in PLANES}
    return TensorEntry(**{**known, "classes": classes, "cells": cells, "shape": tuple(known["shape"])})


def _range(ends: Any) -> tuple[int, int]:
    if not (isinstance(ends, list) and len(ends) == 2 and all(_is_of(end, int) for end in ends)):
        raise ManifestError(f"a range of cells is {json.dumps(ends)[:40]} in the manifest, which is not a valid value")
    return ends[0], ends[1]


def _known(cls: type, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `body` that this version knows."""
    hints = get_type_hints(cls)
    known = {name: body[name] for name in hints}
    for name, value in known.items():
        if not _is_of(value, hints[name]):
            raise ManifestError(f"{name} is {json.dumps(value)[:40]} in the manifest, which is not a valid value")
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


# ------------------------------------------------------------------------------------------------- agreement

_HEX = re.compile("[0-9a-f]{64}")


def _check(found: Manifest) -> None:
    """Raise `ManifestError` unless what the manifest says can be so."""
    chosen = STRATEGIES.get(found.strategy)
    if chosen is None:
        raise ManifestError(f"no strategy is called {found.strategy!r}: there are {', '.join(STRATEGIES)}")
    if found.header is not None and not isinstance(found.header, Mapping):
        raise ManifestError(f"header is {json.dumps(found.header)[:40]} in the manifest, which is not a valid value")
    header = found.header or {"channel": found.channel, "reads": 1, "copies": 1}
    wrong = [
        ("scope", found.scope not in SCOPES),
        ("bits_per_cell", not 1 <= found.bits_per_cell <= 8),
        ("channel", not _is_channel(found.channel)),
        ("devices_per_cell", not 1 <= found.devices_per_cell <= MOST_DEVICES),
        ("header", not _is_channel(header["channel"])),
        ("header", not (_is_of(header["reads"], int) and 1 <= header["reads"] <= MOST_READS)),
        ("header", not (_is_of(header["copies"], int) and header["copies"] in range(1, MOST_COPIES + 1, 2))),
        ("source_sha256", found.source_sha256 is not None and not _HEX.fullmatch(found.source_sha256)),
    ]
    for name, is_wrong in wrong:
        if is_wrong:
            raise ManifestError(
                f"{name} is {json.dumps(getattr(found, name))[:40]} in the manifest, which is not a valid value"
            )
    if not found.tensors:
        raise ManifestError("the manifest lists no tensor")
    if len({entry.key for entry in found.tensors}) < len(found.tensors):
        raise ManifestError("the manifest lists two tensors of one key")
    for entry in found.tensors:
        for what in _contradictions(entry, chosen):
            raise ManifestError(f"tensor {entry.key!r} contradicts itself in the manifest: {what}")
    _check_scope(found)
    _check_addresses(found, chosen)


def _is_channel(body: Any) -> bool:
    return isinstance(body, Mapping) and isinstance(body.get("family"), str)


def _contradictions(entry: TensorEntry, chosen: Strategy) -> Iterator[str]:
    """Yield what of a tensor cannot be so."""
    if len(entry.shape) > MOST_AXES or not all(_is_of(side, int) for side in entry.shape):
        yield f"a shape has up to {MOST_AXES} whole numbers"
    elif math.prod(entry.shape) != entry.original:
        yield f"shape {entry.shape} is not of {entry.original:,} weights"
    if not 1 <= entry.stored <= entry.original <= MOST_WEIGHTS:
        yield f"{entry.stored:,} of {entry.original:,} weights are stored"
    if entry.dtype not in {dtype.name for dtype in FLOATS}:
        yield f"{entry.dtype!r} is no float type"
    if len(entry.classes) != chosen.classes:
        yield f"{len(entry.classes)} classes of {chosen.classes}"
    elif sum(found.count for found in entry.classes) != entry.stored:
        yield f"classes do not hold {entry.stored:,} weights"
    for found in entry.classes:
        if not (found.alpha > 0 and found.low <= found.high and 1 <= found.cells <= MOST_CELLS):
            yield f"alpha {found.alpha}, {found.low} to {found.high} in {found.cells:,} cells is no class"
    if entry.mask_bitmap_bits != entry.original and (entry.mask_bitmap_bits or entry.stored < entry.original):
        yield f"mask_bitmap_bits is {entry.mask_bitmap_bits:,}"
    planes = {"level": True, "mask": entry.mask_bitmap_bits > 0, "sign": chosen.sign_in_header}
    planes["class"] = chosen.classes > 1
    if {plane for plane, there in planes.items() if there} != set(entry.sha256):
        yield f"it has digests of {', '.join(entry.sha256) or 'nothing'}"
    if not all(isinstance(digest, str) and _HEX.fullmatch(digest) for digest in entry.sha256.values()):
        yield "a digest is no SHA-256"


def _check_scope(found: Manifest) -> None:
    first = found.tensors[0]
    for entry in found.tensors:
        if [c.cells for c in entry.classes] != [c.cells for c in first.classes]:
            raise ManifestError(f"tensor {entry.key!r} has other cells per weight in the manifest than {first.key!r}")
        shared = [[(c.low, c.high, c.alpha, c.beta) for c in each.classes] for each in (first, entry)]
        if found.scope == "model" and shared[0] != shared[1]:
            raise ManifestError(f"tensor {entry.key!r} has other classes in the manifest, though all share one scope")


def _check_addresses(found: Manifest, chosen: Strategy) -> None:
    header_bits = chosen.sign_in_header + (chosen.classes - 1).bit_length()
    address, devices = 0, None
    for place, entry in enumerate(found.tensors):
        owns = found.scope == "tensor" or place == 0
        counts, cells = zip(*((c.count, c.cells) for c in entry.classes), strict=True)
        widths = {"level": _analog(counts, cells, found.devices_per_cell)}
        widths |= _digital(entry.original, entry.stored, header_bits, chosen.classes, found.bits_per_cell, owns)
        devices = devices or _devices(found, entry.cells_for("header"), widths["header"])
        widths["header"] *= devices
        expected, address = _addresses(widths, address)
        for plane in PLANES:
            if entry.cells[plane] != expected[plane]:
                raise ManifestError(
                    f"tensor {entry.key!r}: its {plane} is in cells {entry.cells[plane][0]:,} to "
                    f"{entry.cells[plane][1]:,} of the manifest, and must be in {expected[plane][0]:,} to "
                    f"{expected[plane][1]:,}"
                )


def _devices(found: Manifest, width: int, symbols: int) -> int:
    """Return the memory elements of a header symbol; how many a cell of its channel has, the manifest does not say."""
    if found.header is None or not symbols:
        return 1
    each = int(found.header["reads"] * found.header["copies"])
    return each * min(max(1, width // (symbols * each)), MOST_DEVICES)


def _check_told(expected: Mapping[str, Any], told: Mapping[str, Any], where: str) -> None:
    """Raise `ManifestError` unless `told` has what follows from the tensors; ratios may be rounded."""
    for name, value in expected.items():
        found = told[name]
        same = (
            _is_of(found, float) and math.isclose(found, value, rel_tol=1e-9)
            if isinstance(value, float)
            else (type(found) is type(value) and found == value)
        )
        if not same:
            raise ManifestError(f"{where}: {name} is {json.dumps(found)[:40]}, and {value} follows from the tensors")


def _check_yardsticks(found: Manifest, told: Sequence[Mapping[str, Any]]) -> None:
    expected = found.yardsticks()
    if not isinstance(told, list) or len(told) != len(expected):
        raise ManifestError(f"yardsticks: {len(expected)} follow from the tensors")
    for yardstick, here in zip(expected, told, strict=True):
        _check_told(asdict(yardstick), here, f"yardsticks: {yardstick.name}")
