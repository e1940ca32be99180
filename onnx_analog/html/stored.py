"""What a report shows of a protected model: its cost, its tensors, its weights and its levels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels import Channel
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.coding.limit import Limit
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import LEVELS, SIDE, Line
from onnx_analog.display import counted, per_weight
from onnx_analog.graph.baselines import INTEGERS
from onnx_analog.graph.manifest import Manifest
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.reader import Reader, read_side
from onnx_analog.graph.stored import StoredTensor
from onnx_analog.html import charts
from onnx_analog.html.charts import OTHER, Bar, Histogram, Sigma
from onnx_analog.html.page import Chart, Number, Section, Table, number, table
from onnx_analog.points import COUNTING

_BINS = 80
_PANELS = 6  # classes that have a histogram
_CHANNELS = 3  # that have a curve
_WIDER = 0.1  # of the range of weights: reads go beyond
_LEVELS_ON = 200  # points of a curve
_PARTS = {  # of the chart, by the lines of the counting
    LEVELS: "levels",
    **dict.fromkeys((SIDE, "sign", "class", "mask and class"), "side information"),
    **dict.fromkeys(("mask", "mask seed"), "mask"),
    "codebook": "codebook",
}
_RIVALS = ("int8", "int4")  # of the baselines


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A protected model, and what is shown of it.

    Attributes
    ----------
    protected : ProtectedModel
    seed : int
        Of the trial that is shown.
    limit : Limit or None
    counting : {"memory", "paper"} or None
        The only counting that is shown; both if it is None.
    of_correction : mapping of str to float
        Cells per original weight that hold the numbers of the correction, by counting; empty without a correction.
    name : str
        Goes before the titles of its sections, where a page shows more than this model.
    number : int
        Tells it from other models of a page.
    """

    protected: ProtectedModel
    seed: int = 0
    limit: Limit | None = None
    counting: str | None = None
    of_correction: Mapping[str, float] = field(default_factory=dict)
    name: str = ""
    number: int = 0

    def title(self, text: str) -> str:
        """Return the title of a section."""
        return f"{self.name}: {text[:1].lower()}{text[1:]}" if self.name else text

    @property
    def manifest(self) -> Manifest:
        """Which cell holds what."""
        return self.protected.counted

    def per_weight(self, counting: str) -> float | None:
        """Return cells per original weight in a counting, with those of the correction; None if they are not known."""
        cells, added = self.manifest.per_weight(counting), self.of_correction.get(counting)
        if cells is None or not self.of_correction:
            return cells
        return None if added is None else cells + added

    @property
    def counted_as(self) -> str:
        """The counting in which its cells are compared: unless one is shown only, "memory" where that is known."""
        return self.counting or ("paper" if self.per_weight("memory") is None else "memory")

    def correction(self, counting: str) -> tuple[tuple[str, float], ...]:
        """Return name and cells per original weight of the correction, if there is one: a part of its cells."""
        added = self.of_correction.get(counting)
        return () if added is None else (("correction", added),)

    @property
    def channels(self) -> list[Channel]:
        """The channels that its cells are read through, each once."""
        return list(dict.fromkeys(scheme.channel for scheme in self.protected.schemes))


# ------------------------------------------------------------------------------------------------------ numbers


def cell_numbers(memory: Memory) -> Iterator[Number]:
    """Yield cells per original weight in both countings, with those of the correction; and those of integers."""
    honest, paper = map(memory.per_weight, ("memory", "paper"))
    if honest is not None:
        decoding = f"; decoding: {memory.manifest.totals.decoding}"
        yield Number("cells per weight", number(honest), f"as the memory allows{decoding}{_with(memory, 'memory')}")
    name = "cells per weight" if honest is None else "the same"
    yield Number(name, number(paper), f"as the paper counts{_with(memory, 'paper')}")
    rivals = digital(memory)
    if rivals:
        eight = min((each for each in rivals if each.startswith("int8")), key=rivals.__getitem__)
        fewest = min(rivals, key=rivals.__getitem__)
        how = COUNTING[memory.counted_as]
        note = f"{how}; {INTEGERS}"
        yield Number(f"as integers of 8 bits: {eight}", number(rivals[eight]), note if fewest == eight else how)
        if fewest != eight:
            yield Number(f"cheapest integers shown: {fewest}", number(rivals[fewest]), note)


