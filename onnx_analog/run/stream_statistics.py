"""How often symbols of an array's digital cells are misread: counted if it was measured, expected if it is simulated.

The simulation draws wrong bits and blocks, not symbols. Its symbols are misread as often as the law of the channel says
of those that were written; if that law is known from reads only, the share has a standard error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from onnx_analog.channels.base import READS, Channel
from onnx_analog.coding.side import symbols_of
from onnx_analog.graph.accounting import with_streams
from onnx_analog.graph.array_streams import StreamRead
from onnx_analog.graph.image_streams import streams_of
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.reader import side_bits
from onnx_analog.graph.stored import StoredTensor


@dataclass(frozen=True, kw_only=True)
class StreamStatistics:
    """One stream of an array.

    Attributes
    ----------
    name, channel, code : str
        As in `onnx_analog.graph.array_streams.StreamRead`.
    symbols : int
    misread : float
        How many of them, or how many are expected.
    blocks : int
    failed : float
        Likewise, of the blocks of a code.
    doubt : float
        Standard error of the share that is expected to be misread; 0 where it is counted, or computed from a law.
    """

    name: str
    channel: str
    code: str
    symbols: int
    misread: float
    blocks: int = 0
    failed: float = 0.0
    doubt: float = 0.0

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells streams apart."""
        return self.name, self.channel, self.code

    @property
    def share(self) -> float:
        """Share of the symbols that are misread."""
        return self.misread / self.symbols

    @staticmethod
    def of_file(entry: Mapping[str, Any]) -> StreamStatistics:
        """Return what a file says.

        Raises
        ------
        ValueError, KeyError, TypeError
            If it is no such entry.
        """
        texts = {name: str(entry[name]) for name in ("name", "channel", "code")}
        whole = {name: int(entry[name]) for name in ("symbols", "blocks")}
        others = {name: float(entry[name]) for name in ("misread", "failed", "doubt")}
        within = 0 <= others["misread"] <= whole["symbols"] and 0 <= others["failed"] <= whole["blocks"]
        if whole["symbols"] < 1 or not within or not 0 <= others["doubt"] < math.inf:
            raise ValueError("numbers of a stream do not fit together")
        return StreamStatistics(**texts, **whole, **others)  # type: ignore[arg-type]


def counted_streams(reads: Iterable[StreamRead]) -> tuple[StreamStatistics, ...]:
    """Return how streams of a measured array were read; those of a kind together, without those that have no read."""
    return _merged(StreamStatistics(**asdict(read)) for read in reads if read.symbols)


def expected_streams(protected: ProtectedModel) -> tuple[StreamStatistics, ...]:
    """Return how the streams of a simulated array are read."""
    tensors = list(protected.by_key.values())
    return _merged([*_digital(tensors), *(side for tensor in tensors for side in _side(tensor))])


