"""Tables of where noise hurts. Importing them takes no time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnx_analog.cli.tables import Table, table
from onnx_analog.display import counted

if TYPE_CHECKING:
    from onnx_analog.tuning.harm import Harm, Harms

INTERVAL = "95 % interval"
_HEADINGS = {"tensor": "tensor", "class": "class of all tensors", "stream": "stream of all tensors"}


def tables_of(harms: Harms) -> Iterator[Table]:
    """Yield a table of the tensors, the classes and the streams that alone are read with noise."""
    for kind, heading in _HEADINGS.items():
        parts = harms.of(kind)
        if parts:
            yield _table(harms, heading, parts, last=kind == [each.part.kind for each in harms.parts][-1])


def _table(harms: Harms, heading: str, parts: tuple[Harm, ...], *, last: bool) -> Table:
    result = table(heading, "weights", "cells", harms.scale.heading, INTERVAL, "divergence", "share, %")
    for harm in parts:
        result.add_row(harm.part.label, *harms.texts(harm))
    result.add_section()
    if len(parts) > 1:
        total = sum(harms.share(harm) or 0.0 for harm in parts)
        result.add_row("sum", "", "", "", "", "", f"{100 * total:.1f}")
    result.add_row(harms.whole.part.label, *harms.texts(harms.whole))
    if last:
        result.caption = ". ".join(_notes(harms))
    return result


def _notes(harms: Harms) -> Iterator[str]:
    used = f"{counted(harms.trials, 'trial')} of each part, {counted(harms.samples, 'sample')}"
    yield f"{harms.metric}, {harms.channel}; {used}"
    yield "One part is read with noise, and all else as it was written; losses are counted from the model as written"
    yield "Share: divergence of the outputs, of that with noise in all cells. Parts need not add up to 100 %"
    if harms.alike:
        yield "All trials read the same: digital cells with a code are read without errors"
