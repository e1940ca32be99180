"""Tables of models: what is stored, how, and what it costs. Importing them takes no time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnx_analog.cli.cost_tables import baseline_table, correction_note, cost_table
from onnx_analog.cli.tables import Table, table
from onnx_analog.coding.plan import Plan, changed_since
from onnx_analog.coding.scheme import Scheme
from onnx_analog.display import capital, counted, percent
from onnx_analog.graph.manifest import ClassEntry, Manifest, TensorEntry

if TYPE_CHECKING:
    from onnx_analog.graph.protected import ProtectedModel

_PLANES = {"level": "levels", "side": "side", "mask": "mask", "codebook": "codebook"}


def plan_table(plan: Plan, manifest: Manifest | None = None, protected: ProtectedModel | None = None) -> Table:
    """Return the scheme of each tensor or pattern of a plan, with the weights of a model that is stored by it."""
    weights = {} if manifest is None else {entry.key: entry.original for entry in manifest.tensors}
    numbers = [] if manifest is None else ["weights"]
    result = table("tensor or pattern", "scheme", "analog cells per weight", "channel", *numbers, left=2)
    result.columns[3].justify = "left"
    for key, scheme in plan.entries():
        size = f"{weights[key]:,}" if key in weights else ""
        if scheme is None:
            result.add_row(key, "stays digital, as in the model")
        else:
            channel = str(scheme.channel) if max(scheme.cells) else ""
            result.add_row(key, scheme.summary(channel=False), _cells_text(scheme), channel, *[size for _ in numbers])
    if plan.default is None and plan.tensors and not plan.patterns:  # else nobody knows which tensors there are
        result.add_section()
        per_weight = "" if manifest is None else f"{manifest.totals.ratios()['r_avg']:.3f}"
        size = "" if manifest is None else f"{manifest.totals.original_weights:,}"
        result.add_row("total", _kinds_text(plan, weights), per_weight, "", *[size for _ in numbers])
    result.caption = ". ".join(_plan_notes(plan, manifest, protected)) or None
    return result


def _kinds_text(plan: Plan, weights: Mapping[str, int]) -> str:
    """Return how many tensors are in analog cells, in digital ones and in none, with their shares of the weights."""
    kinds: dict[str, list[str]] = {"in analog cells": [], "in digital cells": [], "as in the model": []}
    for key, scheme in plan.tensors.items():
        kind = "as in the model" if scheme is None else f"in {'digital' if scheme.analog == 'none' else 'analog'} cells"
        kinds[kind].append(key)
    every, found = sum(weights.values()), {kind: keys for kind, keys in kinds.items() if keys}
    texts = []
    for kind, keys in found.items():
        share = sum(weights[key] for key in keys) / every if weights else 1.0
        of_weights = f" ({percent(share, 1)} of the weights)" if weights and len(found) > 1 else ""
        texts.append(f"{counted(len(keys), 'tensor')} {kind}{of_weights}")
    return ", ".join(texts)


def _plan_notes(plan: Plan, manifest: Manifest | None, protected: ProtectedModel | None) -> Iterator[str]:
    """Yield what the caption of a plan says: what all takes, and how the plan was verified."""
    if manifest is not None:
        yield str(manifest)
        yield correction_note(manifest, protected)
    if plan.compensated:
        by = "" if plan.compensated_by is None else f" by {counted(plan.compensated_by, 'sample')}"
        yield f"For weights compensated{by}: without compensation, or with other samples, cells and losses differ"
    if plan.verified is not None:
        changed = [capital(text) for text in changed_since(plan)]
        yield from changed
        yield f"{'What was verified' if changed else 'Verified'}: {plan.verified}"


def _cells_text(scheme: Scheme) -> str:
    """Return the analog cells per weight of each class, or their range if there are many classes."""
    cells = scheme.cells
    if not any(cells):
        return "0"
    return ", ".join(map(str, cells)) if len(cells) <= 4 else f"{min(cells)} to {max(cells)}"


def inspection_tables(rows: Sequence[dict[str, Any]], *, protected: bool) -> Iterator[Table]:
    """Yield the table of stored tensors and the table of skipped tensors by reason."""
    stored = table("stored" if protected else "to be stored", "shape", "type", "used by", "weights", "largest", left=4)
    for row in rows:
        if row["reason"] is None:
            numbers = (f"{row['weights']:,}", f"{row['largest']:.4g}")
            shape = "×".join(map(str, row["shape"]))
            stored.add_row(row["key"], shape, row["dtype"], ", ".join(sorted(set(row["used_by"]))), *numbers)
    total = sum(row["weights"] for row in rows if row["reason"] is None)
    stored.add_section()
    stored.add_row("total", "", "", "", f"{total:,}", "")
    yield stored
    skipped = Counter(row["reason"] for row in rows if row["reason"] is not None)
    if skipped:
        result = table("stays digital because", "tensors", "for example")
        result.columns[2].justify = "left"
        for reason, count in skipped.most_common():
            result.add_row(reason, f"{count:,}", next(row["key"] for row in rows if row["reason"] == reason))
        yield result


def account_tables(manifest: Manifest, protected: ProtectedModel | None = None) -> Iterator[Table]:
    """Yield the cost report: tensors and their classes, addresses, all lines of the cost, and the digital baselines.

    The model, if it is at hand, tells what a correction takes.
    """
    yield _tensor_table(manifest)
    yield _address_table(manifest)
    yield cost_table(manifest, protected)
    yield baseline_table(manifest)


def _tensor_table(manifest: Manifest) -> Table:
    """Return the classes of each tensor, without columns that say nothing."""
    rows = [row for entry in manifest.tensors for row in _class_rows(entry)]
    has_cells = any(each.cells for entry in manifest.tensors for each in entry.classes)
    heads = ("tensor", "class", "weights", "cells each", "α", "sizes" if has_cells else "value")
    shown = [column for column in range(len(heads)) if column < _ALWAYS or any(row[column] for row in rows)]
    result = table(*(heads[column] for column in shown), left=2)
    for row in rows:
        result.add_row(*(row[column] for column in shown))
    return result


def _class_rows(entry: TensorEntry) -> Iterator[tuple[str, ...]]:
    """Yield a row for each class of a tensor; one for all where there are many."""
    if len(entry.classes) > _MOST_CLASSES:
        cells = sorted({each.cells for each in entry.classes})
        ends = f"{cells[0]} to {cells[-1]}" if len(cells) > 1 else _cells_each(cells[0])
        yield entry.key, counted(len(entry.classes), "class", "classes"), f"{entry.stored:,}", ends, "", ""
        return
    for name, each in zip(_class_names(len(entry.classes)), entry.classes, strict=True):
        alpha = "per channel" if each.alpha is None else f"{each.alpha:.4g}" if each.cells else ""
        yield entry.key, name, f"{each.count:,}", _cells_each(each.cells), alpha, _sizes(each)


def _sizes(entry: ClassEntry) -> str:
    """Return the smallest and the largest size of a class; one number where it has one value."""
    if entry.low is None or entry.high is None:
        return ""
    low, high = f"{entry.low:.3g}", f"{entry.high:.3g}"
    return low if low == high else f"{low} to {high}"


def _cells_each(cells: int) -> str:
    """Return the analog cells of each weight of a class."""
    return f"{cells}" if cells else "digital"


_MOST_CLASSES = 8  # that have lines of their own
_ALWAYS = 4  # columns that are always shown


def _class_names(count: int) -> Sequence[str]:
    """Return the names of classes: their numbers from 0, as in models, files and all other tables."""
    return ("all",) if count == 1 else ("0 (small)", "1 (large)") if count == 2 else [str(k) for k in range(count)]


def _address_table(manifest: Manifest) -> Table:
    planes = [plane for plane in _PLANES if any(entry.cells_for(plane) for entry in manifest.tensors)]
    result = table("addresses of its cells", *(f"{_PLANES[plane]} from" for plane in planes), "last")
    for entry in manifest.tensors:
        spans = [entry.cells[plane] for plane in planes]
        firsts = ["" if first == end else f"{first:,}" for first, end in spans]
        result.add_row(entry.key, *firsts, f"{max(end for _, end in spans) - 1:,}")
    result.caption = "Addresses in the paper's counting. An image (manifest --write-image) has its own addresses"
    return result
