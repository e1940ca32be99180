"""The storage manifest: which cell holds what, and what it all costs.

`onnx_analog.graph.accounting` derives it from a protected model, and `onnx_analog.graph.manifest_json` reads it. The
JSON form is specified by manifest.schema.json beside this module and explained in docs/formats.md: a reader ignores
fields that it does not know.

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
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

from onnx_analog.coding.assumptions import assumptions
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import Line, streams_from
from onnx_analog.disk import kinds
from onnx_analog.display import Shown, counted
from onnx_analog.errors import ManifestError
from onnx_analog.graph._cells import mask_bits
from onnx_analog.graph.baselines import Baseline as Baseline
from onnx_analog.graph.baselines import Held, baselines_of
from onnx_analog.graph.totals import Counted, Totals, lines_of, reason_against, split_of

FORMAT = f"{kinds.FORMATS[kinds.MANIFEST]}2"
PLANES = ("level", "side", "mask", "codebook")  # in the order of their addresses


class ClassEntry(NamedTuple):
    """One class of one tensor. `low` and `high` are its codebook's bounds, in the unit of the weights."""

    low: float | None  # null where each output channel has its own, as are the next three
    high: float | None
    alpha: float | None
    beta: float | None
    count: int  # type: ignore[assignment]  # weights: it hides a method of tuples that nobody needs
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
    streams: Mapping[str, int]  # digital stream -> its bits before a code is added
    bits: Mapping[str, int]  # plane -> its length before it is put into cells, as the paper counts
    cells: Mapping[str, tuple[int, int]]  # plane -> address range: level, side, mask, codebook
    sha256: Mapping[str, str]  # plane -> digest of its bytes

    def cells_for(self, plane: str) -> int:
        """Return how many cells `plane` takes."""
        first, end = self.cells[plane]
        return end - first

    def to_dict(self) -> dict[str, Any]:
        """Return the entry, ready for JSON."""
        fields = {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(self).items()}
        return {**fields, "classes": [entry._asdict() for entry in self.classes]}


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
        return Totals.of(self._counted())

    @cached_property
    def honest(self) -> tuple[Line, ...] | None:
        """The lines of the honest counting; None if a channel is too noisy for the code of a scheme."""
        return lines_of(self._counted())

    @cached_property
    def split(self) -> tuple[dict[str, int], ...] | None:
        """The cells of each tensor in the honest counting, by line; None where there is none."""
        return split_of(self._counted())

    @cached_property
    def not_counted(self) -> str | None:
        """Why there is no honest counting; None if there is one."""
        return reason_against(self._counted())

    def _counted(self) -> Iterator[Counted]:
        for entry in self.tensors:
            scheme = self.schemes[entry.scheme]
            yield Counted(
                scheme=scheme,
                original=entry.original,
                stored=entry.stored,
                bitmap_bits=entry.mask_bitmap_bits,
                cells={plane: entry.cells_for(plane) for plane in PLANES},
                streams=streams_from(entry.streams, scheme),
            )

    def per_weight(self, counting: str, numbers: int = 0) -> float | None:
        """Return cells per original weight, with those of as many numbers of a correction, in the same memory.

        None in the counting "memory" if a channel is too noisy for the code of a scheme, or for all codes.
        """
        if counting == "paper":
            return self.totals.paper_per_weight(numbers, self.schemes)
        return self.totals.honest_per_weight(numbers, self.schemes[0].channel)

    def of_correction(self, numbers: int) -> dict[str, float]:
        """Return the cells per original weight that numbers of a correction add, in each counting that there is."""
        found = {}
        for counting in ("memory", "paper"):
            without, corrected = self.per_weight(counting), self.per_weight(counting, numbers)
            if without is not None and corrected is not None:
                found[counting] = corrected - without
        return found

    @property
    def plan(self) -> Plan:
        """How each tensor is stored."""
        return Plan(default=None, tensors={entry.key: self.schemes[entry.scheme] for entry in self.tensors})

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What reads of the tensors assume in favour of the memory; see `onnx_analog.coding.assumptions`."""
        return assumptions(self.schemes)

    def baselines(self) -> tuple[Baseline, ...]:
        """Return what the weights would take digitally, dense and pruned, in both countings."""
        return baselines_of([self._held(entry) for entry in self.tensors])

    def _held(self, entry: TensorEntry) -> Held:
        scheme = self.schemes[entry.scheme]
        seed = entry.streams.get("mask seed", 0)
        coded = scheme.entropy != "none" and entry.mask_bitmap_bits > 0 and not seed
        mask = seed or entry.streams.get("mask", entry.mask_bitmap_bits)
        if "mask and class" in entry.streams:  # a mask alone would take as much as the best code of masks
            mask = mask_bits(entry.original, entry.stored)
        return Held(scheme=scheme, original=entry.original, stored=entry.stored, mask_bits=mask, mask_coded=coded)

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest, ready for JSON."""
        return {
            "format": FORMAT,
            "schemes": [scheme.to_dict() for scheme in self.schemes],
            "assumptions": list(self.assumptions),
            "source_sha256": self.source_sha256,
            "command": self.command,
            "tensors": [entry.to_dict() for entry in self.tensors],
            "totals": self.totals.to_dict(),
            "honest": None if self.honest is None else [asdict(line) for line in self.honest],
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
        yield "all-in as the paper counts, cells", f"{totals.all_in_cells:,} ({per_weight:.3f} per original weight)"
        honest = ratios["honest_cells_per_original_weight"]
        if honest is not None:
            words = f"{totals.honest_cells:,} ({honest:.3f} per original weight; decoding: {totals.decoding})"
            yield "as the memory allows, cells", words
        else:
            yield "as the memory allows, cells", f"not counted: {self.not_counted}"
        yield "tensors", f"{len(self.tensors):,}"
        for scheme in self.schemes:
            yield "scheme", scheme

    def _lines(self) -> Iterator[tuple[str, object]]:
        return self.lines()

    def __str__(self) -> str:
        totals = self.totals
        honest = totals.ratios()["honest_cells_per_original_weight"]
        allowed = "" if honest is None else f"; as the memory allows, {honest:.3f}"
        r_avg = totals.ratios()["r_avg"]
        where = f"{counted(totals.analog_cells, 'analog cell')} (r_avg {r_avg:.3f})"
        return (
            f"{totals.stored_weights:,} of {counted(totals.original_weights, 'weight')} in "
            f"{where if totals.analog_cells else 'digital cells'}; "
            f"all-in {counted(totals.all_in_cells, 'cell')}, "
            f"{totals.ratios()['all_in_cells_per_original_weight']:.3f} per original weight{allowed}"
        )

    def compare(self, actual: Manifest, name: str = "the manifest") -> None:
        """Raise `ManifestError` with the first value of this manifest, called `name`, that is not the model's."""
        if self.schemes != actual.schemes:
            raise ManifestError(
                f"{name} has other schemes than the model was protected with: the two do not belong together. {_REMEDY}"
            )
        stored = {entry.key: entry for entry in actual.tensors}
        listed = {entry.key: entry for entry in self.tensors}
        for key in [*listed, *stored]:
            if key not in stored or key not in listed:
                where = "the model" if key in listed else name
                raise ManifestError(f"tensor {key!r} is not in {where}: the two do not belong together. {_REMEDY}")
            if stored[key] == listed[key]:
                continue
            for field, here, there in differences(stored[key].to_dict(), listed[key].to_dict()):
                raise ManifestError(f"tensor {key!r}: {field} is {here} in the model, {there} in {name}. {_REMEDY}")
        self._compare_origin(actual, name)

    def _compare_origin(self, actual: Manifest, name: str) -> None:
        """Raise `ManifestError` if the manifest is of the same planes, but not of the same run of `protect`."""
        if self.source_sha256 != actual.source_sha256:
            raise ManifestError(f"{name} has another source_sha256 than the model: the two do not belong together")
        if self.command != actual.command:
            raise ManifestError(
                f"{name} and the model hold the same tensors, and differ in the command only, "
                f"{_brief(self.command)} and {_brief(actual.command)}. {_REMEDY}"
            )


_REMEDY = "Write the manifest again from the model."
_SYMBOLS = {"alpha": "α", "beta": "β"}
_KeyPath = tuple[str | int, ...]  # the keys that lead to a value


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the fields in which two entries of `to_dict` differ, and both values there, in words."""
    for path, one, other in _differences(here, there):
        yield _field(path), *_apart(one, other)


def _differences(here: Any, there: Any, path: _KeyPath = ()) -> Iterator[tuple[_KeyPath, Any, Any]]:
    """Yield where two values of `to_dict` differ, and both values there; lists of plain values are one value."""
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for name in dict.fromkeys((*here, *there)):
            yield from _differences(here.get(name), there.get(name), (*path, name))
    elif path == ("classes",) and len(here) != len(there):
        yield ("number of classes",), len(here), len(there)
    elif path == ("classes",):
        for number, entries in enumerate(zip(here, there, strict=True)):
            yield from _differences(*entries, (*path, number, len(here)))
    elif here != there:
        yield path, here, there


def _field(path: _KeyPath) -> str:
    """Return the name of a field of a tensor's entry: "α of class small", "cells of level"."""
    if len(path) == 1:
        return str(path[0])
    if path[0] != "classes":
        return f"{path[0]} of {path[1]}"
    _, number, count, name = path
    of_class = ("small", "large")[int(number)] if count == 2 else str(int(number) + 1)
    return f"{_SYMBOLS.get(str(name), name)} of class {of_class}"


def _apart(here: Any, there: Any) -> tuple[str, str]:
    """Return two different values as texts that differ: of numbers 4 digits, of digests the beginning."""
    if isinstance(here, float) and isinstance(there, float):
        short = f"{here:.4}", f"{there:.4}"
    else:
        short = _brief(here), _brief(there)
    return short if short[0] != short[1] else (str(here), str(there))


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