def _digital(tensors: Iterable[StoredTensor]) -> Iterator[StreamStatistics]:
    for stream in streams_of(with_streams(tensors))[0]:
        code, how = stream.kind.code, stream.cells
        written = np.bincount(stream.symbols(), minlength=code.symbols)
        blocks = 0 if code.block is None else -(-stream.bits.size // code.block.data)
        yield StreamStatistics(
            name=stream.kind.name,
            code=code.name,
            blocks=blocks,
            failed=0.0 if code.block is None else blocks * code.block.failure,
            **_misread(stream.kind.channel, how.symbols.confusion, written),
        )


def _side(tensor: StoredTensor) -> Iterator[StreamStatistics]:
    side = tensor.scheme.side
    if side is None or (tensor.sign is None and tensor.class_index is None):
        return
    bits, width = side_bits(tensor, tensor.scheme).reshape(-1), side.bits_per_cell
    symbols = symbols_of(bits, width)
    written = side.copies * np.bincount(symbols, minlength=2**width)
    yield StreamStatistics(name="side", code="copies", **_misread(side.channel, side.confusion, written))


def _misread(channel: Channel, confusion: NDArray[np.float64], written: NDArray[np.int64]) -> dict[str, Any]:
    """Return the symbols of each kind (m,) that were written, and how many of them are misread."""
    wrong = (confusion * (1 - np.eye(len(confusion)))).sum(axis=1)
    total = int(written.sum())
    error = 0.0 if channel.normal else math.sqrt(float(((written / total) ** 2 * wrong * (1 - wrong)).sum() / READS))
    return {"channel": str(channel), "symbols": total, "misread": float(written @ wrong), "doubt": error}


def _merged(entries: Iterable[StreamStatistics]) -> tuple[StreamStatistics, ...]:
    """Return entries with those of one key as one."""
    by_key: dict[tuple[str, str, str], list[StreamStatistics]] = {}
    for entry in entries:
        by_key.setdefault(entry.key, []).append(entry)
    return tuple(_sum(group) for group in by_key.values())


def _sum(group: list[StreamStatistics]) -> StreamStatistics:
    name, channel, code = group[0].key
    return StreamStatistics(
        name=name,
        channel=channel,
        code=code,
        symbols=sum(each.symbols for each in group),
        misread=sum(each.misread for each in group),
        blocks=sum(each.blocks for each in group),
        failed=sum(each.failed for each in group),
        doubt=max(each.doubt for each in group),
    )


# ----------------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True, kw_only=True)
class StreamDifference:
    """One stream of both arrays.

    Attributes
    ----------
    measured, simulated : StreamStatistics
    misread_interval : (float, float)
        Shares of misread symbols that the measured count does not exclude, with the confidence of the comparison over
        all that it compares.
    failed_interval : (float, float) or None
        Likewise of blocks that fail; None without a code.
    """

    measured: StreamStatistics
    simulated: StreamStatistics
    misread_interval: tuple[float, float]
    failed_interval: tuple[float, float] | None

    @property
    def differs(self) -> bool:
        """Whether the simulated share of misread symbols, or of blocks that fail, is excluded."""
        low, high = self.misread_interval
        if not low <= self.simulated.share <= high:
            return True
        if self.failed_interval is None:
            return False
        low, high = self.failed_interval
        return not low <= self.simulated.failed / self.simulated.blocks <= high

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {
            **{name: getattr(self.measured, name) for name in ("name", "channel", "code")},
            **{
                f"{kind}_{name}": getattr(stream, name)
                for kind, stream in (("measured", self.measured), ("simulated", self.simulated))
                for name in ("symbols", "misread", "blocks", "failed")
            },
            "misread_interval": self.misread_interval,
            "failed_interval": self.failed_interval,
            "differs": self.differs,
        }


def comparisons_of(measured: StreamStatistics) -> int:
    """Return how many shares of a stream are compared."""
    return 1 + (measured.blocks > 0)


def stream_difference(measured: StreamStatistics, simulated: StreamStatistics, risk: float) -> StreamDifference:
    """Return how a stream of a measured array differs from that of simulated ones.

    Symbols are misread independently of each other. Where their chances differ, their number scatters less than
    binomially, so that intervals of Clopper and Pearson are on the safe side.

    Parameters
    ----------
    measured, simulated : StreamStatistics
    risk : float
        With which an interval may miss the true share.
    """
    low, high = _shares(int(measured.misread), measured.symbols, risk)
    beyond = float(scipy.stats.norm.isf(risk / 2)) * simulated.doubt
    return StreamDifference(
        measured=measured,
        simulated=simulated,
        misread_interval=(max(low - beyond, 0.0), min(high + beyond, 1.0)),
        failed_interval=_shares(int(measured.failed), measured.blocks, risk) if measured.blocks else None,
    )


def _shares(count: int, of: int, risk: float) -> tuple[float, float]:
    ends = scipy.stats.binomtest(count, of).proportion_ci(1 - risk, method="exact")
    return float(ends.low), float(ends.high)
