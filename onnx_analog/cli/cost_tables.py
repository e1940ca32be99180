"""The cost report: what a protected model takes in two countings, and the same weights held digitally."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from onnx_analog.cli.failures import in_options
from onnx_analog.cli.tables import Table, table
from onnx_analog.coding.assumptions import OPTIMISTIC, assumes_addresses
from onnx_analog.coding.streams import LEVELS, SIDE, Line, hardest
from onnx_analog.display import bits, capital, counted
from onnx_analog.graph.baselines import INTEGERS
from onnx_analog.graph.manifest import Baseline, Manifest

if TYPE_CHECKING:
    from onnx_analog.graph.protected import ProtectedModel

PAPER, MEMORY = "cells as the paper counts", "as the memory allows"  # the two countings
DECODING = {  # in words
    "none": "none (thresholds and scales)",
    "table": "table (tables of an estimator)",
    "hard": "hard (a hard-decision decoder or an entropy decoder)",
    "soft": "soft (a soft-decision decoder, which is assumed)",
}
_CODES = {"none": "no code", "bch": "BCH", "soft": "soft, assumed"}
_PARTS = {  # of the paper's counting, with their lines of the other
    "side": ("sign", "class", "mask and class", SIDE),
    "mask": ("mask", "mask seed"),
    "codebook": ("codebook",),
}


def cost_table(manifest: Manifest, protected: ProtectedModel | None = None) -> Table:
    """Return the lines of the cost: bits, code, and cells in both countings.

    The model, if it is at hand, tells what a correction takes.
    """
    result = table("what it costs", "bits", "code", "bits per cell", PAPER, MEMORY, "decoding")
    result.columns[2].justify = result.columns[6].justify = "left"
    lines = manifest.honest
    totals = manifest.totals
    _add(result, "analog levels", totals.analog_cells, _of(lines, (LEVELS,)))
    paper = {"side": totals.side_cells, "mask": totals.mask_cells, "codebook": totals.codebook_cells}
    for plane, name in _names(manifest).items():
        _add(result, name, paper[plane], _of(lines, _PARTS[plane]))
    result.add_section()
    _add_sums(result, manifest)
    result.caption = ". ".join(_notes(manifest, protected))
    return result


def _names(manifest: Manifest) -> dict[str, str]:
    bitmap = f" (bitmap: {counted(manifest.totals.mask_bitmap_bits, 'bit')})"
    return {
        "side": f"{_bits_of(manifest)}: {_of_side(manifest)}",
        "mask": f"mask: which weights are stored{bitmap}",
        "codebook": f"codebook: {'α and β' if manifest.totals.analog_cells else 'what classes stand for'}",
    }


def _bits_of(manifest: Manifest) -> str:
    """Name what the bits are of: where tensors have no levels, they are its weights."""
    if not manifest.totals.analog_cells:
        return "weights"
    are_digital = {manifest.schemes[entry.scheme].analog == "none" for entry in manifest.tensors}
    return f"side information{' and digital weights' * (True in are_digital)}"


def _of_side(manifest: Manifest) -> str:
    """Return what is stored beside levels; without levels, it is all that tells weights apart."""
    streams = {name for entry in manifest.tensors for name in entry.streams}
    if manifest.totals.analog_cells:
        return f"sign, class{', mask' * ('mask and class' in streams)}"
    return ", ".join(name for name in ("sign", "class", "mask and class") if name in streams)


def _of(lines: Sequence[Line] | None, names: Iterable[str]) -> list[Line]:
    return [line for name in names for line in lines or () if line.name == name]


def _add(result: Table, name: str, paper: int, lines: Sequence[Line]) -> None:
    """Add a line of the paper's counting and those that it has in the other, each below it if there are several."""
    if not paper and not lines:
        return
    single = lines[0] if len(lines) == 1 else None
    cells = f"{sum(line.cells for line in lines):,}" if lines else ""
    decoding = hardest(line.decoding for line in lines) if lines else ""
    result.add_row(name, *_coded(single), f"{paper:,}", cells, decoding)
    for line in lines if single is None else ():
        result.add_row(f"· {line.name}", *_coded(line), "", f"{line.cells:,}", line.decoding)


def _coded(line: Line | None) -> tuple[str, str, str]:
    """Return the bits of a line, its code, and its rate."""
    if line is None or line.bits is None:
        return "", "", ""
    rate = "" if line.bits_per_cell is None else bits(line.bits_per_cell)
    return f"{line.bits:,}", f"{_CODES[str(line.code)]}, {line.symbols} symbols", rate


def _add_sums(result: Table, manifest: Manifest) -> None:
    totals, allowed = manifest.totals, manifest.totals.honest_cells
    decoding = "" if allowed is None else totals.decoding
    result.add_row(
        "all-in", "", "", "", f"{totals.all_in_cells:,}", "" if allowed is None else f"{allowed:,}", decoding
    )
    for name, weights in (("stored", totals.stored_weights), ("original", totals.original_weights)):
        ratio = "" if allowed is None else f"{allowed / weights:.3f}"
        result.add_row(f"per {name} weight", "", "", "", f"{totals.all_in_cells / weights:.3f}", ratio, "")


