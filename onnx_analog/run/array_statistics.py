"""Statistics of the reads of an array, measured or simulated.

The error of a weight is the mean read of its cells minus its level, before any estimator. Errors are grouped by
channel, by the number of cells of the weight, and by equal parts of the output range. Of each group, the file keeps the
number, the mean, the standard deviation, and quantiles, from which distances between distributions follow. Digital
cells are in `onnx_analog.run.stream_statistics`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog import serialise
from onnx_analog.coding.scheme import Scheme
from onnx_analog.disk.kinds import FORMATS, STATISTICS
from onnx_analog.disk.reading import MIB, read_text
from onnx_analog.display import Shown, counted, score
from onnx_analog.errors import DataError, brief, require_path
from onnx_analog.graph.irregular import UNREAD
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.reader import Reader
from onnx_analog.run.metrics import each_in_db
from onnx_analog.run.statistics import interval, spread
from onnx_analog.run.stream_statistics import StreamStatistics

Doubles = NDArray[np.float64]

FORMAT = f"{FORMATS[STATISTICS]}2"
PARTS = 8  # of the output range
QUANTILES = 201
_LARGEST = 64 * MIB


@dataclass(frozen=True, kw_only=True)
class Group:
    """Errors of the weights with so many cells and a level in one part of the output range.

    Attributes
    ----------
    channel : str
    cells : int
        Cells of each weight; a differential pair counts as two.
    low, high : float
        Ends of the part.
    count : int
        Weights and arrays together.
    mean, std : float
    quantiles : tuple of float
        At equal steps from the least error to the largest.
    """

    channel: str
    cells: int
    low: float
    high: float
    count: int
    mean: float
    std: float
    quantiles: tuple[float, ...]

    @property
    def key(self) -> tuple[str, int, float]:
        """What tells groups apart."""
        return self.channel, self.cells, self.low


@dataclass(frozen=True, kw_only=True, repr=False)
class ArrayStatistics(Shown):
    """Errors of an array's weights by level and, if there were data, what the network then scores.

    Attributes
    ----------
    kind : {"measured", "simulated"}
    image : str
        Digest of what was stored.
    arrays : int
        How often it was programmed and read.
    groups : tuple of Group
    streams : tuple of StreamStatistics
    metric : str or None
    values : tuple of float
        Of each array; empty without data.
    samples : int
    share : bool
        Whether values are shares, from 0 to 1.
    irregularities : tuple of dict
        Of a measured array; see `onnx_analog.graph.array_read`.
    """

    kind: str
    image: str
    arrays: int
    groups: tuple[Group, ...]
    streams: tuple[StreamStatistics, ...] = ()
    metric: str | None = None
    values: tuple[float, ...] = ()
    samples: int = 0
    share: bool = False
    irregularities: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {"format": FORMAT, "version": version("onnx-analog"), **asdict(self)}

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    @property
    def score(self) -> str | None:
        """What the arrays score, in one line; None without data."""
        if not self.values:
            return None
        what = f"{self.metric} on {counted(self.samples, 'sample')}, {self.kind}"
        if self.kind == "measured":
            return "; ".join(
                [f"{what}: {score(self.values[0], share=self.share)}", *([self.unread] if self.unread else [])]
            )
        bounds = (0.0, 1.0) if self.share else None
        ends = interval(self.values, bounds=bounds)
        mean = score(float(np.mean(self.values)), share=self.share)
        each = each_in_db(self.metric or "")
        what += f"{', mean of arrays' * bool(each)}{each}"
        return f"{what}: {mean} ({spread(self.values, ends, share=self.share, noun='array')})"

    @property
    def unread(self) -> str | None:
        """How many weights of a measured array had no read, and what became of them; None if all had one."""
        found = next((each for each in self.irregularities if each["what"] == UNREAD and each["count"]), None)
        return None if found is None else "{count:,} of {of:,} weights had no read and were {handling}".format(**found)

    def __str__(self) -> str:
        cells = counted(sum(group.count for group in self.groups), "weight")
        if not self.groups:  # no level is stored
            cells = counted(round(sum(stream.symbols for stream in self.streams)), "digital symbol")
        return f"{cells} of {counted(self.arrays, f'{self.kind} array')}"


def grouped(protected: ProtectedModel, raw: Iterable[Mapping[str, NDArray[Any]]]) -> tuple[Group, ...]:
    """Return the groups of errors.

    Parameters
    ----------
    protected : ProtectedModel
        What was written.
    raw : mappings of storage key to float32 array of shape (M,)
        Mean reads of the weights of each tensor, NaN where there is none: one mapping for each array.
    """
    errors: dict[tuple[str, int, int], list[Doubles]] = {}
    ends: dict[str, Doubles] = {}
    for reads in raw:
        for key, tensor in protected.by_key.items():
            if not tensor.level.size:
                continue
            channel = tensor.scheme.channel
            low, high = channel.span
            edges = ends.setdefault(str(channel), np.linspace(low, high, PARTS + 1))
            part = np.clip(np.searchsorted(edges, tensor.level, side="right") - 1, 0, PARTS - 1)
            index = tensor.level_class
            of_class = channel.devices_per_cell * np.array(tensor.scheme.cells_of_class)
            cells = of_class[np.zeros(part.size, np.intp) if index is None else index]
            error = reads[key].astype(np.float64) - tensor.level
            there = np.isfinite(error)
            for count in np.unique(cells).tolist():
                for number in np.unique(part[there & (cells == count)]).tolist():
                    chosen = error[there & (cells == count) & (part == number)]
                    errors.setdefault((str(channel), count, number), []).append(chosen)
    return tuple(_group(*name, ends[name[0]], np.concatenate(errors[name])) for name in sorted(errors))


def _group(channel: str, cells: int, part: int, edges: Doubles, error: Doubles) -> Group:
    return Group(
        channel=channel,
        cells=cells,
        low=float(edges[part]),
        high=float(edges[part + 1]),
        count=error.size,
        mean=float(error.mean()),
        std=float(error.std()),
        quantiles=tuple(np.quantile(error, np.linspace(0, 1, QUANTILES)).tolist()),
    )


# ------------------------------------------------------------------------------------------------------- files


def statistics_of(given: object, name: str) -> ArrayStatistics:
    """Return statistics: as they are, or of a JSON file of `ArrayStatistics.to_json`.

    Raises
    ------
    DataError
        If it is no such file.
    OptionError
        If `given` is neither.
    """
    if isinstance(given, ArrayStatistics):
        return given
    path = require_path(name, given)
    text = read_text(path, limit=_LARGEST, error=DataError, kind=STATISTICS)
    try:
        body = serialise.parse(text)
    except ValueError as error:
        raise DataError(f"{str(path)!r} does not hold the statistics of an array: {error}") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        found = brief(body.get("format")) if isinstance(body, dict) else "missing"
        raise DataError(
            f"{str(path)!r} does not hold the statistics of an array: its format is {found}, and {FORMAT!r} is needed. "
            "`readback --statistics` writes such a file"
        )
    try:
        return _from_dict(body)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise DataError(f"{str(path)!r} is damaged: {error}. Write it again") from error


def _from_dict(body: Mapping[str, Any]) -> ArrayStatistics:
    known = {field.name: body[field.name] for field in fields(ArrayStatistics)}
    groups = tuple(_group_of(entry) for entry in known.pop("groups"))
    if known["kind"] not in ("measured", "simulated"):
        raise ValueError(f"kind is {brief(known['kind'])}")
    streams = tuple(StreamStatistics.of_file(entry) for entry in known.pop("streams"))
    values = tuple(float(value) for value in known.pop("values"))
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is not finite")
    arrays = int(known["arrays"])
    if arrays < 1 or len(values) not in (0, arrays) or (known["kind"] == "measured" and arrays > 1):
        raise ValueError(f"{len(values)} values of {arrays} arrays")
    irregularities = tuple(dict(entry) for entry in known.pop("irregularities"))
    return ArrayStatistics(**known, groups=groups, streams=streams, values=values, irregularities=irregularities)


def _group_of(entry: Mapping[str, Any]) -> Group:
    quantiles = tuple(float(value) for value in entry["quantiles"])
    numbers = {name: float(entry[name]) for name in ("low", "high", "mean", "std")}
    if len(quantiles) != QUANTILES or list(quantiles) != sorted(quantiles):
        raise ValueError(f"quantiles are not {QUANTILES} ascending numbers")
    if not all(map(math.isfinite, (*quantiles, *numbers.values()))):
        raise ValueError("a number of a group is not finite")
    group = Group(
        channel=str(entry["channel"]),
        cells=int(entry["cells"]),
        count=int(entry["count"]),
        quantiles=quantiles,
        **numbers,
    )
    if group.count < 1 or group.std < 0:
        raise ValueError("a group has no weights, or a negative standard deviation")
    return group


def raw_reads(
    protected: ProtectedModel, schemes: Mapping[Scheme, Scheme], *, seed: int, trials: int
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield the mean reads of the weights of simulated arrays, before an estimator.

    Parameters
    ----------
    protected : ProtectedModel
    schemes : mapping of Scheme to Scheme
        What each scheme is read with.
    seed, trials : int
    """
    readers = {
        tensor.key: Reader(tensor, schemes[tensor.scheme].changed(estimator="affine")) for tensor in protected.tensors
    }
    for trial in range(trials):
        yield {key: reader.read(seed=seed, trial=trial) for key, reader in readers.items()}