def _with(memory: Memory, counting: str) -> str:
    """Say how many of the cells the correction takes; nothing without one."""
    return "".join(f"; {number(added)} of them for the correction" for _, added in memory.correction(counting))


def digital(memory: Memory) -> dict[str, float]:
    """Return the cells per original weight of digital formats, by name, counted as those of the model are compared."""
    manifest, weights = memory.manifest, memory.manifest.totals.original_weights
    rivals = {}
    for each in manifest.baselines():  # the last of each name is at the bits per cell of the scheme
        cells = each.honest_cells if memory.counted_as == "memory" else each.cells
        if each.name in _RIVALS and cells is not None and (not each.pruned or manifest.totals.mask_bitmap_bits):
            rivals[f"{each.name}{', pruned' * each.pruned}"] = cells / weights
    return rivals


def bars(memory: Memory, name: str = "this model") -> list[Bar]:
    """Return its bars of the chart of costs: in both countings."""
    manifest, result = memory.manifest, []
    weights = manifest.totals.original_weights
    if manifest.honest is not None and memory.counting != "paper":
        parts: dict[str, float] = {}
        for line in manifest.honest:
            part = _PARTS[line.name]
            parts[part] = parts.get(part, 0.0) + line.cells / weights
        result.append(Bar(f"{name}, as the memory allows", {**parts, **dict(memory.correction("memory"))}))
    if memory.counting != "memory" or not result:
        paper = {**paper_parts(manifest.totals), **dict(memory.correction("paper"))}
        result.append(Bar(f"{name}, as the paper counts", paper))
    return result


def paper_parts(totals: Any) -> dict[str, float]:
    """Return cells per original weight as the paper counts, part by part."""
    cells = {"levels": totals.analog_cells, "side information": totals.side_cells, "mask": totals.mask_cells}
    cells["codebook"] = totals.codebook_cells
    return {name: count / totals.original_weights for name, count in cells.items() if count}


# ----------------------------------------------------------------------------------------------------- sections


def cost_section(memory: Memory, rivals: Mapping[str, float] | None = None) -> Section:
    """Return the section of costs; `rivals` are cells per original weight, by name, in place of plain formats."""
    others = digital(memory) if rivals is None else rivals
    rows = [*bars(memory), *(Bar(name, {OTHER: cells}) for name, cells in others.items())]
    fewest = None if memory.limit is None else memory.limit.cells_per_original_weight
    caption = "Cells per original weight, part by part."
    if rivals is None and others:
        caption += f" Grey: the same weights in a digital format; {INTEGERS}."
    if fewest:
        caption += f" Dotted: the fewest cells that any code needs at these errors, {per_weight(fewest)}."
    if memory.manifest.not_counted is not None:
        caption += f" As the memory allows, cells are not counted: {memory.manifest.not_counted}."
    chart = charts.costs(rows, caption, limit=fewest)
    return Section(title="What it costs", charts=(chart,), tables=(cost_table(memory),))


def cost_table(memory: Memory) -> Table:
    """Return the streams, their bits and their cells."""
    manifest = memory.manifest
    weights = manifest.totals.original_weights
    if manifest.honest is None:
        rows: list[tuple[str, ...]] = [
            (name, "–", f"{cells * weights:,.0f}", f"{cells:.4f}")
            for name, cells in paper_parts(manifest.totals).items()
        ]
        caption = "As the paper counts: digital bits are free of error."
    else:
        rows = [
            (
                line.name,
                "–" if line.bits is None else f"{line.bits:,}",
                f"{line.cells:,}",
                f"{line.cells / weights:.4f}",
            )
            for line in manifest.honest
        ]
        caption = f"As the memory allows: {_codes_of(manifest.honest)}."
    counting = "paper" if manifest.honest is None else "memory"
    rows += [(name, "–", f"{cells * weights:,.0f}", f"{cells:.4f}") for name, cells in memory.correction(counting)]
    return table(("stream", "bits", "cells", "per original weight"), rows, caption=caption)


