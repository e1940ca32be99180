"""Tables of where noise hurts. Importing them takes no time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnx_analog.arguments import PART_KINDS
from onnx_analog.cli.cost_tables import cells_with_correction
from onnx_analog.cli.tables import Table, table
from onnx_analog.display import counted

if TYPE_CHECKING:
    from onnx_analog.tuning.harm import Harms


def tables_of(harms: Harms) -> Iterator[Table]:
    """Yield a table of each kind of parts that alone are read with noise."""
    for kind in harms.kinds:
        result = table(PART_KINDS[kind], *harms.headings)
        rows = list(harms.table(kind))
        of_parts = len(harms.of(kind)) * (1 if harms.uncorrected is None else 2)
        for number, row in enumerate(rows):
            result.add_row(*row, end_section=number == of_parts - 1)
        if kind == harms.kinds[-1]:
            result.caption = ". ".join(_notes(harms))
        yield result


def _notes(harms: Harms) -> Iterator[str]:
    used = f"{counted(harms.trials, 'trial')} of each part, {counted(harms.samples, 'sample')}"
    yield f"{harms.metric}, {harms.channel}; {used}"
    yield "In each row, only the named part has noise; losses are relative to a read without noise"
    if harms.storing is not None:
        yield f"By storing alone, relative to the original: {harms.scale.lost(harms.storing)}"
    yield "Share: divergence of the outputs, relative to that with noise in all cells. Shares need not add up to 100 %"
    if any(harm.all_but for harm in harms.parts):
        yield "All but it: the loss and the share that remain if only this part has no noise"
    if harms.correction is not None:
        yield f"Corrected: {harms.corrected}"
        if harms.protected is not None:
            taken = cells_with_correction(harms.protected.counted, harms.correction.numbers)
            yield f"Cells are shown without the correction: {taken}"
        yield "Shares in rows without the correction are relative to a read of all cells without it"
    if harms.alike:
        yield "All trials read the same: digital cells with a code are read without errors"
