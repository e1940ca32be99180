"""The storage manifest: which cell holds what, and what it all costs.

`account` derives it from a protected model. The JSON form is specified by manifest.schema.json beside this module and
explained in docs/formats.md: a reader ignores fields that it does not know.

Cells, with b bits in a cell of side information, N stored of n weights, K classes, G groups:

    level       Σ over classes of N_class · r_class                        times 2 for differential pairs
    side        ⌈N · (1 if a bit holds the sign, + ⌈log2 K⌉) / b⌉          per tensor; analog: × cells, copies, devices
    mask        ⌈⌈log2 C(n, N)⌉ / b⌉, the entropy-coded length             per tensor; 0 if all are stored
    codebook    ⌈32 · G · (2 per class with cells, 1 per other) / b⌉       once for the tensors that share one

A codebook of equal steps without cells is one number, the step: for each group, or one if the scheme gives it. Tables
of an estimator are part of the codebook. The paper's r_avg (Isik et al. 2020, section 2) counts the first line only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, Decimal, localcontext
from functools import cached_property, lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_origin, get_type_hints

import numpy as np
import onnx_ir as ir

from onnx_analog import serialise
from onnx_analog.coding.estimators import estimator
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.disk import transactions
from onnx_analog.disk.reading import MIB, read_text
from onnx_analog.display import Shown, counted
from onnx_analog.errors import AnalogError, ManifestError
from onnx_analog.graph.stored import AGAIN, COMMAND_KEY, SOURCE_KEY, StoredTensor, scheme_of, schemes_of, stored_tensors
from onnx_analog.graph.weights import FLOATS

FORMAT = "onnx-analog-manifest/2"
PLANES = ("level", "side", "mask", "codebook")  # in the order of their addresses

MOST_BYTES = 32 * MIB  # of a manifest's file: some 20,000 tensors
MOST_WEIGHTS = 2**40  # of a tensor
MOST_AXES = 64


@dataclass(frozen=True, kw_only=True)
class ClassEntry:
    """One class of one tensor. `low` and `high` are its codebook's bounds, in the unit of the weights."""

    low: float | None  # null where each output channel has its own, as are the next three
    high: float | None
    alpha: float | None
    beta: float | None
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
    scheme: int  # among those of the manifest
    original: int  # n, weights
    stored: int  # N, weights
    groups: int  # of output channels that have α and β of their own; 1 if all share them
    classes: tuple[ClassEntry, ...]
    mask_bitmap_bits: int  # n if some weights are pruned, 0 otherwise
    bits: Mapping[str, int]  # plane -> its length before it is put into cells: side, mask, codebook
    cells: Mapping[str, tuple[int, int]]  # plane -> address range: level, side, mask, codebook
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
    side_cells: int
    mask_cells: int
    mask_bitmap_bits: int
    codebook_cells: int

    @property
    def all_in_cells(self) -> int:
        """All cells: level, side information, mask and codebook."""
        return self.analog_cells + self.side_cells + self.mask_cells + self.codebook_cells

    def ratios(self) -> dict[str, float]:
        """Return cells per weight: the paper's r_avg, and those that count more."""
        return {
            "r_avg": self.analog_cells / self.stored_weights,
            "stored_cells_per_stored_weight": (self.analog_cells + self.side_cells) / self.stored_weights,
            "all_in_cells_per_stored_weight": self.all_in_cells / self.stored_weights,
            "all_in_cells_per_original_weight": self.all_in_cells / self.original_weights,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return counts and ratios, ready for JSON."""
        return {**asdict(self), "all_in_cells": self.all_in_cells, **self.ratios()}


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The same weights held digitally, free of error."""

    name: str  # float32, float16, int8 or int4
    pruned: bool  # only the stored weights, with the same mask; else all
    bits_per_cell: int
    cells: int
    cells_per_original_weight: float


@dataclass(frozen=True, kw_only=True, repr=False)
class Manifest(Shown):
    """The tensors that a protected model stores, the addresses of their cells, and their cost."""

    schemes: tuple[Scheme, ...]
    source_sha256: str | None  # of the file that was protected
    command: str | None
    tensors: tuple[TensorEntry, ...]

    @cached_property
    def totals(self) -> Totals:
        """Sums over the tensors."""
        return Totals(
            original_weights=sum(entry.original for entry in self.tensors),
            stored_weights=sum(entry.stored for entry in self.tensors),
            analog_cells=sum(entry.cells_for("level") for entry in self.tensors),
            side_cells=sum(entry.cells_for("side") for entry in self.tensors),
            mask_cells=sum(entry.cells_for("mask") for entry in self.tensors),
            mask_bitmap_bits=sum(entry.mask_bitmap_bits for entry in self.tensors),
            codebook_cells=sum(entry.cells_for("codebook") for entry in self.tensors),
        )

    @property
    def plan(self) -> Plan:
        """How each tensor is stored."""
        return Plan(default=None, tensors={entry.key: self.schemes[entry.scheme] for entry in self.tensors})

    def baselines(self) -> tuple[Baseline, ...]:
        """Return what the weights would take digitally, dense and pruned, at 1 and at the schemes' bits per cell."""
        return tuple(
            self._baseline(name, bits, pruned, per_cell)
            for per_cell in sorted({1, *(scheme.side_bits_per_cell for scheme in self.schemes)})
            for pruned in (False, True)
            for name, bits in (("float32", 32), ("float16", 16), ("int8", 8), ("int4", 4))
        )

    def _baseline(self, name: str, bits: int, pruned: bool, per_cell: int) -> Baseline:
        weights = self.totals.stored_weights if pruned else self.totals.original_weights
        cells = -(-weights * bits // per_cell)
        if pruned:
            cells += sum(-(-mask_bits(entry.original, entry.stored) // per_cell) for entry in self.tensors)
        return Baseline(
            name=name,
            pruned=pruned,
            bits_per_cell=per_cell,
            cells=cells,
            cells_per_original_weight=cells / self.totals.original_weights,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest, ready for JSON."""
        return {
            "format": FORMAT,
            "schemes": [scheme.to_dict() for scheme in self.schemes],
            "source_sha256": self.source_sha256,
            "command": self.command,
            "tensors": [asdict(entry) for entry in self.tensors],
            "totals": self.totals.to_dict(),
            "baselines": [asdict(baseline) for baseline in self.baselines()],
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Return the manifest as JSON, on one line without `indent`."""
        compact = (",", ":") if indent is None else None
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, separators=compact)

    def lines(self) -> Iterator[tuple[str, object]]:
        """Yield the names and values that a notebook shows."""
        totals, ratios = self.totals, self.totals.ratios()
        yield "stored weights", f"{totals.stored_weights:,} of {totals.original_weights:,}"
        yield "analog cells", f"{totals.analog_cells:,} ({ratios['r_avg']:.3f} per stored weight)"
        yield "side information, cells", f"{totals.side_cells:,}"
        yield "mask, cells", f"{totals.mask_cells:,}"
        yield "codebook, cells", f"{totals.codebook_cells:,}"
        per_weight = ratios["all_in_cells_per_original_weight"]
        yield "all-in, cells", f"{totals.all_in_cells:,} ({per_weight:.3f} per original weight)"
        yield "tensors", f"{len(self.tensors):,}"
        for scheme in self.schemes:
            yield "scheme", scheme

    def _lines(self) -> Iterator[tuple[str, object]]:
        return self.lines()

    def __str__(self) -> str:
        totals = self.totals
        return (
            f"{totals.stored_weights:,} of {counted(totals.original_weights, 'weight')} in "
            f"{counted(totals.analog_cells, 'analog cell')} (r_avg {totals.ratios()['r_avg']:.3f}); "
            f"all-in {counted(totals.all_in_cells, 'cell')}, "
            f"{totals.ratios()['all_in_cells_per_original_weight']:.3f} per original weight"
        )

    def check(self, model: ir.Model) -> None:
        """Raise `ManifestError` naming the first tensor of `model` that this manifest does not describe."""
        self.compare(account(model))

    def compare(self, actual: Manifest) -> None:
        """Raise `ManifestError` naming the first thing in which this manifest differs from `actual`, the model's."""
        self._compare(actual, "schemes")
        there = {entry.key: asdict(entry) for entry in actual.tensors}
        listed = {entry.key: asdict(entry) for entry in self.tensors}
        for key in [*listed, *there]:
            if key not in there or key not in listed:
                where = "model" if key in listed else "manifest"
                raise ManifestError(f"tensor {key!r} is not in the {where}: the two do not belong together")
            for name, value in listed[key].items():
                if there[key][name] != value:
                    raise ManifestError(
                        f"tensor {key!r} does not fit the manifest: its {name} is {there[key][name]} in the model and "
                        f"{value} in the manifest. Write the manifest again from the model."
                    )
        self._compare(actual, "source_sha256", "command")

    def _compare(self, actual: Manifest, *names: str) -> None:
        for name in names:
            if getattr(self, name) != getattr(actual, name):
                other = "other schemes" if name == "schemes" else f"another {name}"
                raise ManifestError(
                    f"the manifest has {other} than the model was protected with: the two do not belong together"
                )


# ---------------------------------------------------------------------------------------------- accounting


def account(model: ir.Model) -> Manifest:
    """Return the manifest of a protected model.

    Cells are addressed from 0 in the order of the tensors, with no gap and no overlap: level cells (in the order of the
    flat index, the r cells of a weight side by side), side information, mask, codebook.

    Raises
    ------
    ModelError
        If the model is not protected.
    """
    schemes = schemes_of(model)
    return account_of(stored_tensors(model, schemes), schemes, model)


def account_of(stored: Sequence[StoredTensor], schemes: Sequence[Scheme], model: ir.Model) -> Manifest:
    """Return the manifest of a protected model whose tensors and schemes are known; see `account`."""
    calls: dict[str, list[StoredTensor]] = {}
    for tensor in stored:  # of one key where another tool inlined a function that is called twice
        calls.setdefault(tensor.key, []).append(tensor)
    tensors = [group[0] for group in calls.values()]
    shared = _shared_counts(tensors)
    entries, address = [], 0
    for tensor, bits in _with_bits(tensors):
        ranges, address = _addresses(cells_of(tensor.scheme, tensor.class_counts, bits), address)
        uses = sum(call.uses for call in calls[tensor.key])
        entries.append(_entry(tensor, uses, shared.get(tensor.number, tensor.class_counts), bits, ranges))
    return Manifest(
        schemes=tuple(schemes),
        source_sha256=model.metadata_props.get(SOURCE_KEY),
        command=model.metadata_props.get(COMMAND_KEY),
        tensors=tuple(entries),
    )


def totals_of(tensors: Iterable[StoredTensor]) -> Totals:
    """Return the totals of `account_of` alone, without a digest of any plane; one tensor for each key."""
    listed = list(_with_bits(tensors))
    cells = [cells_of(tensor.scheme, tensor.class_counts, bits) for tensor, bits in listed]
    return Totals(
        original_weights=sum(tensor.size for tensor, _ in listed),
        stored_weights=sum(tensor.count for tensor, _ in listed),
        analog_cells=sum(each["level"] for each in cells),
        side_cells=sum(each["side"] for each in cells),
        mask_cells=sum(each["mask"] for each in cells),
        mask_bitmap_bits=sum(tensor.size for tensor, _ in listed if tensor.has("mask")),
        codebook_cells=sum(each["codebook"] for each in cells),
    )


def _with_bits(tensors: Iterable[StoredTensor]) -> Iterator[tuple[StoredTensor, dict[str, int]]]:
    """Yield each tensor and the bits of its digital planes; a codebook that a model shares is the first tensor's."""
    owned = set[int]()
    for tensor in tensors:
        owns = tensor.scheme.granularity != "model" or tensor.number not in owned
        owned.add(tensor.number)
        yield tensor, _bits(tensor, owns_codebook=owns)


def _shared_counts(tensors: Sequence[StoredTensor]) -> dict[int, Any]:
    """Return, by scheme, how many weights each class (K,) holds in all tensors that share a codebook."""
    shared: dict[int, Any] = {}
    for tensor in tensors:
        if tensor.scheme.granularity == "model":
            shared[tensor.number] = shared.get(tensor.number, 0) + tensor.class_counts
    return shared


def _bits(tensor: StoredTensor, *, owns_codebook: bool) -> dict[str, int]:
    """Return the length in bits of each digital plane."""
    table = estimator(tensor.scheme.estimator).table_bits(
        tensor.level, tensor.level_class, cells=tensor.scheme.cells_of_class
    )
    return {
        "side": tensor.count * tensor.scheme.side_bits,
        "mask": mask_bits(tensor.size, tensor.count),
        "codebook": table + (codebook_bits(tensor.scheme, len(tensor.alpha)) if owns_codebook else 0),
    }


def codebook_bits(scheme: Scheme, groups: int) -> int:
    """Return the bits of a codebook: float32 numbers, for each group."""
    if scheme.partition == "uniform" and scheme.analog == "none":
        return 32 * (groups if scheme.step is None else 1)  # the step
    return 32 * groups * sum(2 if cells else 1 for cells in scheme.cells_of_class)


def cells_of(scheme: Scheme, counts: Iterable[Any], bits: Mapping[str, int]) -> dict[str, int]:
    """Return the cells of each plane, for the weights of each class (K,) and the bits of each digital plane."""
    symbols = {name: -(-length // scheme.side_bits_per_cell) for name, length in bits.items()}
    if scheme.side is not None:
        symbols["side"] *= scheme.side.devices_per_symbol
    analog = sum(int(count) * each for count, each in zip(counts, scheme.cells_of_class, strict=True))
    return {"level": scheme.channel.devices_per_cell * analog, **symbols}


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
    tensor: StoredTensor, uses: int, shared: Any, bits: Mapping[str, int], ranges: Mapping[str, tuple[int, int]]
) -> TensorEntry:
    return TensorEntry(
        name=tensor.name,
        key=tensor.key,
        shape=tensor.shape,
        dtype=tensor.dtype.name,
        uses=uses,
        scheme=tensor.number,
        original=tensor.size,
        stored=tensor.count,
        groups=len(tensor.alpha),
        classes=tuple(_class_entry(tensor, number, int(shared[number])) for number in range(tensor.scheme.classes)),
        mask_bitmap_bits=tensor.size if tensor.has("mask") else 0,
        bits=dict(bits),
        cells=ranges,
        sha256=tensor.digests(),
    )


def _class_entry(tensor: StoredTensor, number: int, shared: int) -> ClassEntry:
    """Return one class; its bounds are 0 where no weight of those that share the codebook is in it."""
    count, cells = int(tensor.class_counts[number]), tensor.scheme.cells_of_class[number]
    if len(tensor.alpha) > 1:
        return ClassEntry(low=None, high=None, alpha=None, beta=None, count=count, cells=cells)
    alpha, beta = tensor.alpha[0, number], tensor.beta[0, number]
    low, high = tensor.scheme.channel.span if cells else (0.0, 0.0)
    return ClassEntry(
        low=_bound(alpha, beta, low, tensor) if shared else 0.0,
        high=_bound(alpha, beta, high, tensor) if shared else 0.0,
        alpha=float(alpha),
        beta=float(beta),
        count=count,
        cells=cells,
    )


def _bound(alpha: Any, beta: Any, level: float, tensor: StoredTensor) -> float:
    """Return the size that stands at one end of the output range, as exactly as float32 α and β tell it."""
    bound = float(np.float32((level + float(beta)) / float(alpha)))
    return max(0.0, bound) if tensor.scheme.sign == "bit" else bound


# ------------------------------------------------------------------------------------------------- reading


def from_json(text: str) -> Manifest:
    """Return the manifest in `text`.

    It must agree with itself: counts, bounds and digests can be so, every cell has one address and no other, and totals
    and baselines follow from the tensors. A tensor has at most 2^40 weights and 64 axes.

    Raises
    ------
    ManifestError
        If it is not a manifest, does not agree with itself, or is of a format that this version cannot read.
    """
    try:
        body = serialise.parse(text)
        if not isinstance(body, dict):
            raise ManifestError("this is not a manifest: it is not a JSON object")
        if body["format"] != FORMAT:
            raise ManifestError(
                f"the manifest has format {body['format']!r}, and this version reads {FORMAT!r}. {AGAIN}"
            )
        for name, kind in (("schemes", list), ("tensors", list), ("baselines", list), ("totals", dict)):
            if not isinstance(body[name], kind):
                raise ManifestError(
                    f"{name} is {json.dumps(body[name])[:40]} in the manifest, which is not a valid value"
                )
        if not all(isinstance(entry, dict) for entry in [*body["tensors"], *body["baselines"]]):
            raise ManifestError(
                "tensors and baselines are lists of objects in a manifest; here they hold something else"
            )
        if len(body["schemes"]) > max(1, len(body["tensors"])):
            raise ManifestError("the manifest lists more schemes than tensors")
        manifest = Manifest(
            schemes=tuple(map(_scheme, body["schemes"])),
            source_sha256=body["source_sha256"],
            command=body["command"],
            tensors=tuple(_entry_from(entry) for entry in body["tensors"]),
        )
        _check(manifest)
        _check_follows(manifest.totals.to_dict(), body["totals"], "totals")
        _check_baselines(manifest, body["baselines"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ManifestError):
            raise
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ManifestError(f"this is not a manifest: {reason}") from error
    return manifest


def read(path: Path) -> Manifest:
    """Return the manifest in a JSON file of at most 32 MiB; raises `ManifestError` as `from_json` does."""
    transactions.check_whole(path, error=ManifestError)
    text = read_text(path, limit=MOST_BYTES, error=ManifestError)
    try:
        return from_json(text)
    except ManifestError as error:
        raise ManifestError(f"{str(path)!r}: {error}") from error


def _scheme(body: Any) -> Scheme:
    try:
        return scheme_of(body)
    except AnalogError as error:
        raise ManifestError(f"a scheme of the manifest is not valid: {error}") from error


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
    if hint == float | None:
        return value is None or _is_of(value, float)
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


def _check(manifest: Manifest) -> None:
    """Raise `ManifestError` unless what the manifest says can be so."""
    for name, text in (("source_sha256", manifest.source_sha256), ("command", manifest.command)):
        if not _is_of(text, str | None) or (name == "source_sha256" and text and not _HEX.fullmatch(text)):
            raise ManifestError(f"{name} is {json.dumps(text)[:40]} in the manifest, which is not a valid value")
    if not manifest.schemes or not manifest.tensors:
        raise ManifestError("the manifest lists no tensor, or no scheme")
    if len({entry.key for entry in manifest.tensors}) < len(manifest.tensors):
        raise ManifestError("the manifest lists two tensors of one key")
    for entry in manifest.tensors:
        if entry.scheme >= len(manifest.schemes):
            raise ManifestError(f"tensor {entry.key!r} has scheme {entry.scheme}, which the manifest does not list")
        for contradiction in _contradictions(entry, manifest.schemes[entry.scheme]):
            raise ManifestError(f"tensor {entry.key!r} contradicts itself in the manifest: {contradiction}")
    _check_codebooks(manifest)
    _check_addresses(manifest)


def _contradictions(entry: TensorEntry, scheme: Scheme) -> Iterator[str]:
    """Yield each contradiction in the entry of a tensor."""
    if len(entry.shape) > MOST_AXES or not all(_is_of(side, int) for side in entry.shape):
        yield f"a shape has up to {MOST_AXES} whole numbers"
    elif math.prod(entry.shape) != entry.original:
        yield f"shape {entry.shape} is not of {entry.original:,} weights"
    if not 1 <= entry.stored <= entry.original <= MOST_WEIGHTS:
        yield f"{entry.stored:,} of {entry.original:,} weights are stored"
    if entry.dtype not in {dtype.name for dtype in FLOATS}:
        yield f"{entry.dtype!r} is no float type"
    if entry.groups != 1 and (scheme.granularity != "channel" or entry.groups not in entry.shape):
        yield f"it has {entry.groups:,} groups"
    if len(entry.classes) != scheme.classes:
        yield f"{len(entry.classes)} classes of {scheme.classes}"
    elif sum(each.count for each in entry.classes) != entry.stored:
        yield f"classes do not hold {entry.stored:,} weights"
    elif tuple(each.cells for each in entry.classes) != scheme.cells_of_class:
        yield f"its cells per weight are not those of its scheme, {scheme.cells}"
    yield from _wrong_bounds(entry)
    if entry.mask_bitmap_bits != entry.original and (entry.mask_bitmap_bits or entry.stored < entry.original):
        yield f"mask_bitmap_bits is {entry.mask_bitmap_bits:,}"
    planes = {"level": scheme.analog != "none", "mask": entry.mask_bitmap_bits > 0, "sign": scheme.sign == "bit"}
    planes |= {"class": scheme.classes > 1, **dict.fromkeys(("alpha", "beta", "stride"), entry.groups > 1)}
    if {plane for plane, there in planes.items() if there} != set(entry.sha256):
        yield f"it has digests of {', '.join(entry.sha256) or 'nothing'}"
    if not all(isinstance(digest, str) and _HEX.fullmatch(digest) for digest in entry.sha256.values()):
        yield "a digest is no SHA-256"


def _wrong_bounds(entry: TensorEntry) -> Iterator[str]:
    for each in entry.classes:
        numbers = (each.low, each.high, each.alpha, each.beta)
        if entry.groups > 1:
            if numbers != (None,) * 4:
                yield "a class has one scale, though each output channel has its own"
        elif None in numbers or not (each.alpha > 0 and each.low <= each.high):  # type: ignore[operator]  # not None
            yield f"alpha {each.alpha}, {each.low} to {each.high} is no class"


def _check_codebooks(manifest: Manifest) -> None:
    first: dict[int, TensorEntry] = {}
    for entry in manifest.tensors:
        if manifest.schemes[entry.scheme].granularity == "model":
            other = first.setdefault(entry.scheme, entry)
            if [(c.low, c.high, c.alpha, c.beta) for c in entry.classes] != [
                (c.low, c.high, c.alpha, c.beta) for c in other.classes
            ]:
                raise ManifestError(f"tensor {entry.key!r} has other classes in the manifest, though all share them")


def _check_addresses(manifest: Manifest) -> None:
    address, owned = 0, set[int]()
    for entry in manifest.tensors:
        scheme = manifest.schemes[entry.scheme]
        owns = scheme.granularity != "model" or entry.scheme not in owned
        owned.add(entry.scheme)
        least = {
            "side": entry.stored * scheme.side_bits,
            "mask": mask_bits(entry.original, entry.stored),
            "codebook": codebook_bits(scheme, entry.groups) if owns else 0,
        }
        bits = {name: entry.bits.get(name) for name in least}
        if scheme.estimator != "affine" and _is_of(bits["codebook"], int):
            least["codebook"] = max(least["codebook"], int(str(bits["codebook"])))  # with the estimator's tables
        for name, length in least.items():
            if bits[name] != length:
                raise ManifestError(f"tensor {entry.key!r}: its {name} has {bits[name]} bits, and must have {length:,}")
        expected, address = _addresses(cells_of(scheme, [c.count for c in entry.classes], least), address)
        for plane in PLANES:
            if entry.cells[plane] != expected[plane]:
                raise ManifestError(
                    f"tensor {entry.key!r}: its {plane} is in cells {entry.cells[plane][0]:,} to "
                    f"{entry.cells[plane][1]:,} of the manifest, and must be in {expected[plane][0]:,} to "
                    f"{expected[plane][1]:,}"
                )


def _check_follows(expected: Mapping[str, Any], given: Mapping[str, Any], where: str) -> None:
    """Raise `ManifestError` unless `given` has what follows from the tensors; ratios may be rounded."""
    for name, value in expected.items():
        there = given[name]
        same = (
            _is_of(there, float) and math.isclose(there, value, rel_tol=1e-9)
            if isinstance(value, float)
            else (type(there) is type(value) and there == value)
        )
        if not same:
            raise ManifestError(f"{where}: {name} is {json.dumps(there)[:40]}, and {value} follows from the tensors")


def _check_baselines(manifest: Manifest, given: Sequence[Mapping[str, Any]]) -> None:
    expected = manifest.baselines()
    if len(given) != len(expected):
        raise ManifestError(f"baselines: {len(expected)} follow from the tensors")
    for baseline, here in zip(expected, given, strict=True):
        _check_follows(asdict(baseline), here, f"baselines: {baseline.name}")