def _codes_of(lines: Iterable[Line]) -> str:
    """Say which digital streams have a code."""
    coded = _are_coded(lines)
    if all(coded):
        return "each digital stream with the code that it needs"
    return "each digital stream with the code of its scheme, if it has one" if any(coded) else "no stream has a code"


def _are_coded(lines: Iterable[Line]) -> list[bool]:
    """Return whether each digital stream has a code."""
    return [line.code not in (None, "none") for line in lines if line.bits is not None]


def tensor_section(memory: Memory) -> Section:
    """Return the table of tensors, whose cells are counted as those of the headline."""
    limits = {} if memory.limit is None else {each.key: each for each in memory.limit.tensors}
    cells, counting = cells_of_tensors(memory)
    head = (
        "tensor", "stored as", "shape", "weights", "stored", f"cells, {COUNTING[counting]}", "per weight",
        "SNR as read, dB",
    )  # fmt: skip
    rows = []
    for entry, count in zip(memory.manifest.tensors, cells, strict=True):
        tensor = next(each for each in memory.protected.tensors if each.key == entry.key)
        row = (
            entry.key, memory.manifest.schemes[entry.scheme].summary(channel=False), "×".join(map(str, entry.shape)),
            f"{entry.original:,}", f"{entry.stored:,}", f"{count:,}", f"{count / max(entry.original, 1):.3f}",
            number(_snr_db(tensor, memory.seed), ".1f"),
        )  # fmt: skip
        limit = limits.get(entry.key)
        rows.append((*row, number(None if limit is None else limit.cells / limit.weights)) if limits else row)
    caption = (
        f"SNR as read: power of the stored weights over that of their errors in trial 0 of seed {memory.seed}, before "
        "any correction."
    )
    return Section(
        title=memory.title("Tensors"),
        tables=(table((*head, "limit") if limits else head, rows, caption=caption, left=2),),
    )


def cells_of_tensors(memory: Memory) -> tuple[list[int], str]:
    """Return the cells of each tensor, and how they are counted: as those of the model, where that is known."""
    manifest = memory.manifest
    split = manifest.split if memory.counted_as == "memory" else None
    if split is not None:
        return [sum(each.values()) for each in split], "memory"
    return [sum(entry.cells_for(plane) for plane in entry.cells) for entry in manifest.tensors], "paper"


def _snr_db(tensor: StoredTensor, seed: int) -> float | None:
    written, read = weights_of(tensor, seed)
    tensor.release()
    signal, noise = (
        float(np.square(written, dtype=np.float64).sum()),
        float(np.square(read - written, dtype=np.float64).sum()),
    )
    return None if not signal else math.inf if not noise else 10 * math.log10(signal / noise)