def correction_note(manifest: Manifest, protected: ProtectedModel | None) -> str:
    """Say that cells leave out a correction, and what one by samples takes where the model is at hand to tell."""
    if protected is None:
        return "A correction is not included: give the model in place of its manifest to see what one takes"
    if protected.read_mark is not None:
        return "A correction is not included: give the model as it was protected to see what one takes"
    numbers, verified = protected.correction.numbers, protected.verified
    is_corrected = verified is not None and verified.corrected_by is not None
    which = "The correction that the plan was verified with" if is_corrected else "A correction by samples"
    left_out = " is not included:" if numbers else ":"
    return f"{which}{left_out} {cells_with_correction(manifest, numbers)}"


def cells_with_correction(manifest: Manifest, numbers: int) -> str:
    """Say what the numbers of a correction take, and what all takes with them, per original weight."""
    if not numbers:
        return "no numbers are kept, so it takes no cells"
    added = manifest.of_correction(numbers)
    counting = next(iter(added))
    how = MEMORY if counting == "memory" else PAPER.removeprefix("cells ")
    return (
        f"its {counted(numbers, 'number')} take {added[counting]:.3f} cells per original weight more, "
        f"{manifest.per_weight(counting, numbers):.3f} in all, {how}"
    )


def _notes(manifest: Manifest, protected: ProtectedModel | None) -> Iterator[str]:
    """Yield what stands under the lines."""
    totals = manifest.totals
    r_avg = f"the paper's r_avg, analog cells per stored weight: {totals.ratios()['r_avg']:.3f}"
    yield (
        f"{totals.stored_weights:,} of {counted(totals.original_weights, 'weight')} stored; "
        f"{r_avg if totals.analog_cells else 'all cells are digital'}"
    )
    per_cell = sorted({scheme.side_bits_per_cell for scheme in manifest.schemes})
    yield f"The paper counts bits as free of error, {' or '.join(map(str, per_cell))} in a cell"
    yield correction_note(manifest, protected)
    if manifest.not_counted is not None:
        yield f"As the memory allows, cells are not counted: {in_options(manifest.not_counted)}"
        return
    yield f"Decoding: {'; '.join(DECODING[each] for each in _decodings(manifest.honest or ()))}"
    if assumes_addresses(manifest.schemes):
        yield capital(OPTIMISTIC)


def _decodings(lines: Iterable[Line]) -> list[str]:
    levels = {line.decoding for line in lines}
    return [each for each in DECODING if each in levels]


# ------------------------------------------------------------------------------------------------- baselines


def baseline_table(manifest: Manifest) -> Table:
    """Return the cells of the same weights held digitally, in both countings, and their ratios to the model's."""
    baselines = manifest.baselines()
    per_cell = sorted({baseline.bits_per_cell for baseline in baselines})
    papers = [f"at {counted(bits, 'bit')}" for bits in per_cell]
    result = table("the same weights held digitally", *papers, "against all-in", MEMORY, "against the same", "decoding")
    result.columns[-1].justify = "left"
    rows: dict[str, list[Baseline]] = {}
    for baseline in baselines:
        if not baseline.pruned or manifest.totals.mask_bitmap_bits:  # else it would say the same again
            rows.setdefault(f"{baseline.name}, {'pruned' if baseline.pruned else 'dense'}", []).append(baseline)
    for name, each in rows.items():
        result.add_row(name, *(f"{one.cells:,}" for one in each), *_compared(each[-1], manifest))
    form = "analog form" if manifest.totals.analog_cells else "model as it is stored"
    cheaper = _digital_note(form, [name for name, each in rows.items() if _is_cheaper(each[-1], manifest)])
    result.caption = ". ".join([*cheaper, capital(INTEGERS)])
    return result


def _compared(baseline: Baseline, manifest: Manifest) -> list[str]:
    """Return the ratio to the model as the paper counts; and cells, ratio and decoding as the memory allows."""
    paper = f"{baseline.cells / manifest.totals.all_in_cells:.2f}×"
    allowed = manifest.totals.honest_cells
    if baseline.honest_cells is None or allowed is None:
        return [paper, "", "", ""]
    return [paper, f"{baseline.honest_cells:,}", f"{baseline.honest_cells / allowed:.2f}×", baseline.decoding]


def _is_cheaper(baseline: Baseline, manifest: Manifest) -> bool:
    allowed = manifest.totals.honest_cells
    pairs = [(baseline.cells, manifest.totals.all_in_cells)]
    pairs += [(baseline.honest_cells, allowed)] if baseline.honest_cells is not None and allowed is not None else []
    return any(round(mine / model, 2) < 1 for mine, model in pairs)


def _digital_note(form: str, cheaper: Sequence[str]) -> Iterator[str]:
    """Yield the explanation of ratios below 1, if there are any."""
    if cheaper:
        yield f"Below 1×, the digital form needs fewer cells than the {form} in that counting"
        yield f"Here: {'; '.join(cheaper)}"
