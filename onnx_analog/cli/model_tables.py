"""Tables of models: what is stored, how, and what it costs. Importing them takes no time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from onnx_analog.cli.tables import Table
from onnx_analog.coding.assumptions import OPTIMISTIC, assumes_addresses
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.display import counted
from onnx_analog.graph.manifest import Manifest

_PLANES = {"level": "levels", "side": "side", "mask": "mask", "codebook": "codebook"}


def table(*columns: str, title: str = "", left: int = 1) -> Table:
    """Return an empty table: the first `left` columns hold names, which may fold, the others numbers, which do not."""
    empty = Table(title=title or None)
    for number, column in enumerate(columns):
        empty.add_column(column, justify="left" if number < left else "right")
    return empty


def plan_table(plan: Plan) -> Table:
    """Return the scheme of each tensor or pattern of a plan."""
    result = table("tensor or pattern", "scheme", "cells per weight", "channel", left=2)
    result.columns[3].justify = "left"
    for key, scheme in plan.entries():
        if scheme is None:
            result.add_row(key, "stays digital, as in the model")
        else:
            result.add_row(
                key,
                scheme.summary(channel=False),
                _cells_text(scheme),
                str(scheme.channel) if max(scheme.cells) else "",
            )
    return result


def _cells_text(scheme: Scheme) -> str:
    """Return the cells per weight of each class, or their range if there are many classes."""
    cells = scheme.cells
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


def account_tables(manifest: Manifest) -> Iterator[Table]:
    """Yield the cost report: tensors and their classes, addresses, all lines of the cost, and the digital baselines."""
    yield _tensor_table(manifest)
    yield _address_table(manifest)
    yield _cost_table(manifest)
    yield _baseline_table(manifest)


def _tensor_table(manifest: Manifest) -> Table:
    result = table("tensor", "class", "weights", "cells each", "α", "sizes", left=2)
    for entry in manifest.tensors:
        if len(entry.classes) > _MOST_CLASSES:
            cells = sorted({each.cells for each in entry.classes})
            ends = f"{cells[0]} to {cells[-1]}" if len(cells) > 1 else str(cells[0])
            result.add_row(
                entry.key, counted(len(entry.classes), "class", "classes"), f"{entry.stored:,}", ends, "", ""
            )
            continue
        for name, each in zip(_class_names(len(entry.classes)), entry.classes, strict=True):
            alpha = "per channel" if each.alpha is None else f"{each.alpha:.4g}" if each.cells else ""
            sizes = "" if each.low is None else f"{each.low:.3g} to {each.high:.3g}"
            result.add_row(entry.key, name, f"{each.count:,}", str(each.cells), alpha, sizes)
    return result


_MOST_CLASSES = 8  # that have lines of their own


def _class_names(count: int) -> Sequence[str]:
    return ("all",) if count == 1 else ("small", "large") if count == 2 else [str(k + 1) for k in range(count)]


def _address_table(manifest: Manifest) -> Table:
    planes = [plane for plane in _PLANES if any(entry.cells_for(plane) for entry in manifest.tensors)]
    result = table("addresses of its cells", *(f"{_PLANES[plane]} from" for plane in planes), "last")
    for entry in manifest.tensors:
        spans = [entry.cells[plane] for plane in planes]
        firsts = ["" if first == end else f"{first:,}" for first, end in spans]
        result.add_row(entry.key, *firsts, f"{max(end for _, end in spans) - 1:,}")
    return result


def _cost_table(manifest: Manifest) -> Table:
    totals, ratios = manifest.totals, manifest.totals.ratios()
    result = table("what it costs", "cells", "per stored weight", "per original weight")
    bits = sorted({scheme.side_bits_per_cell for scheme in manifest.schemes})
    per_cell = f"{' or '.join(map(str, bits))} bit{'s' * (bits[-1] != 1)}"
    lines = {
        "analog levels (the paper's r_avg)": totals.analog_cells,
        f"side information: sign and class, {per_cell} per cell": totals.side_cells,
        f"mask: which weights are stored (bitmap: {counted(totals.mask_bitmap_bits, 'bit')})": totals.mask_cells,
        "codebook: α and β": totals.codebook_cells,
        "all-in": totals.all_in_cells,
    }
    for name, cells in lines.items():
        result.add_row(
            name, f"{cells:,}", f"{cells / totals.stored_weights:.3f}", f"{cells / totals.original_weights:.3f}"
        )
    result.caption = (
        f"{totals.stored_weights:,} of {counted(totals.original_weights, 'weight')} stored; "
        f"levels and side information alone: {ratios['stored_cells_per_stored_weight']:.3f} cells per stored weight"
    )
    if assumes_addresses(manifest.schemes):
        result.caption += f". {OPTIMISTIC.capitalize()}"
    return result


def _baseline_table(manifest: Manifest) -> Table:
    per_cell = sorted({baseline.bits_per_cell for baseline in manifest.baselines()})
    result = table("the same weights held digitally", *(f"cells at {counted(bits, 'bit')}" for bits in per_cell))
    result.add_column("against all-in", justify="right")
    rows: dict[str, list[int]] = {}
    for baseline in manifest.baselines():
        if baseline.pruned and not manifest.totals.mask_bitmap_bits:
            continue  # nothing is pruned, so it would say the same again
        rows.setdefault(f"{baseline.name}, {'pruned' if baseline.pruned else 'dense'}", []).append(baseline.cells)
    for name, cells in rows.items():
        result.add_row(name, *(f"{count:,}" for count in cells), f"{cells[-1] / manifest.totals.all_in_cells:.2f}×")
    result.caption = _digital_note(
        [name for name, cells in rows.items() if round(cells[-1] / manifest.totals.all_in_cells, 2) < 1]
    )
    return result


def _digital_note(cheaper: Sequence[str]) -> str:
    """Return the explanation of ratios below 1; empty if there are none."""
    if not cheaper:
        return ""
    names = "; ".join(cheaper)
    return (
        f"below 1×, the digital form needs fewer cells than the analog form, all-in. Here: {names}. "
        "The loss of accuracy due to rounding is not counted"
    )