def weights_of(tensor: StoredTensor, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the stored weights (N,) as they were written, and as trial 0 reads them."""
    level = Reader(tensor).read(seed=seed, trial=0)
    sign, index = read_side(tensor, seed=seed, trial=0)
    written = tensor.decode_levels(tensor.level, sign=tensor.sign, class_index=tensor.class_index)
    return written, tensor.decode_levels(level, sign=sign, class_index=index)


def weights_section(memory: Memory) -> Section:
    """Return the histograms of weights, and of levels."""
    drawn: list[Chart] = []
    weights, levels = _weights(memory), _sigmas(memory)
    if weights:
        caption = (
            f"Weights of each class, in all tensors: as they were written, and as trial 0 of seed {memory.seed} reads "
            "them. What lies outside is counted at the ends."
        )
        drawn.append(charts.histograms(weights, caption, name=f"weights{memory.number}"))
    if levels:
        caption = "Above: σ of the read of one cell at each level, in the unit of the levels. Below: levels as written."
        drawn.append(charts.sigmas(levels, caption, name=f"levels{memory.number}"))
    text = "" if levels else "No weight has analog cells."
    return Section(title=memory.title("Weights and levels" if levels else "Weights"), text=text, charts=tuple(drawn))


def class_name(scheme: Scheme, number_of_class: int) -> str:
    """Return the name of a class, and its cells per weight."""
    names = {1: ("all weights",), 2: ("small weights", "large weights")}.get(scheme.classes)
    name = names[number_of_class] if names else f"class {number_of_class}"
    cells = scheme.cells_of_class[number_of_class]
    return f"{name}, {counted(cells, 'cell')} each" if cells else f"{name}, without cells"


def _weights(memory: Memory) -> list[Histogram]:
    """Return the histogram of each class: two passes, so that one tensor at a time is in memory."""
    ends: dict[str, tuple[float, float]] = {}
    for name, written, _ in _classes(memory):
        low, high = ends.get(name, (math.inf, -math.inf))
        ends[name] = min(low, float(written.min())), max(high, float(written.max()))
    edges = {name: _edges(*each) for name, each in list(ends.items())[:_PANELS]}
    counts = {name: np.zeros((2, _BINS), np.int64) for name in edges}
    for name, written, read in _classes(memory):
        for row, values in enumerate((written, read) if name in edges else ()):
            counts[name][row] += np.histogram(np.clip(values, edges[name][0], edges[name][-1]), edges[name])[0]
    return [Histogram(name, edges[name], *each) for name, each in counts.items()]


def _edges(low: float, high: float) -> NDArray[np.float64]:
    beyond = _WIDER * (high - low) or max(abs(low), 1.0) * _WIDER
    return np.linspace(low - beyond, high + beyond, _BINS + 1)


def _classes(memory: Memory) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
    """Yield the name of each class of each tensor, and its weights as written and as read."""
    for tensor in memory.protected.tensors:
        written, read = weights_of(tensor, memory.seed)
        if tensor.scheme.analog == "none":  # its classes are the values that a weight can have
            yield "digital weights", written, read
            continue
        index = tensor.class_index
        for each in range(tensor.scheme.classes):
            chosen = slice(None) if index is None else index == each
            if written[chosen].size:
                yield class_name(tensor.scheme, each), written[chosen], read[chosen]
        tensor.release()


def _sigmas(memory: Memory) -> list[Sigma]:
    return [part for channel in memory.channels[:_CHANNELS] if (part := _sigma(channel, memory.protected.tensors))]


def _sigma(channel: Channel, tensors: Sequence[StoredTensor]) -> Sigma | None:
    """Return the curve of a channel and the levels that it holds; None if it holds none."""
    low, high = channel.span
    edges = np.linspace(low, high, _BINS + 1)
    counts: dict[str, NDArray[np.int64]] = {}
    for tensor in tensors:
        if tensor.scheme.channel != channel or not tensor.level.size:
            continue
        index = tensor.level_class
        for each in range(tensor.scheme.classes):
            level = tensor.level if index is None else tensor.level[index == each]
            if level.size:
                name = class_name(tensor.scheme, each)
                counts[name] = counts.get(name, 0) + np.histogram(np.clip(level, low, high), edges)[0]
        tensor.release()
    if not counts:
        return None
    level = np.linspace(low, high, _LEVELS_ON)
    inside = clip_to_range(level.astype(np.float32), channel.span)
    return Sigma(str(channel), level, channel.moments(inside)[1], edges, counts)


def tensor_sections(memory: Memory) -> tuple[Section, ...]:
    """Return the sections about tensors, weights and levels."""
    return tensor_section(memory), weights_section(memory)


def sections(memory: Memory, rivals: Mapping[str, float] | None = None) -> tuple[Section, ...]:
    """Return all sections about the memory."""
    return cost_section(memory, rivals), *tensor_sections(memory)
